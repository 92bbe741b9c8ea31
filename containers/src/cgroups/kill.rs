//! Killing everything that is in a cgroup, also what forks meanwhile.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tracing::debug;

use super::{Hierarchies, tree::subdirectories};
use crate::Error;

/// How often every process is killed before we say that it does not work.
const ROUNDS: u32 = 500;

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(2);

/// How often we look whether the freezer has frozen. It may never (a process in vfork): killing helps then as well.
const FREEZE_LOOKS: u32 = 20;

impl Hierarchies {
    /// Kills every process of the cgroup at `path` (below the hierarchies' roots) and of all that are nested in it, in
    /// every hierarchy that has it; returns how many processes that were, once none is left.
    ///
    /// cgroup v2 does it by `cgroup.kill` (Linux 5.14), at once. v1 and older kernels: freeze, SIGKILL every process,
    /// thaw, until it is empty; freezing keeps a fork bomb from outrunning us. A cgroup that is gone counts 0.
    pub async fn kill_all(&self, path: &str) -> Result<usize, Error> {
        let relative = killable(path)?;
        let v1 = self.v1().map(|v1| v1.mount.join(relative));
        let v2 = self.v2().map(|mount| mount.join(relative));
        let freezer = self.freezer().map(|mount| mount.join(relative));
        let directories: Vec<PathBuf> =
            v1.into_iter().chain(v2.clone()).chain(freezer.clone()).filter(|directory| directory.is_dir()).collect();
        let freezer = freezer.map(|directory| directory.join("freezer.state")).filter(|state| state.exists());
        let kill_file = v2.map(|directory| directory.join("cgroup.kill")).filter(|file| file.exists());
        let mut killed: BTreeSet<u32> = BTreeSet::new();
        let mut left = BTreeSet::new();
        for _ in 0..ROUNDS {
            left = processes(&directories)?;
            if left.is_empty() {
                return Ok(killed.len());
            }
            killed.extend(&left);
            if let Some(file) = &kill_file {
                write(file, "1")?;
                left = processes(&directories)?;
            }
            // Those that only v1 knows of.
            if let Some(state) = freezer.as_ref().filter(|_| !left.is_empty()) {
                freeze(state).await?;
                left = processes(&directories)?;
                killed.extend(&left);
            }
            for pid in &left {
                // It may have ended, which is as good.
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
            if let Some(state) = &freezer {
                // Signals of the frozen are delivered now.
                write(state, "THAWED")?;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::StillAlive { cgroup: path.to_owned(), rounds: ROUNDS, pids: left.into_iter().collect() })
    }
}

/// The path below the root. The root itself is every process of the machine.
fn killable(path: &str) -> Result<&str, Error> {
    let relative = path.strip_prefix('/').map(|path| path.trim_end_matches('/')).unwrap_or_default();
    if relative.is_empty() || relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Error::NotKillable(path.to_owned()));
    }
    Ok(relative)
}

async fn freeze(state: &Path) -> Result<(), Error> {
    write(state, "FROZEN")?;
    for _ in 0..FREEZE_LOOKS {
        match fs::read_to_string(state) {
            Ok(text) if text.trim() == "FREEZING" => tokio::time::sleep(PAUSE).await,
            _ => return Ok(()),
        }
    }
    debug!(state = %state.display(), "does not freeze");
    Ok(())
}

/// Every process of these cgroups and of those nested in them; this one excepted, whoever put it there.
fn processes(directories: &[PathBuf]) -> Result<BTreeSet<u32>, Error> {
    let mut pids = BTreeSet::new();
    let mut rest = directories.to_vec();
    while let Some(directory) = rest.pop() {
        rest.extend(subdirectories(&directory).into_iter().map(|name| directory.join(name)));
        pids.append(&mut processes_in(&directory)?);
    }
    pids.remove(&std::process::id());
    Ok(pids)
}

/// Every process of this cgroup itself; none if it is gone.
pub(super) fn processes_in(directory: &Path) -> Result<BTreeSet<u32>, Error> {
    let path = directory.join("cgroup.procs");
    match fs::read_to_string(&path) {
        // 0: a process of a pid namespace that is not ours.
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0).collect()),
        Err(e) if is_gone(&e) => Ok(BTreeSet::new()),
        // A threaded cgroup of v2 has its processes in the domain above.
        Err(e) if e.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => Ok(BTreeSet::new()),
        Err(source) => Err(Error::File { path, source }),
    }
}

fn write(path: &Path, value: &str) -> Result<(), Error> {
    match fs::write(path, value) {
        Err(source) if !is_gone(&source) => Err(Error::File { path: path.to_path_buf(), source }),
        _ => Ok(()),
    }
}

/// ENODEV: the directory was removed between open and use.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_below_the_root_may_be_killed() {
        for path in ["", "/", "//", "demo", "/a/../..", "/..", "/a//b", "/a/./b", "a/b"] {
            assert!(matches!(killable(path), Err(Error::NotKillable(named)) if named == path), "{path}");
        }
        assert_eq!(killable("/default/demo").expect("fine"), "default/demo");
        assert_eq!(killable("/default/demo/").expect("fine"), "default/demo");
    }

    #[tokio::test]
    async fn a_cgroup_that_is_gone_is_empty() {
        let hierarchies = Hierarchies::detect().expect("this machine has cgroups");
        let path = format!("/ringfence-unit-test-{}/never", std::process::id());
        assert_eq!(hierarchies.kill_all(&path).await.expect("nothing to do"), 0);
    }
}
