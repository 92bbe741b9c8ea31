//! What the node must have before anything is loaded, checked in an order that names the first thing to mend.

use super::Error;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, statfs},
};
use std::{
    fs::{self, File},
    path::Path,
};

/// How cgroups are laid out, as far as identity needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// cgroup v2 alone.
    Unified,
    /// v1 controllers (one of which, by its subsystem number, knows tasks), with or without a v2 beside them.
    Legacy {
        /// Index of the controller in the kernel's `css_set.subsys`.
        controller: u32,
    },
}

impl Hierarchy {
    /// The v1 controller, if there is one to ask.
    pub fn controller(self) -> Option<u32> {
        match self {
            Self::Unified => None,
            Self::Legacy { controller } => Some(controller),
        }
    }

    /// Of this node: pure v2 if `/sys/fs/cgroup` is cgroup2, else by the first of `pids` and `memory` that is mounted.
    pub fn detect(proc_cgroups: &str, root: &Path) -> Result<Self, Error> {
        if statfs(root).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC) {
            return Ok(Self::Unified);
        }
        // Lines stand in the order of the kernel's subsystem numbers (kernel/cgroup/cgroup-v1.c, proc_cgroupstats_show).
        let controllers: Vec<(&str, bool)> = proc_cgroups
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                let (name, hierarchy) = (fields.next()?, fields.next()?);
                Some((name, hierarchy != "0"))
            })
            .collect();
        ["pids", "memory"]
            .iter()
            .find_map(|wanted| controllers.iter().position(|(name, mounted)| name == wanted && *mounted))
            .and_then(|index| u32::try_from(index).ok())
            .map(|controller| Self::Legacy { controller })
            .ok_or(Error::Missing {
                feature: "a cgroup hierarchy that knows containers",
                remedy: "mount cgroup v2 at /sys/fs/cgroup, or the v1 controller pids or memory below it",
            })
    }
}

/// Checks rights and features.
pub fn preflight() -> Result<Hierarchy, Error> {
    require_capabilities()?;
    // Without the file there is no lockdown.
    if fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|levels| is_confidential(&levels)) {
        return Err(Error::Missing {
            feature: "BPF programs that read its memory: lockdown is confidentiality (/sys/kernel/security/lockdown)",
            remedy: "boot with lockdown=integrity, or without lockdown",
        });
    }
    if !aya::sys::is_map_supported(aya::maps::MapType::RingBuf).unwrap_or(false) {
        return Err(Error::Missing { feature: "the BPF ring buffer", remedy: "kernel 5.8 or later is needed" });
    }
    let cgroups = "/proc/cgroups";
    let text = fs::read_to_string(cgroups).map_err(|source| Error::Path { path: cgroups.into(), source })?;
    Hierarchy::detect(&text, Path::new("/sys/fs/cgroup"))
}

/// Whether lockdown keeps the kernel's memory from everybody (`LOCKDOWN_BPF_READ_KERNEL`, 5.4). The level in force stands
/// in brackets; integrity forbids nothing that we do.
fn is_confidential(levels: &str) -> bool {
    levels.contains("[confidentiality]")
}

/// Bits of `CapEff` (`include/uapi/linux/capability.h`).
const CAPABILITIES: [(&str, u32); 4] =
    [("CAP_SYS_ADMIN", 21), ("CAP_NET_ADMIN", 12), ("CAP_BPF", 39), ("CAP_PERFMON", 38)];

fn require_capabilities() -> Result<(), Error> {
    let path = "/proc/self/status";
    let status = fs::read_to_string(path).map_err(|source| Error::Path { path: path.into(), source })?;
    match missing_capability(&status) {
        Some(name) => Err(Error::Capability(name)),
        None => Ok(()),
    }
}

fn missing_capability(status: &str) -> Option<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES.iter().find(|(_, bit)| effective & (1 << bit) == 0).map(|(name, _)| *name)
}

