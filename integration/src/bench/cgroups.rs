//! The cgroups that are measured: one that rulesets select beside one that none does, below a common parent at whose
//! sockets the datapath lies, as it lies at the root of a node.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Made, and removed when dropped; their processes have ended then.
pub struct Cgroups {
    /// Root of the v2 hierarchy.
    root: PathBuf,
    /// In the order in which they were made, below `root`.
    made: Vec<String>,
}

const PARENT: &str = "rf-bench-";
const GOVERNED: &str = "governed";
const OTHER: &str = "other";

impl Cgroups {
    /// Makes them at the root of the v2 hierarchy.
    pub fn create(root: &Path) -> Result<Self> {
        let mut cgroups = Self { root: root.into(), made: Vec::new() };
        let parent = format!("{PARENT}{}", std::process::id());
        cgroups.make(parent.clone())?;
        for name in [GOVERNED, OTHER] {
            cgroups.make(format!("{parent}/{}", cgroups.unique(name)))?;
        }
        Ok(cgroups)
    }

    /// Removes those of runs that were interrupted.
    pub fn sweep(root: &Path) -> Result<()> {
        for entry in fs::read_dir(root)? {
            let parent = entry?.path();
            let owner = parent.file_name().and_then(|name| name.to_str()?.strip_prefix(PARENT));
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                for child in fs::read_dir(&parent)?.flatten().filter(|child| child.path().is_dir()) {
                    fs::remove_dir(child.path()).with_context(|| child.path().display().to_string())?;
                }
                fs::remove_dir(&parent).with_context(|| parent.display().to_string())?;
            }
        }
        Ok(())
    }

    /// Further ones below the parent: their paths below the hierarchy's root.
    pub fn further(&self, count: usize) -> Result<Self> {
        let mut further = Self { root: self.root.clone(), made: Vec::new() };
        for number in 1..=count {
            further.make(format!("{}/further-{number}", self.made[0]))?;
        }
        Ok(further)
    }

    fn make(&mut self, path: String) -> Result<()> {
        let directory = self.root.join(&path);
        fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
        self.made.push(path);
        Ok(())
    }

    /// A container is known by its cgroup's name alone.
    fn unique(&self, name: &str) -> String {
        format!("{name}-of-{}", self.made[0])
    }

    /// Directory above both.
    pub fn parent(&self) -> PathBuf {
        self.root.join(&self.made[0])
    }

    /// Directory of the one that a ruleset selects.
    pub fn governed(&self) -> PathBuf {
        self.parent().join(self.unique(GOVERNED))
    }

    /// Nanoseconds of processor time that the processes of the governed one have used so far.
    pub fn used(&self) -> Result<f64> {
        let path = self.governed().join("cpu.stat");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let microseconds = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("usage_usec")?;
        Ok(super::as_f64(microseconds.parse()?) * 1e3)
    }

    /// Directory of the one that none selects.
    pub fn other(&self) -> PathBuf {
        self.parent().join(self.unique(OTHER))
    }

    /// Name of the governed one.
    pub fn governed_name(&self) -> String {
        self.unique(GOVERNED)
    }

    /// Their directories.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.made.iter().map(|path| self.root.join(path))
    }

    /// All paths below the hierarchy's root.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.made.iter().map(String::as_str)
    }

    /// Path of the governed one below the hierarchy's root.
    pub fn governed_path(&self) -> String {
        format!("{}/{}", self.made[0], self.unique(GOVERNED))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for path in self.made.iter().rev().map(|path| self.root.join(path)) {
            if let Err(error) = fs::remove_dir(&path) {
                eprintln!("{} is left: {error}", path.display());
            }
        }
    }
}
