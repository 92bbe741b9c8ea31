//! Processes that are born and die: what is known by thread group follows them. On every tier.

use super::escape::rf_escaped;
use crate::{
    identity::{self, ENTERING, ESCAPED, ESCAPES, Governed, MEMBERS},
    kernel::{self, offset, read},
};
use aya_ebpf::{EbpfContext, macros::btf_tracepoint, programs::BtfTracePointContext};

#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    // Read instead of taken from the context: a typed pointer, which older verifiers (6.1) refuse to hand to a function
    // that is verified by itself, becomes a number.
    let [parent, child]: [u64; 2] = read(ctx.as_ptr() as u64, 0);
    let parent_group: u32 = read(parent, offset!(task_tgid));
    let child_group: u32 = read(child, offset!(task_tgid));
    if parent_group == child_group {
        return 0;
    }
    let of_child = identity::of_task(child);
    // SAFETY: copied at once.
    if let Some(from) = unsafe { ENTERING.get(&parent_group) } {
        let from = *from;
        let _ = ENTERING.insert(&child_group, &from, 0);
        remember(child_group, of_child);
        return 0;
    }
    let of_parent = identity::current();
    let same = identity::slot(of_parent) == identity::slot(of_child);
    match (of_parent, of_child) {
        // Both where they belong, or both escaped: then the child is none of its own cgroup's.
        (Some(parent), Some(_)) if same && parent.cgroup != 0 => {
            remember(child_group, of_child);
        }
        // clone3 with CLONE_INTO_CGROUP (5.7) may put it anywhere.
        (Some(parent), _) => {
            identity::escapes(child_group, parent.slot);
            if parent.cgroup != 0 {
                rf_escaped(parent.slot, child_group);
            }
        }
        // The same: the runtime forks straight into the container.
        (None, Some(_)) => {
            let from = identity::mount_namespace(kernel::current());
            let _ = ENTERING.insert(&child_group, &from, 0);
            remember(child_group, of_child);
        }
        (None, None) => {}
    }
    0
}

/// Notes which cgroup a process is in.
#[inline(always)]
fn remember(group: u32, governed: Option<Governed>) {
    if let Some(governed) = governed {
        let _ = MEMBERS.insert(&group, &governed.cgroup, 0);
    }
}

/// The last thread of a process is gone, which need not be the first one.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(_ctx: BtfTracePointContext) -> i32 {
    let task = kernel::current();
    let signal: u64 = read(task, offset!(task_signal));
    let alive: u32 = read(signal, offset!(signal_live));
    if alive != 0 {
        return 0;
    }
    let group = kernel::process(task);
    let _ = ENTERING.remove(&group);
    let _ = MEMBERS.remove(&group);
    if ESCAPES.get(0).copied().unwrap_or(0) != 0 {
        let _ = ESCAPED.remove(&group);
    }
    0
}
