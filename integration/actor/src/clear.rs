//! Takes away what a file holds.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::unistd::{UnlinkatFlags, truncate, unlinkat};

use crate::read::{directory, parent};
use crate::{scratch, unread, uring};

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
    /// unlinkat(2) of a path that is in a page not yet there.
    UnreadUnlink,
    /// truncate(2) of such a path.
    UnreadTruncate,
    /// Renamed to somewhere else, by two such paths.
    UnreadRename,
    /// Removed by `io_uring`.
    UringUnlink,
    /// unlink(2) of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatUnlink,
    /// truncate(2) of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatTruncate,
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
            How::UnreadUnlink => unread::unlink(path)?,
            How::UnreadTruncate => unread::truncate(path)?,
            How::UnreadRename => unread::rename(path, &scratch::path()?)?,
            How::UringUnlink => uring::unlink(path)?,
            #[cfg(target_arch = "x86_64")]
            How::CompatUnlink => crate::compat::unlink(path)?,
            #[cfg(target_arch = "x86_64")]
            How::CompatTruncate => crate::compat::truncate(path)?,
        }
        println!("cleared {} of {before} bytes", path.display());
        Ok(())
    }
}
