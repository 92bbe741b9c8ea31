//! Opens a file for writing, or puts another file in its place.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use nix::fcntl::{OFlag, OpenHow, openat, openat2};
use nix::sys::stat::Mode;

use crate::read::{directory, parent};
use crate::{scratch, uring};

/// The way into the file.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// Opened, created if missing, truncated, written.
    Create,
    /// Opened for appending, which creates it if missing.
    Append,
    /// An existing file opened for writing and closed: nothing is written.
    OpenOnly,
    /// Created by creat(2)'s flags, which fail if it exists.
    CreateNew,
    /// By its name, from its directory.
    Chdir,
    /// By its name and a descriptor of its directory.
    Dirfd,
    /// By openat2.
    Openat2,
    /// Through a symbolic link to its directory.
    SymlinkDirectory,
    /// By `io_uring`.
    Uring,
    /// Written elsewhere, then renamed to the path.
    Rename,
    /// Written elsewhere, then linked to the path.
    Link,
    /// As `rename`, by `io_uring`.
    UringRename,
    /// As `link`, by `io_uring`.
    UringLink,
    /// As `symlink`, by `io_uring`.
    UringSymlink,
    /// As `rename`, by the call of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatRename,
    /// As `link`, by the call of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatLink,
    /// As `symlink`, by the call of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatSymlink,
    /// A symbolic link made at the path.
    Symlink,
    /// Written in a directory that is renamed, then opened for writing again under the path.
    RenamedParent,
    /// Directories of 80 levels are made below the path, and a file in the last of them.
    Deep,
    /// A name of 250 bytes below the path, three levels deep: more than 700 bytes.
    Long,
    /// A directory made at the path.
    Directory,
}

/// What `actor write` takes.
#[derive(Args)]
pub struct Arguments {
    how: How,
    path: PathBuf,
    /// What is written.
    #[arg(long, default_value = "written by the actor\n")]
    content: String,
    /// Mode of the file if it is created, octal.
    #[arg(long, default_value = "644", value_parser = octal)]
    mode: u32,
}

/// Reads an octal mode.
pub fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|error| format!("{text} is not an octal mode such as 644: {error}"))
}

impl Arguments {
    /// Writes.
    pub fn run(self) -> Result<()> {
        self.write().with_context(|| format!("write {}", self.path.display()))?;
        println!("wrote {}", self.path.display());
        Ok(())
    }

    fn write(&self) -> Result<()> {
        let path = self.path.as_path();
        let (parent, name) = (parent(path)?, path.file_name().context("the path has no name")?);
        let (flags, mode) = (OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, Mode::from_bits_truncate(self.mode));
        match self.how {
            How::Create => self.create(path),
            How::Append => self.content_into(OpenOptions::new().append(true).create(true).mode(self.mode).open(path)?),
            How::OpenOnly => {
                OpenOptions::new().write(true).open(path)?;
                Ok(())
            }
            How::CreateNew => {
                self.content_into(OpenOptions::new().write(true).create_new(true).mode(self.mode).open(path)?)
            }
            How::Chdir => {
                env::set_current_dir(parent)?;
                self.create(Path::new(name))
            }
            How::Dirfd => self.content_into(openat(directory(parent)?, name, flags, mode)?.into()),
            How::Openat2 => {
                let how = OpenHow::new().flags(flags).mode(mode);
                self.content_into(openat2(directory(parent)?, name, how)?.into())
            }
            How::SymlinkDirectory => {
                let link = scratch::path()?;
                symlink(parent, &link)?;
                self.create(&link.join(name))
            }
            How::Uring => uring::write(path, self.content.as_bytes(), self.mode),
            How::Rename => Ok(fs::rename(self.elsewhere()?, path)?),
            How::Link => Ok(fs::hard_link(self.elsewhere()?, path)?),
            How::Symlink => Ok(symlink("/tmp", path)?),
            How::UringRename => uring::rename(&self.elsewhere()?, path),
            How::UringLink => uring::link(&self.elsewhere()?, path),
            How::UringSymlink => uring::symlink(Path::new("/tmp"), path),
            #[cfg(target_arch = "x86_64")]
            How::CompatRename => crate::compat::rename(&self.elsewhere()?, path),
            #[cfg(target_arch = "x86_64")]
            How::CompatLink => crate::compat::link(&self.elsewhere()?, path),
            #[cfg(target_arch = "x86_64")]
            How::CompatSymlink => crate::compat::symlink(Path::new("/tmp"), path),
            How::RenamedParent => self.renamed_parent(),
            How::Deep => self.below(&"d/".repeat(80)),
            How::Long => self.below(&format!("{}/", "n".repeat(250)).repeat(3)),
            How::Directory => Ok(fs::create_dir(path)?),
        }
    }

    fn create(&self, path: &Path) -> Result<()> {
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(self.mode).open(path)?;
        self.content_into(options)
    }

    fn content_into(&self, mut file: File) -> Result<()> {
        Ok(file.write_all(self.content.as_bytes())?)
    }

    fn elsewhere(&self) -> Result<PathBuf> {
        let path = scratch::path()?;
        self.create(&path)?;
        Ok(path)
    }

    /// The file exists and was opened under a harmless path; then its directory's directory gets the path's name.
    fn renamed_parent(&self) -> Result<()> {
        let parent = parent(&self.path)?;
        if parent.exists() {
            bail!("{} exists; the path must be one whose directory does not", parent.display());
        }
        let before = scratch::directory()?;
        let name = self.path.file_name().context("the path has no name")?;
        for _ in 0..3 {
            self.create(&before.join(name))?;
        }
        fs::rename(&before, parent)?;
        let result = self.create(&self.path);
        fs::remove_dir_all(parent)?;
        result
    }

    /// One level at a time: the whole path may be longer than a system call takes.
    fn below(&self, levels: &str) -> Result<()> {
        env::set_current_dir(&self.path)?;
        for level in levels.split_terminator('/') {
            if !Path::new(level).exists() {
                fs::create_dir(level)?;
            }
            env::set_current_dir(level)?;
        }
        self.create(Path::new("file"))
    }
}
