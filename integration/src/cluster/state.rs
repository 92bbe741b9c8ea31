//! The state folder: the sign that a cluster is there, and who has it.
//!
//! There is one for the machine, as pods' cgroups have one place on it. It is made before anything else and removed
//! after everything else, so where it is not, nothing is.

use std::path::{Path, PathBuf};
use std::{fs, io, process};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::sweep;

/// Where: on disk, and short enough for the paths of sockets.
pub const FOLDER: &str = "/var/lib/ringfence-cluster";

/// What is written down about a cluster.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The process that ends it; `None` when it is to stay until `cluster down`.
    owner: Option<Owner>,
}

/// A process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    pid: u32,
    /// When it started, in the kernel's ticks: pids come again.
    started: u64,
}

/// Makes the state folder, which says that the cluster is ours. What the cluster of a process that died left behind is
/// removed first.
pub fn claim() -> Result<PathBuf> {
    let folder = PathBuf::from(FOLDER);
    remove_stale()?;
    match fs::create_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("a cluster is there already; its state is in {FOLDER}, and `cargo xtask cluster down` ends it")
        }
        made => made.with_context(|| format!("make {FOLDER}"))?,
    }
    if let Some(pods) = sweep::pods_cgroup()? {
        fs::remove_dir(&folder)?;
        bail!("{} is there: another kubelet uses this machine, or one has left its pods", pods.display());
    }
    write(&Record { owner: Some(Owner::this()?) })?;
    Ok(folder)
}

/// Removes what the cluster of a process that died left behind.
pub fn remove_stale() -> Result<()> {
    if owner_is_dead() { sweep::everything().context("remove what an earlier cluster left") } else { Ok(()) }
}

/// The cluster outlives this process.
pub fn leave() -> Result<()> {
    write(&Record { owner: None })
}

/// Whether there is a cluster whose process has died. One that is to stay has none.
fn owner_is_dead() -> bool {
    let text = fs::read_to_string(record()).unwrap_or_default();
    let owner = serde_json::from_str::<Record>(&text).ok().and_then(|record| record.owner);
    owner.is_some_and(|owner| Owner::of(owner.pid).ok() != Some(owner))
}

/// The process that runs a cluster for itself at the moment, such as a test run.
pub fn living_owner() -> Option<u32> {
    let text = fs::read_to_string(record()).ok()?;
    let owner = serde_json::from_str::<Record>(&text).ok()?.owner?;
    (Owner::of(owner.pid).ok()? == owner).then_some(owner.pid)
}

fn record() -> PathBuf {
    Path::new(FOLDER).join("state.json")
}

fn write(record_: &Record) -> Result<()> {
    let (path, unfinished) = (record(), record().with_extension("new"));
    fs::write(&unfinished, serde_json::to_string(record_)?)?;
    fs::rename(&unfinished, &path).with_context(|| path.display().to_string())
}

impl Owner {
    fn this() -> Result<Self> {
        Self::of(process::id())
    }

    fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).context(path)?;
        // The program's name is in parentheses and may hold anything; field 22 is the 20th behind it.
        let (_, fields) = stat.rsplit_once(") ").context("no name in it")?;
        let started = fields.split(' ').nth(19).context("it is too short")?.parse()?;
        Ok(Self { pid, started })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_pid() {
        let this = Owner::this().expect("a process");
        assert_eq!(Owner::of(process::id()).expect("a process"), this);
        assert!(this.started > 0);
        // Above the kernel's limit of pids.
        assert!(Owner::of(4_194_305).is_err());
    }
}
