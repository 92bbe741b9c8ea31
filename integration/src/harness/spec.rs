//! What a container is to be: a builder, and the OCI runtime spec that comes of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use super::cni::Network;

/// What Docker gives a container.
const USUAL_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// By their numbers: include/uapi/linux/capability.h of Linux 6.18.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Hidden and read-only as in Docker.
const MASKED: [&str; 8] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container to be made.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, as in the OCI spec")]
pub struct Spec {
    pub(super) image: String,
    pub(super) id: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) terminal: bool,
    pub(super) stdin: bool,
    pub(super) attach: Attach,
    pub(super) cgroup: Option<String>,
    args: Vec<String>,
    env: Vec<String>,
    user: (u32, u32),
    cwd: String,
    capabilities: Vec<String>,
    privileged: bool,
    host_pid: bool,
    mounts: Vec<Value>,
}

/// Where its network comes from.
#[derive(Debug, Clone)]
pub enum Attach {
    /// A namespace of its own with loopback alone.
    Nothing,
    /// The node's namespace.
    Node,
    /// An `eth0` in a network.
    Network(Network),
}

impl Spec {
    /// Runs a program of an image.
    pub fn new(image: &str, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            image: image.to_owned(),
            id: None,
            labels: BTreeMap::new(),
            terminal: false,
            stdin: false,
            attach: Attach::Nothing,
            cgroup: None,
            args: args.into_iter().map(Into::into).collect(),
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            user: (0, 0),
            cwd: "/".into(),
            capabilities: USUAL_CAPABILITIES.map(str::to_owned).into(),
            privileged: false,
            host_pid: false,
            mounts: Vec::new(),
        }
    }

    /// Its id; one that nobody has by default.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// A label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// User and group; root by default.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = (uid, gid);
        self
    }

    /// A capability on top of Docker's usual ones, such as `CAP_SYS_PTRACE`.
    pub fn capability(mut self, name: &str) -> Self {
        self.capabilities.push(name.to_owned());
        self
    }

    /// All capabilities that we have, all devices, nothing hidden or read-only.
    pub fn privileged(mut self) -> Self {
        self.privileged = true;
        self
    }

    /// An empty file system in memory.
    pub fn tmpfs(self, target: &str) -> Self {
        self.mount("tmpfs", "tmpfs", target, &["nosuid", "nodev", "mode=755"])
    }

    /// Any mount; one at the same place replaces the usual one.
    pub fn mount(mut self, kind: &str, source: &str, target: &str, options: &[&str]) -> Self {
        self.mounts.push(json!({"type": kind, "source": source, "destination": target, "options": options}));
        self
    }

    /// An `eth0` in this network; by default there is only loopback.
    pub fn network(mut self, network: &Network) -> Self {
        self.attach = Attach::Network(network.clone());
        self
    }

    /// The node's network namespace.
    pub fn host_network(mut self) -> Self {
        self.attach = Attach::Node;
        self
    }

    /// A terminal for its first process.
    pub fn tty(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// A standard input that can be written to.
    pub fn stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// `process` of the OCI spec, for these arguments.
    pub(super) fn process(&self, args: &[String], terminal: bool) -> Result<Value> {
        let own = own_capabilities()?;
        let wanted: Vec<&String> = own
            .iter()
            .filter(|name| self.privileged || self.capabilities.iter().any(|wanted| wanted == *name))
            .collect();
        Ok(json!({
            "args": args,
            "env": self.env,
            "cwd": self.cwd,
            "terminal": terminal,
            "user": {"uid": self.user.0, "gid": self.user.1},
            "capabilities": {"bounding": wanted, "effective": wanted, "permitted": wanted},
        }))
    }

    /// The OCI spec. `netns`: made beforehand; `None`: the node's.
    pub fn runtime_spec(&self, cgroup: &str, netns: Option<&Path>) -> Result<Value> {
        let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "ipc"}), json!({"type": "uts"})];
        if !self.host_pid {
            namespaces.push(json!({"type": "pid"}));
        }
        if let Some(path) = netns {
            namespaces.push(json!({"type": "network", "path": path}));
        }
        let mut linux = json!({
            "cgroupsPath": cgroup,
            "namespaces": namespaces,
            "resources": {"devices": if self.privileged { all_devices() } else { usual_devices() }},
        });
        if self.privileged {
            linux["devices"] = devices()?;
        } else {
            linux["maskedPaths"] = json!(MASKED);
            linux["readonlyPaths"] = json!(READ_ONLY);
        }
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": self.process(&self.args, self.terminal)?,
            "root": {"path": "rootfs"},
            "hostname": "container",
            "mounts": self.all_mounts(),
            "linux": linux,
        }))
    }

    fn all_mounts(&self) -> Vec<Value> {
        let sys = if self.privileged { "rw" } else { "ro" };
        let usual = [
            ("proc", "proc", "/proc", vec!["nosuid", "noexec", "nodev"]),
            ("tmpfs", "tmpfs", "/dev", vec!["nosuid", "strictatime", "mode=755", "size=65536k"]),
            (
                "devpts",
                "devpts",
                "/dev/pts",
                vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            ("tmpfs", "shm", "/dev/shm", vec!["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            ("mqueue", "mqueue", "/dev/mqueue", vec!["nosuid", "noexec", "nodev"]),
            ("sysfs", "sysfs", "/sys", vec!["nosuid", "noexec", "nodev", sys]),
            ("cgroup", "cgroup", "/sys/fs/cgroup", vec!["nosuid", "noexec", "nodev", "relatime", sys]),
        ];
        let usual = usual.into_iter().map(|(kind, source, target, options)| {
            json!({"type": kind, "source": source, "destination": target, "options": options})
        });
        let replaced = |mount: &Value| self.mounts.iter().any(|own| own["destination"] == mount["destination"]);
        usual.filter(|mount| !replaced(mount)).chain(self.mounts.iter().cloned()).collect()
    }
}

/// The capabilities of this process: more it cannot give away.
fn own_capabilities() -> Result<Vec<String>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let bits =
        status.lines().find_map(|line| line.strip_prefix("CapBnd:")).context("no CapBnd in /proc/self/status")?;
    let bits = u64::from_str_radix(bits.trim(), 16)?;
    let own = CAPABILITIES.iter().enumerate().filter(|(number, _)| bits & (1 << number) != 0);
    Ok(own.map(|(_, name)| format!("CAP_{name}")).collect())
}

fn all_devices() -> Value {
    json!([{"allow": true, "access": "rwm"}])
}

/// runc adds null, zero, full, random, urandom, tty and the pseudo-terminals itself.
fn usual_devices() -> Value {
    json!([{"allow": false, "access": "rwm"}])
}

/// The device files right below the machine's /dev.
fn devices() -> Result<Value> {
    let mut devices = Vec::new();
    for entry in fs::read_dir("/dev")?.flatten() {
        let (Ok(metadata), path) = (fs::symlink_metadata(entry.path()), entry.path()) else { continue };
        let kind = match metadata.file_type() {
            kind if kind.is_block_device() => "b",
            kind if kind.is_char_device() => "c",
            _ => continue,
        };
        // runc makes the console itself, of the container's terminal.
        if path == Path::new("/dev/console") {
            continue;
        }
        let device = metadata.rdev();
        devices.push(json!({
            "path": path, "type": kind, "major": major(device), "minor": minor(device),
            "fileMode": metadata.mode() & 0o7777, "uid": metadata.uid(), "gid": metadata.gid(),
        }));
    }
    Ok(devices.into())
}
