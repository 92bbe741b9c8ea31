//! System calls of 32-bit programs, made by a 64-bit one: `int 0x80` is open to everybody, and passes none of the
//! tracepoints of 64-bit calls.
#![expect(unsafe_code, reason = "no library makes these calls, and the kernel reads what they point to")]

use std::ffi::CString;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;

use anyhow::{Context as _, Result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike};

/// Numbers of `arch/x86/entry/syscalls/syscall_32.tbl`.
#[derive(Clone, Copy)]
enum Call {
    Open = 5,
    Link = 9,
    Unlink = 10,
    Chmod = 15,
    Rename = 38,
    Dup2 = 63,
    Symlink = 83,
    OldMmap = 90,
    Truncate = 92,
    Socketcall = 102,
    Setns = 346,
    IoUringSetup = 425,
    Fsopen = 430,
    Fsconfig = 431,
}

/// `MAX_ERRNO`, as a result.
const LAST_ERROR: i32 = -4095;

/// Calls of [`Call::Socketcall`] (`include/uapi/linux/net.h`).
#[derive(Clone, Copy)]
enum SocketCall {
    Socket = 1,
    Connect = 3,
}

/// Bytes below 4 GiB, where 32 bits reach.
struct Low {
    start: NonNull<std::ffi::c_void>,
    length: usize,
}

impl Low {
    fn path(path: &Path) -> Result<Self> {
        Self::bytes(CString::new(path.as_os_str().as_encoded_bytes())?.as_bytes_with_nul())
    }

    fn words(words: &[u32]) -> Result<Self> {
        Self::bytes(&words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>())
    }

