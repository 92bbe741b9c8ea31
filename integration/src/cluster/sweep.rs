//! The end of a cluster, whoever started it: all of it is found by its cgroups, its state folder and its veth pair.
//!
//! Everything else that a node makes (mounts, bridges, pods' interfaces, kube-proxy's rules, pinned programs) is in
//! namespaces of its own, and goes with the last process in them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context, Result, bail};

use super::{CGROUP, network, state};
use crate::harness::cgroup;

/// The cgroup of all pods; where it is does not depend on us.
const PODS: &str = "kubepods";

/// Longest that what was killed may take to be gone.
const LIMIT: Duration = Duration::from_secs(20);

/// Ends and removes everything of a cluster, in an order in which nothing can come back; what is left is an error.
pub fn everything() -> Result<()> {
    // First those that start others: the kubelet, containerd, shims. Then the pods.
    let failures = [cgroup::remove(CGROUP), cgroup::remove(PODS), network::remove(), remove_state()];
    let failures: Vec<_> =
        failures.into_iter().filter_map(|result| result.err().map(|error| format!("{error:#}"))).collect();
    if !failures.is_empty() {
        bail!("the cluster could not be removed: {}", failures.join("; "));
    }
    let until = Instant::now() + LIMIT;
    loop {
        let left = leftovers()?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("the cluster left something behind: {}", left.join("; "));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The pods' cgroup, if there is one.
pub fn pods_cgroup() -> Result<Option<PathBuf>> {
    Ok(cgroup::directories(PODS)?.into_iter().next())
}

/// Whether there is anything of a cluster.
pub fn is_there() -> Result<bool> {
    Ok(!leftovers()?.is_empty())
}

/// What there is of a cluster: cgroups, processes, mounts, the veth pair, the state folder.
pub fn leftovers() -> Result<Vec<String>> {
    let mut left: Vec<String> = Vec::new();
    let ours = Path::new(state::FOLDER).exists();
    for name in [CGROUP, PODS] {
        // Without a cluster of ours, pods are somebody else's.
        if name != PODS || ours || !cgroup::directories(CGROUP)?.is_empty() {
            left.extend(cgroup::directories(name)?.iter().map(|folder| format!("cgroup {}", folder.display())));
        }
    }
    left.extend(processes()?);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let of_state = |line: &&str| line.contains(state::FOLDER);
    left.extend(mounts.lines().filter(of_state).map(|line| format!("mount {line}")));
    if network::exists() {
        left.push(format!("link {}", network::LINK));
    }
    if ours {
        left.push(format!("folder {}", state::FOLDER));
    }
    Ok(left)
}

/// Processes whose command line names the state folder or whose mounts hold it: shims and what a pod detached too.
fn processes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) || name == std::process::id().to_string() {
            continue;
        }
        // It may end while we look.
        let cgroups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let in_ours = |line: &str| line.rsplit(':').next().is_some_and(|path| path.starts_with(&format!("/{CGROUP}")));
        let mounts = fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        if cgroups.lines().any(in_ours) || mounts.contains(state::FOLDER) {
            let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(format!("process {name} ({})", command.trim()));
        }
    }
    Ok(found)
}

fn remove_state() -> Result<()> {
    match fs::remove_dir_all(state::FOLDER) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(state::FOLDER),
        _ => Ok(()),
    }
}
