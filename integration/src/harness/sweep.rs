//! What a node leaves on the machine if nobody cleans up: processes by their cgroup, cgroups, a folder. All of it bears
//! the node's name, and the name holds the pid of the process that made it.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use anyhow::{Context, Result};

use super::cgroup;

/// Names of nodes begin so and go on with the pid, a dash, and a number.
pub const PREFIX: &str = "rf-";

/// Where nodes have their folders: on disk, and short enough for the paths of sockets.
pub const DIRECTORY: &str = "/var/lib/ringfence-test";

const DAEMON: &str = ".host";

/// The cgroup of a node's containerd and its shims.
pub fn daemon_cgroup(name: &str) -> String {
    format!("{name}{DAEMON}")
}

/// Removes what nodes of processes that do not run any more left.
pub fn stale() -> Result<()> {
    let mut names = BTreeSet::new();
    let roots = cgroup::directories("/")?;
    for directory in roots.iter().map(std::path::PathBuf::as_path).chain([Path::new(DIRECTORY)]) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            names.extend(stale_node(&name).map(str::to_owned));
        }
    }
    names.iter().try_for_each(|name| node(name))
}

/// The name of the node, if this is something of one whose process has ended.
fn stale_node(name: &str) -> Option<&str> {
    let node = name.strip_suffix(DAEMON).unwrap_or(name);
    let (pid, number) = node.strip_prefix(PREFIX)?.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(pid) && is_number(number) && !Path::new("/proc").join(pid).exists()).then_some(node)
}

/// Removes all of one node.
pub fn node(name: &str) -> Result<()> {
    cgroup::remove(name)?;
    cgroup::remove(&daemon_cgroup(name))?;
    let directory = Path::new(DIRECTORY).join(name);
    match fs::remove_dir_all(&directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).with_context(|| directory.display().to_string())?,
        _ => {}
    }
    // Not empty if another one runs.
    let _ = fs::remove_dir(DIRECTORY);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_left_is_stale() {
        // Above the kernel's limit of pids.
        assert_eq!(stale_node("rf-4194305-1"), Some("rf-4194305-1"));
        assert_eq!(stale_node("rf-4194305-1.host"), Some("rf-4194305-1"));
        assert_eq!(stale_node(&format!("rf-{}-1", std::process::id())), None);
        for other in ["rf-", "rf-1", "rf-x-1", "rf-4194305-", "default", "rf-4194305-1x", "xrf-4194305-1"] {
            assert_eq!(stale_node(other), None, "{other}");
        }
    }
}
