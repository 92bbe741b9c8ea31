//! A socket of the family `AF_XDP`: frames go from memory that is shared with the kernel to an interface, past IP.

#![expect(
    unsafe_code,
    reason = "frames and queues are memory that the kernel uses too, and no library makes such sockets"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes of the kernel's structures, and offsets in a queue, are small"
)]

use std::ffi::c_int;
use std::io;
use std::mem::{size_of, zeroed};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use nix::libc::{self, sockaddr_xdp, xdp_desc, xdp_mmap_offsets, xdp_ring_offset, xdp_umem_reg};
use nix::net::if_::if_nametoindex;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};

/// Frames, and places in each queue.
const FRAMES: u32 = 64;
/// Bytes of one; the kernel takes this or 4096.
const FRAME: u32 = 2048;

/// A queue of which one end is the kernel's.
struct Queue {
    start: NonNull<u8>,
    offsets: xdp_ring_offset,
}

/// Frames that are to be sent, and the queues by which they go and come back.
pub struct Socket {
    descriptor: OwnedFd,
    frames: NonNull<u8>,
    sending: Queue,
    sent: Queue,
}

impl Socket {
    /// One that sends by the first queue of `interface`.
    pub fn open(interface: &str) -> Result<Self> {
        let index = if_nametoindex(interface).with_context(|| format!("find interface {interface}"))?;
        // SAFETY: no pointer is passed; the descriptor, if it is one, is nobody's yet.
        let descriptor = unsafe {
            let descriptor = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            ensure!(descriptor >= 0, "make an XDP socket: {}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(descriptor)
        };
        let size = NonZeroUsize::new((FRAMES * FRAME) as usize).context("no frames")?;
        // SAFETY: new memory, which is never given back.
        let frames = unsafe { mmap_anonymous(None, size, READ_WRITE, MapFlags::MAP_PRIVATE) }?.cast::<u8>();
        // SAFETY: it holds numbers alone, and zeros are fine for all of them.
        let mut memory: xdp_umem_reg = unsafe { zeroed() };
        memory.addr = frames.as_ptr() as u64;
        (memory.len, memory.chunk_size) = (size.get() as u64, FRAME);
        set(&descriptor, libc::XDP_UMEM_REG, &memory).context("give the kernel the frames")?;
        for queue in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_TX_RING] {
            set(&descriptor, queue, &FRAMES).with_context(|| format!("make queue {queue}"))?;
        }
        let offsets = offsets(&descriptor)?;
        let sending = Queue::map::<xdp_desc>(&descriptor, offsets.tx, libc::XDP_PGOFF_TX_RING)?;
        let sent = Queue::map::<u64>(&descriptor, offsets.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING.cast_signed())?;
        // SAFETY: as above.
        let mut address: sockaddr_xdp = unsafe { zeroed() };
        address.sxdp_family = libc::AF_XDP as u16;
        (address.sxdp_flags, address.sxdp_ifindex) = (libc::XDP_COPY, index);
        // SAFETY: the kernel reads one whole address, which lives until it has done so.
        let bound = unsafe {
            libc::bind(descriptor.as_raw_fd(), (&raw const address).cast(), size_of::<sockaddr_xdp>() as u32)
        };
        ensure!(bound == 0, "bind to {interface}: {}", io::Error::last_os_error());
        Ok(Self { descriptor, frames, sending, sent })
    }

    /// Sends one Ethernet frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        ensure!(frame.len() <= FRAME as usize, "a frame of {} bytes", frame.len());
        // What came back is free again.
        self.sent.consumer().store(self.sent.producer().load(Ordering::Acquire), Ordering::Release);
        let number = self.sending.producer().load(Ordering::Relaxed);
        let waiting = number.wrapping_sub(self.sending.consumer().load(Ordering::Acquire));
        ensure!(waiting < FRAMES, "the queue is full");
        let place = number % FRAMES;
        let descriptor = xdp_desc { addr: u64::from(place * FRAME), len: u32::try_from(frame.len())?, options: 0 };
        // SAFETY: the place is one of the frames, and one of the queue that the kernel has read; the frame fits.
        unsafe {
            ptr::copy_nonoverlapping(frame.as_ptr(), self.frames.as_ptr().add((place * FRAME) as usize), frame.len());
            self.sending.entries::<xdp_desc>().add(place as usize).write(descriptor);
        }
        self.sending.producer().store(number.wrapping_add(1), Ordering::Release);
        // SAFETY: nothing is passed: it tells the kernel to look at the queue.
        let told =
            unsafe { libc::sendto(self.descriptor.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
        ensure!(told >= 0, "send: {}", io::Error::last_os_error());
        Ok(())
    }
}

const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

impl Queue {
    fn map<T>(descriptor: &OwnedFd, offsets: xdp_ring_offset, at: i64) -> Result<Self> {
        let size = usize::try_from(offsets.desc)? + FRAMES as usize * size_of::<T>();
        let size = NonZeroUsize::new(size).context("an empty queue")?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: new memory, which is never given back.
        let start = unsafe { mmap(None, size, READ_WRITE, flags, descriptor, at) }.context("map a queue")?;
        Ok(Self { start: start.cast(), offsets })
    }

    fn producer(&self) -> &AtomicU32 {
        self.number(self.offsets.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.number(self.offsets.consumer)
    }

    fn number(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: the kernel says that there is one, aligned; both sides use it atomically, and it stays mapped.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(offset as usize).cast()) }
    }

    fn entries<T>(&self) -> *mut T {
        // The kernel aligns them.
        self.start.as_ptr().wrapping_add(self.offsets.desc as usize).cast()
    }
}

fn set<T>(descriptor: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads one whole value, which lives until it has done so.
    let result = unsafe {
        let value = (&raw const *value).cast();
        libc::setsockopt(descriptor.as_raw_fd(), libc::SOL_XDP, option, value, size_of::<T>() as u32)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where the kernel has put what in each queue.
fn offsets(descriptor: &OwnedFd) -> Result<xdp_mmap_offsets> {
    // SAFETY: numbers alone, as above.
    let mut offsets: xdp_mmap_offsets = unsafe { zeroed() };
    let mut size = size_of::<xdp_mmap_offsets>() as u32;
    // SAFETY: the kernel writes no more than the size says.
    let result = unsafe {
        let value = (&raw mut offsets).cast();
        libc::getsockopt(descriptor.as_raw_fd(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, value, &raw mut size)
    };
    ensure!(result == 0, "ask where the queues are: {}", io::Error::last_os_error());
    Ok(offsets)
}
