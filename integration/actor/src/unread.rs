//! A path whose page the process has not touched: who reads it without waiting for the page finds nothing there. So are the
//! constants of a program that has just been started.
#![expect(unsafe_code, reason = "a mapping has no safe interface, and system calls of pointers have none either")]

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{self, c_char};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

use crate::scratch;

/// The string, ended by a zero; as long as the process lives.
fn string(path: &Path) -> Result<*const c_char> {
    let holder = scratch::path()?;
    fs::write(&holder, [path.as_os_str().as_bytes(), b"\0"].concat())?;
    let file = File::open(&holder)?;
    fs::remove_file(&holder)?;
    let length = NonZeroUsize::new(path.as_os_str().len() + 1).context("no path")?;
    // SAFETY: a new mapping, somewhere.
    let page = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, &file, 0) };
    Ok(page.context("map the path")?.as_ptr().cast_const().cast())
}

fn done(answer: libc::c_long) -> Result<()> {
    Ok(Errno::result(answer).map(drop)?)
}

/// unlinkat(2), as unlink(2) is where that is missing.
pub fn unlink(path: &Path) -> Result<()> {
    // SAFETY: the string ends.
    done(unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, string(path)?, 0) })
}

/// truncate(2), to nothing.
pub fn truncate(path: &Path) -> Result<()> {
    // SAFETY: the string ends.
    done(unsafe { libc::syscall(libc::SYS_truncate, string(path)?, 0) })
}

/// renameat2(2).
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (string(from)?, string(to)?);
    // SAFETY: the strings end.
    done(unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) })
}

/// fchmodat(2).
pub fn chmod(path: &Path, mode: u32) -> Result<()> {
    // SAFETY: the string ends.
    done(unsafe { libc::syscall(libc::SYS_fchmodat, libc::AT_FDCWD, string(path)?, mode) })
}

/// mount(2) of a source with a type that there is not; what it answers.
pub fn mount(source: &Path, target: &Path) -> Result<nix::Result<()>> {
    let (source, target, flags) = (string(source)?, string(target)?, libc::MS_RDONLY | libc::MS_NOSUID);
    // SAFETY: the strings end.
    let answer = unsafe { libc::syscall(libc::SYS_mount, source, target, c"no-such-type".as_ptr(), flags, 0) };
    Ok(Errno::result(answer).map(drop))
}
