//! A bpf file system of the suite's own: what the enforcer pins there is told apart from whatever else is pinned.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// From now on, what this process and its children mount is not seen by the rest of the machine, and is gone with
/// them. To be called while there is one thread.
pub fn private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("make mounts private")
}

/// Mounted until it is dropped.
pub struct Bpffs(PathBuf);

impl Bpffs {
    /// Mounts one at `path`, which is made.
    pub fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)?;
        mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount a bpf file system at {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}
