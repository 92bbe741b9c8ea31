//! What a system call's exit needs from its entry, by thread: a path of the caller's string, which is read once, at the
//! entry, and matched there. Only if lines are left is it kept until the call has succeeded. A string whose page is not there
//! at the entry is read and matched at the exit.

use crate::{
    facets::any,
    kernel,
    scratch::{self, Scratch},
};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use ringfence_abi::{EVENT_PATH, EventHeader, Vector};

/// A call under way whose path has lines left, or is still to be read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Judged {
    pub header: EventHeader,
    pub hit: Vector,
    pub path: [u8; EVENT_PATH],
    pub unread: Unread,
}

/// A string of the caller's that could not be read at the entry, because its page was not there yet. At the exit it is:
/// the kernel has read it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Unread {
    /// Where it is; 0: it was read.
    pub string: u64,
    /// Directory descriptor that a relative path starts from.
    pub at: i32,
    zero: u32,
}

impl Unread {
    pub const NOTHING: Self = Self::new(0, 0);

    #[inline(always)]
    pub const fn new(string: u64, at: i32) -> Self {
        Self { string, at, zero: 0 }
    }
}

/// One thread's call; calls with two paths have two entries.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Thread {
    id: u64,
    which: u64,
}

#[map]
static JUDGED: LruHashMap<Thread, Judged> = LruHashMap::with_max_entries(1_024, 0);

#[map]
static JUDGED_WORK: PerCpuArray<Judged> = PerCpuArray::with_max_entries(scratch::RUNS, 0);

#[inline(always)]
fn thread(which: u64) -> Thread {
    Thread { id: bpf_get_current_pid_tgid(), which }
}

/// One helper call: see [`kernel::copy_bytes`].
#[inline(always)]
unsafe fn copy_value<T>(to: *mut T, from: *const T) {
    unsafe { kernel::copy(to.cast(), size_of::<T>() as u32, from as u64) };
}

/// Keeps a call for its exit, if lines are left: its path, as the event has it, or what is still to be read.
#[inline(always)]
pub fn keep(which: u64, s: &Scratch, unread: Unread) {
    if !any(&s.hit) {
        return;
    }
    if let Some(work) = JUDGED_WORK.get_ptr_mut(s.index) {
        // SAFETY: from the map; who holds the scratch has this one, too.
        unsafe {
            copy_value(&raw mut (*work).header, &raw const s.event.header);
            (*work).hit = s.hit;
            copy_value(&raw mut (*work).path, &raw const s.event.path);
            (*work).unread = unread;
            let _ = JUDGED.insert(&thread(which), &*work, 0);
        }
    }
}

/// Forgets a path that a security hook judges.
#[inline(always)]
pub fn forget(which: u64) {
    let _ = JUDGED.remove(&thread(which));
}

/// Brings a kept path back into the scratch, and says whether it is still to be read. None: there is none.
#[inline(always)]
pub fn take(which: u64, s: &mut Scratch) -> Option<Unread> {
    let key = thread(which);
    // SAFETY: the key is this thread's own.
    let judged = unsafe { JUDGED.get(&key) }?;
    let unread = judged.unread;
    // SAFETY: both ends are of the same type.
    unsafe {
        copy_value(&raw mut s.event.header, &raw const judged.header);
        s.hit = judged.hit;
        copy_value(&raw mut s.event.path, &raw const judged.path);
    }
    let _ = JUDGED.remove(&key);
    // It has happened now, not when it was asked for.
    s.event.header.begun_at = unsafe { bpf_ktime_get_ns() };
    Some(unread)
}
