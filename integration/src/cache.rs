//! Where what is dear to fetch or build is kept.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// A folder that outlives the checkout, made if it is missing: `~/.cache/ringfence/THING`.
pub fn folder(thing: &str) -> Result<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let Some(base) = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache"))) else {
        bail!("neither XDG_CACHE_HOME nor HOME is an absolute path");
    };
    let folder = base.join("ringfence").join(thing);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}
