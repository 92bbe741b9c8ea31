//! Opens a file for reading, by every way that leads to it.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use nix::fcntl::{OFlag, OpenHow, open, openat, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::chroot;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{scratch, uring};

/// The way to the file.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// By its path.
    Plain,
    /// Through a symbolic link to it.
    Symlink,
    /// Through a symbolic link to its directory.
    SymlinkDirectory,
    /// By a path with `..` in it.
    DotDot,
    /// By a path of more than 256 bytes and 100 components, most of them `.`.
    ManyDots,
    /// By its name, from its directory.
    Chdir,
    /// Through `/proc/self/root`.
    ProcRoot,
    /// By its name and a descriptor of its directory.
    Dirfd,
    /// By openat2.
    Openat2,
    /// By a descriptor opened with `O_PATH`, opened again through `/proc/self/fd`.
    OPath,
    /// By a hard link.
    HardLink,
    /// By a bind mount of the file (needs a privileged container).
    Bind,
    /// By a bind mount of its directory (needs a privileged container).
    BindDirectory,
    /// From a root directory that is the file's own (needs `CAP_SYS_CHROOT`).
    Chroot,
    /// By `io_uring`.
    Uring,
    /// By open(2) of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    Compat,
    /// Under the name of another file, with which it has changed names.
    Exchange,
    /// A file of this name in a directory that gets the path's directory's name only after a first open.
    RenamedParent,
    /// Writable and readable at once, without writing.
    ReadWrite,
    /// Not at all: its attributes alone are read.
    Stat,
}

/// What `actor read` takes.
#[derive(Args)]
pub struct Arguments {
    how: How,
    path: PathBuf,
}

impl Arguments {
    /// Opens and reads.
    pub fn run(self) -> Result<()> {
        let size = read(self.how, &self.path)?;
        println!("read {size} bytes of {}", self.path.display());
        Ok(())
    }
}

/// Opens `path` as `how` says and reads it; bytes read.
pub fn read(how: How, path: &Path) -> Result<usize> {
    let (parent, name) = (parent(path)?, path.file_name().context("the path has no name")?);
    match how {
        How::Plain => file(path),
        How::Symlink => {
            let link = scratch::path()?;
            symlink(path, &link)?;
            file(&link)
        }
        How::SymlinkDirectory => {
            let link = scratch::path()?;
            symlink(parent, &link)?;
            file(&link.join(name))
        }
        How::DotDot => {
            let mut way = PathBuf::from("/proc/../tmp/..");
            way.extend(path.components().filter(|part| !matches!(part, Component::RootDir)));
            file(&way)
        }
        How::ManyDots => {
            let mut way = parent.as_os_str().to_owned();
            way.push("/.".repeat(200));
            file(&Path::new(&way).join(name))
        }
        How::Chdir => {
            env::set_current_dir(parent)?;
            file(Path::new(name))
        }
        How::ProcRoot => {
            let mut way = PathBuf::from("/proc/self/root");
            way.extend(path.components().filter(|part| !matches!(part, Component::RootDir)));
            file(&way)
        }
        How::Dirfd => descriptor(openat(directory(parent)?, name, OFlag::O_RDONLY, Mode::empty())?),
        How::Openat2 => {
            let ask = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC);
            descriptor(openat2(directory(parent)?, name, ask)?)
        }
        How::OPath => {
            let handle = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            file(Path::new(&format!("/proc/self/fd/{}", handle.as_raw_fd())))
        }
        How::HardLink => {
            let link = scratch::path()?;
            fs::hard_link(path, &link)?;
            let size = file(&link);
            fs::remove_file(&link)?;
            size
        }
        How::Bind => {
            let target = scratch::path()?;
            File::create(&target)?;
            bind(path, &target)?;
            file(&target)
        }
        How::BindDirectory => {
            let target = scratch::directory()?;
            bind(parent, &target)?;
            file(&target.join(name))
        }
        How::Chroot => {
            chroot(parent)?;
            env::set_current_dir("/")?;
            file(&Path::new("/").join(name))
        }
        How::Uring => uring::read(path),
        #[cfg(target_arch = "x86_64")]
        How::Compat => descriptor(crate::compat::open(path)?),
        How::Exchange => {
            let other = scratch::path()?;
            File::create(&other)?;
            let exchange = |one: &Path, other: &Path| {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
                    .with_context(|| format!("exchange {} and {}", one.display(), other.display()))
            };
            exchange(&other, path)?;
            let size = file(&other);
            exchange(&other, path)?;
            size
        }
        How::RenamedParent => renamed_parent(path),
        How::ReadWrite => {
            let mut content = Vec::new();
            let mut opened = fs::OpenOptions::new().read(true).write(true).open(path)?;
            Ok(opened.read_to_end(&mut content)?)
        }
        How::Stat => {
            fs::metadata(path)?;
            Ok(0)
        }
    }
}

/// A memory of what a path was must not outlive the path: the second open is of the same file, by the same
/// descriptor of its directory, under its new name.
fn renamed_parent(path: &Path) -> Result<usize> {
    let parent = parent(path)?;
    if parent.exists() {
        bail!("{} exists; the path must be one whose directory does not", parent.display());
    }
    let before = PathBuf::from(format!("{}-before", parent.display()));
    let name = path.file_name().context("the path has no name")?;
    fs::create_dir_all(&before)?;
    fs::write(before.join(name), "content\n")?;
    for _ in 0..3 {
        file(&before.join(name))?;
    }
    fs::rename(&before, parent)?;
    let size = file(path)?;
    fs::remove_dir_all(parent)?;
    Ok(size)
}

fn file(path: &Path) -> Result<usize> {
    Ok(fs::read(path).with_context(|| format!("read {}", path.display()))?.len())
}

fn descriptor(descriptor: OwnedFd) -> Result<usize> {
    let mut content = Vec::new();
    Ok(File::from(descriptor).read_to_end(&mut content)?)
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("bind {} to {}", source.display(), target.display()))
}

/// The directory that a path lies in.
pub fn parent(path: &Path) -> Result<&Path> {
    path.parent().filter(|_| path.is_absolute()).with_context(|| format!("{} is not absolute", path.display()))
}

/// A descriptor of a directory.
pub fn directory(path: &Path) -> Result<OwnedFd> {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("open {}", path.display()))
}
