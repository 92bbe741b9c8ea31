//! Cgroups that come and go, and tasks that are moved between them. On every tier.

use super::escape::rf_escaped;
use crate::{
    identity::{self, CGROUPS, COMING, ENTERING, ESCAPED, MEMBERS, STRANGERS},
    kernel::{self, offset, read},
    scratch::PATH,
};
use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel_str,
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use ringfence_abi::{ANY_POD, CGROUP_NAME, CgroupKey, CgroupName};

/// A cgroup's name in work: room for two components of 255 bytes and a slash.
#[repr(C)]
struct Name {
    last: CgroupName,
    two: [u8; PATH * 2],
}

#[map]
static CGROUP_NAMES: PerCpuArray<Name> = PerCpuArray::with_max_entries(1, 0);

/// A cgroup was made: it belongs to its parent's pod, else to its maker's, else to whom it was announced for.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup: u64 = ctx.arg(0);
    let Some(key) = identity::key(cgroup) else { return 0 };
    let parent = identity::parent(cgroup);
    let above = identity::key(parent);
    let of_above = above.and_then(identity::slot_of_key);
    let maker = identity::current().map(|maker| maker.slot);
    if let Some(maker) = maker.filter(|maker| of_above != Some(*maker)) {
        // As a container engine inside of a container does it.
        rf_escaped(maker, 0);
    }
    let slot = match (of_above, above) {
        (Some(slot), Some(above)) => {
            identity::same_stranger(above, key);
            Some(slot)
        }
        _ => maker.or_else(|| announced(key, cgroup, parent)),
    };
    // What is announced with slot 0 is known, and governed by nobody.
    if let Some(slot) = slot.filter(|slot| *slot != 0) {
        let _ = CGROUPS.insert(&key, &slot, 0);
    }
    0
}

/// Longest name of a slice of the kubelet that holds the pods of a class, and is no pod's: `kubelet-kubepods-besteffort.slice`,
/// with its zero byte, is 34. The shortest of a pod, `kubepods-podUID.slice`, is 55.
const CLASS_SLICE: u64 = 40;

/// Whether the kubelet makes this cgroup for a pod: `podUID` below one of the classes, or a pod's slice.
#[inline(always)]
fn is_pods(with_parent: &[u8], own: &[u8], own_len: u64) -> bool {
    if own.starts_with(b"pod") {
        return [&b"kubepods/"[..], b"burstable/", b"besteffort/"].iter().any(|class| with_parent.starts_with(class));
    }
    own_len > CLASS_SLICE && (own.starts_with(b"kubepods-") || own.starts_with(b"kubelet-kubepods-"))
}

/// The slot that user space announced for a cgroup of this name, or for any pod if this is one's.
#[inline(always)]
fn announced(key: CgroupKey, cgroup: u64, parent: u64) -> Option<u32> {
    // SAFETY: the pointer comes from the map; positions are masked below the buffers' sizes.
    unsafe {
        let name = &mut *CGROUP_NAMES.get_ptr_mut(0)?;
        kernel::zero(&mut name.two);
        let own: u64 = read(read(cgroup, offset!(cgroup_kn)), offset!(kernfs_name));
        let above: u64 = read(read(parent, offset!(cgroup_kn)), offset!(kernfs_name));
        let len = bpf_probe_read_kernel_str(name.two.as_mut_ptr().cast(), (PATH - 1) as u32, above as *const _) as u64;
        // `len` counts the zero byte, which the slash replaces.
        let slash = (len.wrapping_sub(1) as usize) & (PATH - 1);
        name.two[slash] = b'/';
        bpf_probe_read_kernel_str(name.two.as_mut_ptr().add(slash + 1).cast(), (PATH - 1) as u32, own as *const _);
        kernel::copy_bytes(&mut name.last.name, name.two.as_ptr());
        if let Some(slot) = COMING.get(&name.last) {
            return Some(*slot);
        }
        kernel::zero(&mut name.last.name);
        let len = bpf_probe_read_kernel_str(name.last.name.as_mut_ptr().cast(), CGROUP_NAME as u32, own as *const _);
        if let Some(slot) = COMING.get(&name.last) {
            return Some(*slot);
        }
        if !is_pods(&name.two, &name.last.name, len as u64) {
            return None;
        }
        let _ = STRANGERS.insert(&key, &name.last, 0);
        kernel::zero(&mut name.last.name);
        name.last.name[0] = ANY_POD;
        COMING.get(&name.last).copied()
    }
}

/// The last reference to a removed cgroup is gone (sockets hold one too).
#[btf_tracepoint(function = "cgroup_release")]
pub fn cgroup_release(ctx: BtfTracePointContext) -> i32 {
    if let Some(key) = identity::key(ctx.arg(0)) {
        let _ = CGROUPS.remove(&key);
    }
    0
}

/// A process was moved. From outside into a pod: the runtime brings it in. By anybody of a pod, out of that or into another
/// one: it escapes. (By a thread's move nobody gets out: threads stay below the cgroup of their process.)
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    let Some(key) = identity::key(ctx.arg(0)) else { return 0 };
    let task: u64 = ctx.arg(2);
    let tgid: u32 = read(task, offset!(task_tgid));
    let this = kernel::process(kernel::current());
    let there = identity::slot_of_key(key);
    // Who moves itself is in the new cgroup already.
    let mover = identity::last_seen(this).or_else(identity::current);
    // The runtime's init joins the hierarchies one after the other, and moves itself.
    let inside = mover.filter(|_| !identity::is_entering(this));
    match (there, inside) {
        (Some(_), None) => {
            if mover.is_none() {
                let from = identity::mount_namespace(kernel::current());
                let _ = ENTERING.insert(&tgid, &from, 0);
            }
            came_home(tgid, key);
        }
        (None, None) => {
            if mover.is_none() {
                let _ = MEMBERS.remove(&tgid);
            }
        }
        (_, Some(mover)) => {
            let own = identity::last_seen(tgid).map_or(mover.slot, |own| own.slot);
            if there == Some(own) {
                came_home(tgid, key);
            } else {
                identity::escapes(tgid, own);
                rf_escaped(own, tgid);
            }
        }
    }
    0
}

/// A process is in a cgroup of its pod.
#[inline(always)]
fn came_home(tgid: u32, key: CgroupKey) {
    let _ = MEMBERS.insert(&tgid, &key, 0);
    let _ = ESCAPED.remove(&tgid);
}