/// Mounts the bpf file system where it is missing. Before [`private_mounts`]: it is to stay when the enforcer goes.
pub fn mount_bpffs(bpffs: &Path) -> Result<(), Error> {
    require_capabilities()?;
    let failed = |source| Error::Path { path: bpffs.to_owned(), source };
    if statfs(bpffs).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    fs::create_dir_all(bpffs).map_err(failed)?;
    mount(Some("bpf"), bpffs, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(|e| failed(e.into()))?;
    tracing::info!(path = %bpffs.display(), "mounted the bpf file system");
    Ok(())
}

/// Sees cgroups as the node's first process does. In a container on pure cgroup v2, runtimes tell everything relative to
/// the container's own cgroup: the hierarchy's mount has the root `/../..`, and `/proc/PID/cgroup` likewise. Must be
/// called while the process has one thread.
pub fn node_cgroups() -> Result<(), Error> {
    let [own, node] = ["/proc/self/ns/cgroup", "/proc/1/ns/cgroup"].map(Path::new);
    let failed = |source| Error::Path { path: node.to_owned(), source };
    match (fs::read_link(own), fs::read_link(node)) {
        (Ok(own), Ok(first)) if own != first => {
            let namespace = File::open(node).map_err(failed)?;
            setns(namespace, CloneFlags::CLONE_NEWCGROUP).map_err(|error| failed(error.into()))
        }
        // Without the right to look it may be one's own all the same; where not, no hierarchy is found later.
        _ => Ok(()),
    }
}

/// Gives this process tracefs and securityfs where the node has none mounted: in a mount namespace of its own, which
/// goes with it and still sees the node's later mounts. Must be called while the process has one thread.
pub fn private_mounts() -> Result<(), Error> {
    let missing: Vec<(&str, &str)> =
        [("tracefs", "/sys/kernel/tracing", "events"), ("securityfs", "/sys/kernel/security", "lsm")]
            .into_iter()
            .filter(|(_, path, proof)| !Path::new(path).join(proof).exists())
            .map(|(kind, path, _)| (kind, path))
            .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let failed = |path: &str, source: nix::Error| Error::Path { path: path.into(), source: source.into() };
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| failed("/", e))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(|e| failed("/", e))?;
    for (kind, path) in missing {
        match mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>) {
            // A kernel without securityfs has no LSM to ask for.
            Err(nix::Error::ENODEV | nix::Error::ENOENT) if kind == "securityfs" => {}
            other => other.map_err(|e| failed(path, e))?,
        }
    }
    Ok(())
}

/// Whether the kernel calls LSM programs: "bpf" among the active LSMs. (They load and attach without that too.)
pub fn lsm_is_active() -> bool {
    let path = Path::new("/sys/kernel/security/lsm");
    let active = |text: String| text.trim().split(',').any(|lsm| lsm == "bpf");
    match fs::read_to_string(path) {
        Ok(text) => active(text),
        // Not mounted: nothing is known, and the trial load decides; a load that succeeds would not prove a call.
        Err(_) => false,
    }
}

/// Whether there is a tracepoint for the system call.
pub fn has_syscall(call: &str) -> bool {
    Path::new("/sys/kernel/tracing/events/syscalls").join(format!("sys_enter_{call}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str =
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\nmemory\t4\t21\t1\npids\t8\t1\t1\n";

    #[test]
    fn the_controller_is_counted_in_the_kernels_order() {
        let found = Hierarchy::detect(HYBRID, Path::new("/proc")).unwrap();
        assert_eq!(found, Hierarchy::Legacy { controller: 2 });
        let without_pids = HYBRID.replace("pids\t8", "pids\t0");
        assert_eq!(Hierarchy::detect(&without_pids, Path::new("/proc")).unwrap(), Hierarchy::Legacy { controller: 1 });
        assert!(Hierarchy::detect("", Path::new("/proc")).is_err());
    }

    #[test]
    fn only_confidentiality_keeps_the_kernels_memory_to_itself() {
        assert!(is_confidential("none integrity [confidentiality]\n"));
        assert!(!is_confidential("none [integrity] confidentiality\n"));
        assert!(!is_confidential("[none] integrity confidentiality\n"));
    }

    #[test]
    fn the_first_missing_capability_is_named() {
        assert_eq!(missing_capability("CapEff:\t000001ffffffffff\n"), None);
        assert_eq!(missing_capability("CapEff:\t000001ffffdfffff\n"), Some("CAP_SYS_ADMIN"));
        assert_eq!(missing_capability(""), Some("CAP_SYS_ADMIN"));
    }
}
