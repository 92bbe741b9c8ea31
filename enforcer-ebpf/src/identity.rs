//! Which pod a task or a cgroup belongs to.
//!
//! The key is the cgroup: it is there before the first process and can't be forged by renaming or forking. Maps are
//! filled here, in the kernel, when cgroups come and go; user space only announces which are to come.

use crate::kernel::{self, offset, read};
use aya_ebpf::{
    helpers::bpf_get_current_cgroup_id,
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use ringfence_abi::{ABSENT, CgroupKey, CgroupName, SLOTS as SLOT_COUNT, Slot, V1_CGROUP};

/// Cgroups of governed pods, of either hierarchy.
#[map]
pub static CGROUPS: HashMap<CgroupKey, u32> = HashMap::with_max_entries(65_536, 0);

/// Cgroups that are to come, announced by user space.
#[map]
pub static COMING: HashMap<CgroupName, u32> = HashMap::with_max_entries(16_384, 0);

/// Cgroups of pods that nobody had announced, by the name of the pod's own: what they did may be told when they are gone.
#[map]
pub static STRANGERS: LruHashMap<CgroupKey, CgroupName> = LruHashMap::with_max_entries(1_024, 0);

/// Governed pods.
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(SLOT_COUNT, 0);

/// Thread groups that the runtime put into a container and that have not yet started one of its programs: the
/// runtime's own init. The value is the mount namespace they came from. Their doings are the runtime's.
///
/// A process inside can't get here: it is entered only when an ungoverned task moves a task into a governed cgroup
/// (or forks one into it), and left at the first program started in another mount namespace than the mover's.
#[map]
pub static ENTERING: HashMap<u32, u32> = HashMap::with_max_entries(8_192, 0);

/// The governed cgroup that each thread group was last seen in. When the kernel tells that a process has moved itself
/// (pure v2), it is in the other cgroup already.
#[map]
pub static MEMBERS: HashMap<u32, CgroupKey> = HashMap::with_max_entries(65_536, 0);

/// Governed thread groups that were moved out of their pod's cgroups, by anybody but the runtime: they keep their slot,
/// wherever they are.
#[map]
pub static ESCAPED: HashMap<u32, u32> = HashMap::with_max_entries(8_192, 0);

/// How many thread groups ever escaped; 0 spares the look-up.
#[map]
pub static ESCAPES: Array<u64> = Array::with_max_entries(1, 0);

/// A governed task.
#[derive(Clone, Copy)]
pub struct Governed {
    pub slot: u32,
    /// The key by which it was found; 0: it escaped.
    pub cgroup: CgroupKey,
}

#[inline(always)]
fn slot_of(key: CgroupKey) -> Option<u32> {
    // SAFETY: copied at once; an entry's slot never changes while it exists.
    unsafe { CGROUPS.get(&key) }.copied()
}

/// A cgroup below one of a stranger is the same stranger's.
#[inline(always)]
pub fn same_stranger(above: CgroupKey, key: CgroupKey) {
    // SAFETY: copied at once; an entry's name never changes while it exists.
    if let Some(name) = unsafe { STRANGERS.get(&above) } {
        let _ = STRANGERS.insert(&key, name, 0);
    }
}

/// The kernfs id of a `struct cgroup`.
#[inline(always)]
pub fn id(cgroup: u64) -> u64 {
    read(read(cgroup, offset!(cgroup_kn)), offset!(kernfs_id))
}

/// The task's cgroup in the chosen v1 hierarchy; 0 on a pure v2 node.
#[inline(always)]
fn v1_cgroup(task: u64) -> u64 {
    let controller = kernel::v1_controller();
    if controller == ABSENT {
        return 0;
    }
    let set: u64 = read(task, offset!(task_cgroups));
    let css: u64 = read(set, offset!(css_set_subsys) + controller * 8);
    read(css, offset!(css_cgroup))
}

/// The pod of the current task.
#[inline(always)]
pub fn current() -> Option<Governed> {
    current_task(kernel::current())
}

/// The same, where the task's address is at hand.
#[inline(always)]
pub fn current_task(task: u64) -> Option<Governed> {
    let v2 = if kernel::DIRECT_READS {
        id(read(read(task, offset!(task_cgroups)), offset!(css_set_default)))
    } else {
        unsafe { bpf_get_current_cgroup_id() }
    };
    in_cgroup(task, v2)
}

/// The pod of a task in this v2 cgroup, and in a v1 cgroup that it still has to be asked for.
#[inline(always)]
fn in_cgroup(task: u64, v2: CgroupKey) -> Option<Governed> {
    if let Some(escaped) = escaped(task) {
        return Some(escaped);
    }
    if let Some(slot) = slot_of(v2) {
        return Some(Governed { slot, cgroup: v2 });
    }
    if kernel::v1_controller() != ABSENT {
        let v1 = id(v1_cgroup(task)) | V1_CGROUP;
        if let Some(slot) = slot_of(v1) {
            return Some(Governed { slot, cgroup: v1 });
        }
    }
    None
}

/// The pod of the cgroup that a thread group was last seen in.
#[inline(always)]
pub fn last_seen(tgid: u32) -> Option<Governed> {
    // SAFETY: copied at once.
    let cgroup = unsafe { MEMBERS.get(&tgid) }.copied()?;
    slot_of(cgroup).map(|slot| Governed { slot, cgroup })
}

/// A thread group is where its pod's cgroups are not, and not by the runtime's doing: it takes its slot along.
#[inline(always)]
pub fn escapes(tgid: u32, slot: u32) {
    let _ = ESCAPED.insert(&tgid, &slot, 0);
    if let Some(count) = ESCAPES.get_ptr_mut(0) {
        // SAFETY: only ever compared with 0.
        unsafe { *count += 1 };
    }
}

#[inline(always)]
fn escaped(task: u64) -> Option<Governed> {
    if ESCAPES.get(0).copied().unwrap_or(0) == 0 {
        return None;
    }
    let tgid: u32 = read(task, offset!(task_tgid));
    // SAFETY: copied at once.
    unsafe { ESCAPED.get(&tgid) }.map(|slot| Governed { slot: *slot, cgroup: 0 })
}

/// [`slot_of_task`] for a task whose address was read, and so is a number to the verifier: verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rf_slot_of_task(task: u64) -> u32 {
    slot(of_task(task))
}

