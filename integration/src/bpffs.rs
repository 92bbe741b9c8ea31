//! A bpf file system of the suite's own: what the enforcer pins there is told apart from whatever else is pinned. And what
//! is in the maps that are pinned.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use ringfence_abi::CGROUP_NAME;

/// Maps with entries for each container: its cgroups, the names of those to come, its interfaces.
pub const OF_CONTAINERS: [&str; 3] = ["CGROUPS", "COMING", "VETHS"];

/// Entries of each of [`OF_CONTAINERS`], of the one version of an enforcer that has its maps in this bpf file system.
pub fn entries(bpffs: &Path) -> Result<[usize; 3]> {
    let mut versions = fs::read_dir(bpffs.join("ringfence/maps"))?;
    let folder = versions.next().context("no maps are pinned")??.path();
    let map = |name: &str| MapData::from_pin(folder.join(name)).map(Map::HashMap);
    let [cgroups, coming, veths] = OF_CONTAINERS;
    Ok([
        HashMap::<_, u64, u32>::try_from(map(cgroups)?)?.keys().flatten().count(),
        HashMap::<_, [u8; CGROUP_NAME], u32>::try_from(map(coming)?)?.keys().flatten().count(),
        HashMap::<_, u32, u32>::try_from(map(veths)?)?.keys().flatten().count(),
    ])
}

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
