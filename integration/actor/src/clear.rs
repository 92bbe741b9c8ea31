//! Takes away what a file holds.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::unistd::{UnlinkatFlags, truncate, unlinkat};

use crate::read::{directory, parent};
use crate::scratch;

/// The way to lose the content.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// truncate(2).
    Truncate,
    /// ftruncate(2).
    Ftruncate,
    /// Opened with `O_TRUNC`.
    Open,
    /// unlink(2).
    Unlink,
    /// unlinkat(2) with a descriptor of the directory.
    Unlinkat,
    /// Renamed to somewhere else.
    Rename,
}

/// What `actor clear` takes.
#[derive(Args)]
pub struct Arguments {
    how: How,
    path: PathBuf,
}

impl Arguments {
    /// Clears the file. It must hold something, otherwise nothing would be lost.
    pub fn run(self) -> Result<()> {
        let (how, path) = (self.how, self.path.as_path());
        let before = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?.len();
        match how {
            How::Truncate => truncate(path, 0)?,
            How::Ftruncate => OpenOptions::new().write(true).open(path)?.set_len(0)?,
            How::Open => drop(OpenOptions::new().write(true).truncate(true).open(path)?),
            How::Unlink => fs::remove_file(path)?,
            How::Unlinkat => {
                let name = path.file_name().context("the path has no name")?;
                unlinkat(directory(parent(path)?)?, name, UnlinkatFlags::NoRemoveDir)?;
            }
            How::Rename => fs::rename(path, scratch::path()?)?,
        }
        println!("cleared {} of {before} bytes", path.display());
        Ok(())
    }
}
