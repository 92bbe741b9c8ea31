//! Namespaces and mounts.

use std::fs::File;
use std::io::stdin;
#[cfg(target_arch = "x86_64")]
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{scratch, unread};

/// What is done.
#[derive(Subcommand)]
pub enum Act {
    /// `setns(0, 0)`: fails, because the standard input is no namespace; the attempt is the behaviour.
    SetnsInvalid,
    /// The same by the call of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatSetnsInvalid,
    /// Names a source by fsconfig(2) of 32-bit programs, and goes no further.
    #[cfg(target_arch = "x86_64")]
    CompatFsconfig {
        /// The device.
        source: PathBuf,
    },
    /// setns to a namespace by its file, such as /proc/1/ns/uts.
    Setns {
        /// The namespace's file.
        path: PathBuf,
    },
    /// Opens a namespace's file and goes no further.
    OpenOnly {
        /// The namespace's file.
        path: PathBuf,
    },
    /// unshare of a kind of namespace that needs no mount: UTS.
    UnshareUts,
    /// Tries to mount a device with a file system type that does not exist, so that nothing is ever mounted.
    MountDevice {
        /// The device.
        source: PathBuf,
    },
    /// The same with paths that are in pages not yet there.
    UnreadMountDevice {
        /// The device.
        source: PathBuf,
    },
    /// Mounts a tmpfs.
    MountTmpfs {
        /// What the mount calls its source.
        #[arg(default_value = "tmpfs")]
        source: PathBuf,
    },
    /// Bind-mounts a directory or a file elsewhere.
    MountBind {
        /// What is mounted.
        source: PathBuf,
    },
}

impl Act {
    /// Does it.
    pub fn run(self) -> Result<()> {
        let none = None::<&str>;
        match self {
            Self::SetnsInvalid => match setns(stdin(), CloneFlags::empty()) {
                Err(Errno::EINVAL) => println!("setns of no namespace failed, as it must"),
                other => other.context("setns of no namespace")?,
            },
            #[cfg(target_arch = "x86_64")]
            Self::CompatSetnsInvalid => match crate::compat::setns(stdin().as_fd()) {
                Err(error)
                    if error.downcast_ref().and_then(std::io::Error::raw_os_error) == Some(Errno::EINVAL as i32) =>
                {
                    println!("setns of no namespace failed, as it must");
                }
                other => other.context("setns of no namespace")?,
            },
            #[cfg(target_arch = "x86_64")]
            Self::CompatFsconfig { source } => {
                crate::compat::mount_source("tmpfs", &source)?;
                println!("{} is the source of a mount to be", source.display());
            }
            Self::Setns { path } => {
                setns(open(&path)?, CloneFlags::empty()).with_context(|| format!("setns {}", path.display()))?;
                println!("entered {}", path.display());
            }
            Self::OpenOnly { path } => {
                open(&path)?;
                println!("opened {}", path.display());
            }
            Self::UnshareUts => {
                unshare(CloneFlags::CLONE_NEWUTS).context("unshare")?;
                println!("unshared");
            }
            Self::MountDevice { source } => {
                let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                no_such_type(&source, mount(Some(&source), &scratch::directory()?, Some("no-such-type"), flags, none))?;
            }
            Self::UnreadMountDevice { source } => {
                no_such_type(&source, unread::mount(&source, &scratch::directory()?)?)?;
            }
            Self::MountTmpfs { source } => {
                mount(Some(&source), &scratch::directory()?, Some("tmpfs"), MsFlags::empty(), none)
                    .context("mount tmpfs")?;
                println!("mounted a tmpfs");
            }
            Self::MountBind { source } => {
                let target = if source.is_dir() { scratch::directory()? } else { scratch::path()? };
                if !source.is_dir() {
                    File::create(&target)?;
                }
                mount(Some(&source), &target, none, MsFlags::MS_BIND, none).context("bind mount")?;
                println!("bound {}", source.display());
            }
        }
        Ok(())
    }
}

fn no_such_type(source: &Path, answer: nix::Result<()>) -> Result<()> {
    match answer {
        Err(Errno::ENODEV) => println!("mount of {} failed for its type, as it must", source.display()),
        other => other.with_context(|| format!("mount {}", source.display()))?,
    }
    Ok(())
}

fn open(path: &PathBuf) -> Result<File> {
    File::open(path).with_context(|| format!("open {}", path.display()))
}
