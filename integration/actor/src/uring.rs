//! Work submitted through `io_uring`: it passes no system call hook of the operation itself.
//!
//! One operation at a time, waited for, so that every buffer outlives its operation.
#![expect(unsafe_code, reason = "io_uring has no safe interface: the kernel reads the buffers of an entry later")]

use std::ffi::{CString, c_char};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use io_uring::{IoUring, opcode, squeue, types};
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, socket};

/// Paths begin at the working directory.
const AT: types::Fd = types::Fd(nix::libc::AT_FDCWD);

/// A ring that does one operation at a time.
struct Ring(IoUring);

impl Ring {
    fn new() -> Result<Self> {
        Ok(Self(IoUring::new(2).context("set up io_uring")?))
    }

    /// Submits the entry and waits for its result.
    ///
    /// # Safety
    /// Everything that the entry points to must stay valid until this returns.
    unsafe fn run(&mut self, entry: &squeue::Entry) -> io::Result<i32> {
        // SAFETY: the caller keeps what the entry points to alive, and the completion is waited for.
        unsafe { self.0.submission().push(entry) }.map_err(io::Error::other)?;
        loop {
            match self.0.submit_and_wait(1) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let result = self.0.completion().next().ok_or_else(|| io::Error::other("no completion"))?.result();
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
    }

    fn open(&mut self, path: &Path, flags: OFlag, mode: u32) -> Result<OwnedFd> {
        let name = name(path)?;
        let entry = opcode::OpenAt::new(AT, name.as_ptr()).flags(flags.bits()).mode(mode).build();
        // SAFETY: `name` lives until the end of this function.
        let descriptor = unsafe { self.run(&entry) }.with_context(|| format!("open {}", path.display()))?;
        // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    fn send_to(&mut self, socket: &UdpSocket, packet: &[u8], to: &SockaddrStorage) -> Result<usize> {
        let length = u32::try_from(packet.len())?;
        let entry = opcode::Send::new(types::Fd(socket.as_raw_fd()), packet.as_ptr(), length);
        let entry = entry.dest_addr(to.as_ptr()).dest_addr_len(to.len()).build();
        // SAFETY: `packet` and `to` are borrowed until the end of this function.
        Ok(usize::try_from(unsafe { self.run(&entry) }?)?)
    }
}

/// Opens and reads a file; bytes read.
pub fn read(path: &Path) -> Result<usize> {
    let mut ring = Ring::new()?;
    let file = ring.open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, 0)?;
    let mut content = vec![0; 65536];
    let entry = opcode::Read::new(types::Fd(file.as_raw_fd()), content.as_mut_ptr(), 65536).build();
    // SAFETY: `content` has that many bytes and lives until the end of this function.
    Ok(usize::try_from(unsafe { ring.run(&entry) }?)?)
}

/// Creates a file and writes it.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut ring = Ring::new()?;
    let file = ring.open(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC, mode)?;
    let entry =
        opcode::Write::new(types::Fd(file.as_raw_fd()), content.as_ptr(), u32::try_from(content.len())?).build();
    // SAFETY: `content` is borrowed until the end of this function.
    unsafe { ring.run(&entry) }?;
    Ok(())
}

/// Removes a name.
pub fn unlink(path: &Path) -> Result<()> {
    let name = name(path)?;
    // SAFETY: `name` lives until the end of this function.
    unsafe { Ring::new()?.run(&opcode::UnlinkAt::new(AT, name.as_ptr()).build()) }
        .with_context(|| format!("unlink {}", path.display()))?;
    Ok(())
}

/// Gives a file another name.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    with_two(from, to, |from, to| opcode::RenameAt::new(AT, from, AT, to).build()).context("rename")
}

/// Gives a file one more name.
pub fn link(from: &Path, to: &Path) -> Result<()> {
    with_two(from, to, |from, to| opcode::LinkAt::new(AT, from, AT, to).build()).context("link")
}

/// Makes a symbolic link.
pub fn symlink(target: &Path, link: &Path) -> Result<()> {
    with_two(target, link, |target, link| opcode::SymlinkAt::new(AT, target, link).build()).context("symlink")
}

/// Does one operation with two paths.
fn with_two(one: &Path, other: &Path, entry: impl FnOnce(*const c_char, *const c_char) -> squeue::Entry) -> Result<()> {
    let (one, other) = (name(one)?, name(other)?);
    // SAFETY: the names live until the end of this function.
    unsafe { Ring::new()?.run(&entry(one.as_ptr(), other.as_ptr())) }?;
    Ok(())
}

fn name(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}

/// Connects a TCP socket. Nobody there is an error, as always.
pub fn connect(to: SocketAddr) -> Result<()> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    // A connect that nobody answers must not hold the ring: the kernel goes on with it by itself.
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    let address = SockaddrStorage::from(to);
    let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), address.as_ptr(), address.len()).build();
    let mut ring = Ring::new()?;
    let timeout = types::Timespec::new().nsec(200_000_000);
    let linked = entry.flags(squeue::Flags::IO_LINK);
    let limit = opcode::LinkTimeout::new(&raw const timeout).build();
    // SAFETY: `address` and `timeout` live until the end of this function, and both completions are waited for.
    unsafe { ring.0.submission().push_multiple(&[linked, limit]) }.map_err(io::Error::other)?;
    ring.0.submit_and_wait(2)?;
    Ok(())
}

/// Sends one UDP packet. That it was dropped is no failure: it was tried.
pub fn send_once(to: SocketAddr) -> Result<()> {
    drop(Ring::new()?.send_to(&any(to)?, b"hello", &SockaddrStorage::from(to)));
    Ok(())
}

/// Sends what `next` gives, as UDP packets, until it gives nothing; `sent` learns of each.
pub fn flood<const N: usize>(
    to: SocketAddr,
    mut next: impl FnMut() -> Option<[u8; N]>,
    mut sent: impl FnMut(bool),
) -> Result<()> {
    let (mut ring, socket, to) = (Ring::new()?, any(to)?, SockaddrStorage::from(to));
    while let Some(packet) = next() {
        sent(ring.send_to(&socket, &packet, &to).is_ok());
    }
    Ok(())
}

fn any(to: SocketAddr) -> Result<UdpSocket> {
    Ok(UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?)
}