    fn bytes(bytes: &[u8]) -> Result<Self> {
        let length = NonZeroUsize::new(bytes.len()).context("no bytes")?;
        let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: a mapping of our own at a place that the kernel chooses.
        let start = unsafe { mmap_anonymous(None, length, protection, flags | MapFlags::MAP_32BIT) }?;
        // SAFETY: the mapping has at least that many bytes, and nobody else knows of it.
        unsafe { start.cast::<u8>().copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        Ok(Self { start, length: bytes.len() })
    }

    fn address(&self) -> u32 {
        u32::try_from(self.start.as_ptr() as usize).expect("it was asked for within 32 bits")
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        // SAFETY: mapped by `bytes`, and nothing points to it any more.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

/// Makes a call. Its result is that of the kernel: an error is a negative number.
///
/// # Safety
/// What the arguments point to must be what the call expects.
unsafe fn call<const N: usize>(call: Call, arguments: [u32; N]) -> io::Result<i32> {
    let argument = |n: usize| arguments.get(n).copied().map_or(0, u64::from);
    let mut result = call as u64;
    // SAFETY: rbx, which the compiler keeps for itself, is put back. The kernel clears r8 to r11 of a 32-bit call.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) argument(0) => _,
            inlateout("rax") result,
            in("rcx") argument(1),
            in("rdx") argument(2),
            in("rsi") argument(3),
            in("rdi") argument(4),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    #[expect(clippy::cast_possible_truncation, reason = "a 32-bit call has a result of 32 bits")]
    let result = result as i32;
    // What is above is an address.
    if (LAST_ERROR..0).contains(&result) { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn by_path(number: Call, path: &Path, argument: u32) -> Result<i32> {
    let low = Low::path(path)?;
    // SAFETY: a call with a path and a number.
    unsafe { call(number, [low.address(), argument]) }.with_context(|| path.display().to_string())
}

fn by_paths(number: Call, one: &Path, other: &Path) -> Result<()> {
    let (one, other) = (Low::path(one)?, Low::path(other)?);
    // SAFETY: a call with two paths.
    unsafe { call(number, [one.address(), other.address()]) }?;
    Ok(())
}

/// open(2), to read.
pub fn open(path: &Path) -> Result<OwnedFd> {
    let descriptor = by_path(Call::Open, path, 0)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// unlink(2)
pub fn unlink(path: &Path) -> Result<()> {
    by_path(Call::Unlink, path, 0).map(drop)
}

/// chmod(2)
pub fn chmod(path: &Path, mode: u32) -> Result<()> {
    by_path(Call::Chmod, path, mode).map(drop)
}

/// rename(2)
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    by_paths(Call::Rename, from, to)
}

/// link(2)
pub fn link(from: &Path, to: &Path) -> Result<()> {
    by_paths(Call::Link, from, to)
}

/// symlink(2)
pub fn symlink(target: &Path, link: &Path) -> Result<()> {
    by_paths(Call::Symlink, target, link)
}

/// truncate(2) to nothing.
pub fn truncate(path: &Path) -> Result<()> {
    by_path(Call::Truncate, path, 0).map(drop)
}

/// dup2(2)
pub fn dup2(descriptor: BorrowedFd<'_>, onto: u32) -> Result<()> {
    // SAFETY: a call with numbers.
    unsafe { call(Call::Dup2, [number(descriptor)?, onto]) }?;
    Ok(())
}

/// setns(2)
pub fn setns(descriptor: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: a call with numbers.
    unsafe { call(Call::Setns, [number(descriptor)?, 0]) }?;
    Ok(())
}

/// fsopen(2) of a file system, and its source by fsconfig(2).
pub fn mount_source(kind: &str, source: &Path) -> Result<()> {
    const FSCONFIG_SET_STRING: u32 = 1;
    let context = by_path(Call::Fsopen, Path::new(kind), 0)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    let context = unsafe { OwnedFd::from_raw_fd(context) };
    let (key, value) = (Low::path(Path::new("source"))?, Low::path(source)?);
    let arguments = [number(context.as_fd())?, FSCONFIG_SET_STRING, key.address(), value.address(), 0];
    // SAFETY: a call with two strings.
    unsafe { call(Call::Fsconfig, arguments) }?;
    Ok(())
}

fn socketcall(number: SocketCall, arguments: &[u32]) -> io::Result<i32> {
    let low = Low::words(arguments).map_err(io::Error::other)?;
    // SAFETY: a call with a number and its arguments, which are as many as that call has.
    unsafe { call(Call::Socketcall, [number as u32, low.address()]) }
}

/// socket(2) by socketcall(2); the type and the protocol as they are numbered there.
pub fn socket(family: AddressFamily, kind: SockType, protocol: u16) -> Result<OwnedFd> {
    let arguments = [(family as i32).cast_unsigned(), (kind as i32).cast_unsigned(), u32::from(protocol)];
    let descriptor = socketcall(SocketCall::Socket, &arguments)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// connect(2) by socketcall(2).
pub fn connect(socket: BorrowedFd<'_>, to: &impl SockaddrLike) -> Result<()> {
    let length = usize::try_from(to.len())?;
    // SAFETY: it says how long it is.
    let address = Low::bytes(unsafe { std::slice::from_raw_parts(to.as_ptr().cast(), length) })?;
    socketcall(SocketCall::Connect, &[number(socket)?, address.address(), u32::try_from(length)?])?;
    Ok(())
}

/// mmap(2) of a file's first page, executable, by the call that takes its arguments from memory.
pub fn map(file: BorrowedFd<'_>) -> Result<()> {
    const PAGE: u32 = 4096;
    const READ_AND_EXECUTE: u32 = 1 | 4;
    const PRIVATE: u32 = 2;
    let arguments = Low::words(&[0, PAGE, READ_AND_EXECUTE, PRIVATE, number(file)?, 0])?;
    // SAFETY: nothing looks at the mapping, and no memory of ours is replaced by it.
    unsafe { call(Call::OldMmap, [arguments.address()]) }?;
    Ok(())
}

/// `io_uring_setup(2)`
pub fn ring() -> Result<()> {
    /// `struct io_uring_params`
    const PARAMETERS: [u8; 120] = [0; 120];
    let parameters = Low::bytes(&PARAMETERS)?;
    // SAFETY: a call with a number, and room for what the kernel says.
    let descriptor = unsafe { call(Call::IoUringSetup, [1, parameters.address()]) }?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    Ok(())
}

fn number(descriptor: BorrowedFd<'_>) -> Result<u32> {
    Ok(u32::try_from(descriptor.as_raw_fd())?)
}
