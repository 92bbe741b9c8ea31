//! Names in the container's writable layer that nobody else uses.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

use anyhow::{Context, Result};

/// A path below `/tmp` where nothing is yet.
pub fn path() -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // A container's process ids repeat, its clock does not.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    fs::create_dir_all("/tmp").context("create /tmp")?;
    Ok(PathBuf::from(format!("/tmp/actor-{}-{}-{number}", process::id(), ringfence_actor::now())))
}

/// A fresh directory below `/tmp`.
pub fn directory() -> Result<PathBuf> {
    let path = path()?;
    fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
    Ok(path)
}
