//! Changes the mode or the times of a file.

use std::fs::{File, Permissions, set_permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};

use crate::read::{directory, parent};
use crate::unread;
use crate::write::octal;

/// The way to the attributes.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// chmod(2).
    Chmod,
    /// fchmod(2).
    Fchmod,
    /// fchmodat(2) with a descriptor of the directory.
    Fchmodat,
    /// chmod(2) of `/proc/self/fd/N`, a descriptor of `O_PATH`: as glibc does it when a link is not to be followed.
    ProcFd,
    /// fchmodat(2) of a path that is in a page not yet there.
    Unread,
    /// chmod(2) of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatChmod,
    /// The times alone: the mode is not touched.
    Touch,
}

/// What `actor mode` takes.
#[derive(Args)]
pub struct Arguments {
    how: How,
    /// Octal.
    #[arg(value_parser = octal)]
    mode: u32,
    path: PathBuf,
}

impl Arguments {
    /// Changes the mode.
    pub fn run(self) -> Result<()> {
        let path = self.path.as_path();
        match self.how {
            How::Chmod => set_permissions(path, Permissions::from_mode(self.mode))?,
            How::Fchmod => File::open(path)?.set_permissions(Permissions::from_mode(self.mode))?,
            How::Fchmodat => {
                let name = path.file_name().context("the path has no name")?;
                let mode = Mode::from_bits_truncate(self.mode);
                fchmodat(directory(parent(path)?)?, name, mode, FchmodatFlags::FollowSymlink)?;
            }
            How::ProcFd => {
                let file = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
                let named = format!("/proc/self/fd/{}", file.as_raw_fd());
                set_permissions(named, Permissions::from_mode(self.mode))?;
            }
            How::Unread => unread::chmod(path, self.mode)?,
            #[cfg(target_arch = "x86_64")]
            How::CompatChmod => crate::compat::chmod(path, self.mode)?,
            How::Touch => File::open(path)?.set_modified(SystemTime::now())?,
        }
        println!("set the attributes of {}", path.display());
        Ok(())
    }
}
