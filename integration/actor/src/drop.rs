//! Puts a copy of a program somewhere: what drift is about.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::scratch;

/// How the copy gets to its place.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// Created at its place, executable from the start.
    Create,
    /// Created elsewhere and renamed.
    Rename,
    /// Created elsewhere, and a symbolic link to it at the place.
    Symlink,
    /// Written into the file that is there: same inode, same mode, other content.
    Rewrite,
    /// No copy: the original itself is renamed to the place and back.
    Move,
}

/// What `actor drop` takes.
#[derive(Args)]
pub struct Arguments {
    how: How,
    from: PathBuf,
    to: PathBuf,
    /// Runs the copy with the argument `nothing`.
    #[arg(long)]
    run: bool,
}

impl Arguments {
    /// Drops, and runs the copy as a child if asked to.
    pub fn run(self) -> Result<()> {
        let place = || format!("drop {} to {}", self.from.display(), self.to.display());
        self.place().with_context(place)?;
        println!("dropped {}", self.to.display());
        if self.run {
            let status =
                Command::new(&self.to).arg("nothing").status().with_context(|| format!("run {}", self.to.display()))?;
            if !status.success() {
                bail!("{} ended with {status}", self.to.display());
            }
        }
        match self.how {
            How::Move => fs::rename(&self.to, &self.from).with_context(place),
            _ => Ok(()),
        }
    }

    fn place(&self) -> io::Result<()> {
        match self.how {
            How::Create => self.copy(&self.to),
            How::Rename => {
                let other = scratch::path().map_err(io::Error::other)?;
                self.copy(&other)?;
                fs::rename(other, &self.to)
            }
            How::Symlink => {
                let other = scratch::path().map_err(io::Error::other)?;
                self.copy(&other)?;
                symlink(other, &self.to)
            }
            How::Rewrite => {
                let mut to = OpenOptions::new().write(true).truncate(true).open(&self.to)?;
                io::copy(&mut File::open(&self.from)?, &mut to)?;
                Ok(())
            }
            How::Move => fs::rename(&self.from, &self.to),
        }
    }

    fn copy(&self, to: &PathBuf) -> io::Result<()> {
        let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(to)?;
        io::copy(&mut File::open(&self.from)?, &mut to)?;
        Ok(())
    }
}
