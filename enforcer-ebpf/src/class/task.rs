//! Processes that are born and die: what is known by thread group follows them. On every tier.

use crate::{
    identity::{self, ENTERING, ESCAPED, ESCAPES},
    kernel::{self, offset, read},
};
use aya_ebpf::{
    EbpfContext, helpers::bpf_get_current_pid_tgid, macros::btf_tracepoint, programs::BtfTracePointContext,
};

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
    // SAFETY: copied at once.
    if let Some(from) = unsafe { ENTERING.get(&parent_group) } {
        let from = *from;
        let _ = ENTERING.insert(&child_group, &from, 0);
        return 0;
    }
    if ESCAPES.get(0).copied().unwrap_or(0) != 0
        && let Some(slot) = unsafe { ESCAPED.get(&parent_group) }
    {
        let slot = *slot;
        let _ = ESCAPED.insert(&child_group, &slot, 0);
        return 0;
    }
    // clone3 with CLONE_INTO_CGROUP (5.7): the runtime forks straight into the container.
    if identity::current().is_none() && identity::slot_of_task(child) != 0 {
        let from = identity::mount_namespace(kernel::current());
        let _ = ENTERING.insert(&child_group, &from, 0);
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(_ctx: BtfTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    let (group, thread) = ((id >> 32) as u32, id as u32);
    if group == thread {
        let _ = ENTERING.remove(&group);
        if ESCAPES.get(0).copied().unwrap_or(0) != 0 {
            let _ = ESCAPED.remove(&group);
        }
    }
    0
}
