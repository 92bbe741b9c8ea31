//! The node's mount namespace: this machine's files, with the folders that a node writes to replaced by its own.
//!
//! `/run` is empty and in memory. What is written below `/var` goes to memory too, except where a node keeps much:
//! those folders lie in the state folder. There is a bpf file system that nobody else has, and the kernel's own file
//! systems are mounted where systemd has them. All of it is shared within the namespace, as on a node, and unknown
//! outside; it ends with the last process in it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Folders of a node, and what they are called in the state folder.
const FOLDERS: [(&str, &str); 5] = [
    ("/var/lib/containerd", "containerd"),
    ("/var/lib/kubelet", "kubelet"),
    ("/var/log/pods", "pods"),
    ("/var/log/containers", "containers"),
    // containerd's socket is there, which is also wanted outside.
    ("/run/containerd", "run"),
];

/// What the kubelet writes to this machine's settings at its start, as it would on a node, and what it wants there.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Puts this thread into a namespace as described, and its later children with it.
pub fn unshare_node(state: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    propagate("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    for (_, name) in FOLDERS {
        fs::create_dir_all(state.join(name))?;
    }
    let memory = state.join("memory");
    fs::create_dir_all(&memory)?;
    plain("tmpfs", &memory, "mode=755")?;
    let [upper, work, var] = ["upper", "work", "var"].map(|name| memory.join(name));
    for folder in [&upper, &work, &var] {
        fs::create_dir(folder)?;
    }
    plain("overlay", &var, &format!("lowerdir=/var,upperdir={},workdir={}", upper.display(), work.display()))?;
    // The state folder itself stays what it is, if it lies there.
    if let Ok(below) = state.strip_prefix("/var") {
        bind(state, &var.join(below), MsFlags::empty())?;
    }
    for (path, name) in FOLDERS {
        if let Ok(below) = Path::new(path).strip_prefix("/var") {
            fs::create_dir_all(var.join(below))?;
            bind(&state.join(name), &var.join(below), MsFlags::empty())?;
        }
    }
    bind(&var, Path::new("/var"), MsFlags::MS_REC)?;
    plain("tmpfs", Path::new("/run"), "mode=755")?;
    fs::create_dir("/run/lock")?;
    for (path, name) in FOLDERS.iter().filter(|(path, _)| path.starts_with("/run")) {
        fs::create_dir_all(path)?;
        bind(&state.join(name), Path::new(path), MsFlags::empty())?;
    }
    plain("bpf", Path::new("/sys/fs/bpf"), "mode=700")?;
    // As on every node with systemd. Without the folder, the kernel has no such file system.
    for (kind, path) in [("tracefs", "/sys/kernel/tracing"), ("securityfs", "/sys/kernel/security")] {
        if Path::new(path).is_dir() {
            plain(kind, Path::new(path), "")?;
        }
    }
    propagate("/", MsFlags::MS_REC | MsFlags::MS_SHARED)
}

/// Puts this thread into a further namespace that differs in one thing: the machine's settings that a kubelet changes
/// are files there.
pub fn unshare_kubelet(state: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    propagate("/proc", MsFlags::MS_PRIVATE)?;
    let settings = state.join("settings");
    fs::create_dir_all(&settings)?;
    for (name, value) in SETTINGS {
        let file = settings.join(name.replace('/', "."));
        fs::write(&file, value)?;
        bind(&file, &Path::new("/proc/sys").join(name), MsFlags::empty())?;
    }
    Ok(())
}

fn plain(kind: &str, path: &Path, options: &str) -> Result<()> {
    mount(Some(kind), path, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mount a {kind} at {}", path.display()))
}

fn bind(from: &Path, to: &Path, flags: MsFlags) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>)
        .with_context(|| format!("mount {} at {}", from.display(), to.display()))
}

fn propagate(path: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).with_context(|| format!("{flags:?} at {path}"))
}