/// A pod's slot; 0: there is none. A number in any case: of a value that is not there the compiler compares whatever a
/// register holds, which the verifier refuses where that is a pointer.
#[inline(always)]
pub fn slot(governed: Option<Governed>) -> u32 {
    governed.map_or(0, |governed| governed.slot)
}

/// The pod of any task.
#[inline(always)]
pub fn of_task(task: u64) -> Option<Governed> {
    let set: u64 = read(task, offset!(task_cgroups));
    in_cgroup(task, id(read(set, offset!(css_set_default))))
}

/// Inode number of a task's mount namespace.
#[inline(always)]
pub fn mount_namespace(task: u64) -> u32 {
    let proxy: u64 = read(task, offset!(task_nsproxy));
    read(read(proxy, offset!(nsproxy_mnt)), offset!(mnt_ns_inum))
}

/// Whether the current thread group is the runtime's own init, on its way into a container.
#[inline(always)]
pub fn is_entering(tgid: u32) -> bool {
    ENTERING.get_ptr(&tgid).is_some()
}

/// A cgroup's key, if it is of one of the two hierarchies that identify pods.
#[inline(always)]
pub fn key(cgroup: u64) -> Option<CgroupKey> {
    // A hierarchy is known by its root: the current task has a cgroup in each.
    let task = kernel::current();
    let root: u64 = read(cgroup, offset!(cgroup_root));
    let set: u64 = read(task, offset!(task_cgroups));
    let default: u64 = read(set, offset!(css_set_default));
    if root == read::<u64>(default, offset!(cgroup_root)) {
        return Some(id(cgroup));
    }
    let v1 = v1_cgroup(task);
    if v1 != 0 && root == read::<u64>(v1, offset!(cgroup_root)) {
        return Some(id(cgroup) | V1_CGROUP);
    }
    None
}

/// The parent of a cgroup; 0 at the root.
#[inline(always)]
pub fn parent(cgroup: u64) -> u64 {
    let css: u64 = read(cgroup, offset!(cgroup_parent_css));
    read(css, offset!(css_cgroup))
}

/// The pod of a cgroup's key, if it is governed.
#[inline(always)]
pub fn slot_of_key(key: CgroupKey) -> Option<u32> {
    slot_of(key)
}
