//! Maps a file into memory, as a dynamic loader does with a library.
#![expect(unsafe_code, reason = "a mapping has no safe interface: the file may change while it is mapped")]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

/// What is mapped, and how.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// The file, executable.
    Exec,
    /// The file, executable, writable and shared.
    Shared,
    /// The file, to be read only.
    Read,
    /// A copy of it in an anonymous memory file, executable.
    Memfd,
    /// A copy of it in an anonymous memory file, to be read only.
    MemfdRead,
    /// The file, executable, by the first mmap(2) of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatExec,
    /// A copy of it next to it that has lost its name before it is mapped, executable.
    Unlinked,
}

/// What `actor map` takes.
#[derive(Args)]
pub struct Arguments {
    how: How,
    path: PathBuf,
}

impl Arguments {
    /// Maps the beginning of the file.
    pub fn run(self) -> Result<()> {
        let file = self.file().with_context(|| format!("open {}", self.path.display()))?;
        let executable = ProtFlags::PROT_READ | ProtFlags::PROT_EXEC;
        let mapped = match self.how {
            How::Exec | How::Memfd | How::Unlinked => map(file, executable, MapFlags::MAP_PRIVATE),
            How::Shared => map(file, executable | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED),
            How::Read | How::MemfdRead => map(file, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE),
            #[cfg(target_arch = "x86_64")]
            How::CompatExec => crate::compat::map(file.as_fd()),
        };
        mapped.with_context(|| format!("map {}", self.path.display()))?;
        println!("mapped {}", self.path.display());
        Ok(())
    }

    fn file(&self) -> io::Result<OwnedFd> {
        let original = File::options().read(true).write(matches!(self.how, How::Shared)).open(&self.path)?;
        let copy = match self.how {
            How::Exec | How::Shared | How::Read => return Ok(original.into()),
            #[cfg(target_arch = "x86_64")]
            How::CompatExec => return Ok(original.into()),
            How::Memfd | How::MemfdRead => File::from(memfd_create(c"library", MFdFlags::empty())?),
            How::Unlinked => {
                let path = self.path.with_extension("copy");
                let copy = File::options().read(true).write(true).create_new(true).open(&path)?;
                std::fs::remove_file(&path)?;
                copy
            }
        };
        io::copy(&mut { original }, &mut copy.as_fd().try_clone_to_owned().map(File::from)?)?;
        Ok(copy.into())
    }
}

fn map(file: OwnedFd, protection: ProtFlags, flags: MapFlags) -> Result<()> {
    // SAFETY: nothing looks at the mapping, and no memory of ours is replaced by it.
    unsafe { mmap(None, NonZeroUsize::MIN, protection, flags, file, 0) }?;
    Ok(())
}
