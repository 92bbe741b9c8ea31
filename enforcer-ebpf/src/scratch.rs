//! The per-CPU working memory of one run: the stack has only 512 bytes.

use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, lpm_trie::Key},
};
use core::ops::{Deref, DerefMut, Range};
use ringfence_abi::{DestinationKey, Event, KeyHead, NameKey, PathKey, PathPrefixKey, Vector};

/// Bytes of a path that are kept and matched. Twice that is allocated: a masked position plus a masked length stays
/// inside.
pub const PATH: usize = 256;

/// One run's state. `event` doubles as its working state: what is reported is what was matched.
#[repr(C)]
pub struct Scratch {
    pub event: Event,
    /// 1: a run on this CPU holds it.
    pub busy: u32,
    /// Its own index, for functions that are verified by themselves: see [`by_index`].
    pub index: u32,
    /// Lines that are still possible.
    pub hit: Vector,
    /// Lines of `hit` that need no argument which was not looked at. Only where arguments were cut.
    pub certain: Vector,
    /// Lines that need one: candidates.
    pub open: Vector,
    /// Sum of the `set` (and of the `clear`) of all entries that apply to the facet in work.
    pub set: Vector,
    pub clear: Vector,
    /// Path in work, from its beginning; zeros behind it.
    pub path: [u8; PATH * 2],
    /// A caller's string, before it is joined and normalised.
    pub string: [u8; PATH * 2],
    /// Where each component of `path` begins, while a string is normalised.
    pub starts: [u16; 64],
    pub path_key: PathKey,
    pub name_key: NameKey,
    pub path_prefix: Key<PathPrefixKey>,
    pub name_prefix: Key<NameKey>,
    pub destination: Key<DestinationKey>,
    pub found: FileFacets,
    pub remembered: FileKey,
    pub walk: Walk,
    pub object: Object,
    /// The `struct sock` in work.
    pub socket: u64,
    /// The ancestor in work.
    pub ancestor: u64,
    /// Loop counters and lengths.
    pub count: u64,
    pub len: u64,
    pub depth: u64,
    /// 1: the first argument is the name of a program that is many.
    pub multi_call: u64,
}

/// A walk from a file's dentry up to its root.
#[repr(C)]
pub struct Walk {
    /// Where it starts.
    pub from_dentry: u64,
    pub from_mnt: u64,
    /// Where it is.
    pub dentry: u64,
    pub mnt: u64,
    /// Bytes of the path.
    pub len: u64,
    /// Position in the path, counted down from `len`.
    pub pos: u64,
    /// Components in all, and the one in work, counted down.
    pub components: u64,
    pub component: u64,
    /// A hash of all dentries, names and mounts passed: the path's identity.
    pub fingerprint: u64,
    /// 1: stay inside the file system, 0: go up through mounts.
    pub inside: u64,
    /// 1: more components than the walk goes.
    pub too_deep: u64,
    /// What stands before the file system's own root: 0 nothing, 1 `/proc`, 2 `/sys`, 3 `/sys/fs/cgroup`.
    pub root: u64,
}

/// What a file's path and its name satisfy.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FileFacets {
    pub path: Vector,
    pub name: Vector,
}

/// A file's path, by identity.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FileKey {
    pub dentry: u64,
    /// 0 where the path does not depend on mounts.
    pub mnt: u64,
    pub fingerprint: u64,
    pub head: KeyHead,
    pub zero: u32,
}

/// The file that the event is about.
#[repr(C)]
pub struct Object {
    pub dentry: u64,
    pub mnt: u64,
    pub inode: u64,
    pub sb: u64,
}

/// Programs that share working memory.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum Lane {
    Exec = 0,
    Open = 1,
    Change = 2,
    Network = 3,
    Process = 4,
    Packet = 5,
}

const LANES: u32 = 6;

/// Runs that may be under way on one CPU.
pub const RUNS: u32 = LANES * DEPTH;

/// Runs of one lane that may be under way on one CPU: a softirq interrupts a sender, a preemptible kernel switches
/// away from an LSM program.
const DEPTH: u32 = 3;

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(RUNS, 0);

/// An entry of a per-CPU array that one run at a time works in.
pub trait Entry: 'static {
    /// 1: a run on this CPU holds it.
    fn busy(&mut self) -> *mut u32;
}

impl Entry for Scratch {
    #[inline(always)]
    fn busy(&mut self) -> *mut u32 {
        &raw mut self.busy
    }
}

/// A run's own entry, given back at its end.
pub struct Held<T: Entry>(&'static mut T);

impl<T: Entry> Drop for Held<T> {
    #[inline(always)]
    fn drop(&mut self) {
        crate::kernel::put(self.0.busy(), 0);
    }
}

impl<T: Entry> Deref for Held<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.0
    }
}

impl<T: Entry> DerefMut for Held<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        self.0
    }
}

/// One of these entries that no run on this CPU uses, as the last one left it, and its index.
///
/// A run that is interrupted between the look and the claim is harmless: who interrupts is done, and has given back,
/// before it goes on.
#[inline(always)]
pub fn claim<T: Entry>(map: &'static PerCpuArray<T>, entries: Range<u32>) -> Option<(Held<T>, u32)> {
    for index in entries {
        // SAFETY: from the map; claimed by `busy`.
        let entry = unsafe { &mut *map.get_ptr_mut(index)? };
        if crate::kernel::get(entry.busy()) == 0 {
            crate::kernel::put(entry.busy(), 1);
            return Some((Held(entry), index));
        }
    }
    None
}

/// The working memory at an index, for global functions.
///
/// A `#[no_mangle]` function of scalar arguments is global to the verifier (5.6): it is verified once, by itself, and
/// not again at every call and in every state of its callers. Without that, programs go over the limit of a million
/// instructions; with it, they stay below a twentieth.
#[inline(always)]
pub fn by_index(index: u32) -> Option<&'static mut Scratch> {
    // SAFETY: the caller holds it, and passes nothing else of it.
    SCRATCH.get_ptr_mut(index).map(|s| unsafe { &mut *s })
}

/// Working memory of a lane.
#[inline(always)]
pub fn hold(lane: Lane) -> Option<Held<Scratch>> {
    let first = lane as u32 * DEPTH;
    let (mut held, index) = claim(&SCRATCH, first..first + DEPTH)?;
    held.index = index;
    Some(held)
}
