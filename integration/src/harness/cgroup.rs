//! Cgroups of the node: made, killed and removed in every hierarchy.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use ringfence_containers::cgroups::{Hierarchies, Mode};

/// Longest that a cgroup may stay busy after its last process was killed.
const LIMIT: Duration = Duration::from_secs(30);

/// Puts a process into a cgroup of its own, so that all it ever starts can be found by it.
pub fn confine(name: &str, pid: u32) -> Result<()> {
    let hierarchies = Hierarchies::detect()?;
    let root = match (hierarchies.mode(), hierarchies.v1(), hierarchies.v2()) {
        (Mode::Unified, _, Some(v2)) => v2,
        (_, Some(v1), _) => v1.mount.as_path(),
        _ => bail!("no cgroup hierarchy"),
    };
    let directory = root.join(name);
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let procs = directory.join("cgroup.procs");
    fs::write(&procs, pid.to_string()).with_context(|| procs.display().to_string())
}

/// Makes a cgroup in every hierarchy, as runc does: the directories. Not in that of `cpuset` of v1, which takes nobody
/// before it was given CPUs.
pub fn make(name: &str) -> Result<Vec<PathBuf>> {
    let roots = directories("")?.into_iter().filter(|root| !root.join("cpuset.cpus").exists());
    let made: Vec<PathBuf> = roots.map(|root| root.join(name)).collect();
    for directory in &made {
        fs::create_dir(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    Ok(made)
}

/// Kills everything in a cgroup of this name at the hierarchies' roots, and waits until it is gone.
pub fn kill_all(name: &str) -> Result<()> {
    let path = format!("/{name}");
    // On a thread of its own: the caller may be within a runtime.
    let kill = || -> Result<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(Hierarchies::detect()?.kill_all(&path))?)
    };
    thread::scope(|scope| scope.spawn(kill).join()).ok().context("the thread panicked")??;
    Ok(())
}

/// Kills everything in a cgroup of this name at the hierarchies' roots, and removes it.
pub fn remove(name: &str) -> Result<()> {
    kill_all(name)?;
    for directory in directories(name)? {
        remove_tree(&directory)?;
    }
    Ok(())
}

/// The directories of a cgroup, one per hierarchy that has it.
pub fn directories(path: &str) -> Result<Vec<PathBuf>> {
    let relative = path.trim_start_matches('/');
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let roots = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    Ok(roots.map(|root| Path::new(root).join(relative)).filter(|directory| directory.is_dir()).collect())
}

fn remove_tree(directory: &Path) -> Result<()> {
    // It may vanish meanwhile: runc cleans up as well.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    let until = Instant::now() + LIMIT;
    loop {
        match fs::remove_dir(directory) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // Processes that were killed leave a moment later.
            Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy && Instant::now() < until => {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result.with_context(|| directory.display().to_string()),
        }
    }
}
