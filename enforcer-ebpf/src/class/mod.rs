//! Event classes: one file each, thin entry points over a shared body. No body knows its tier.
//!
//! System calls are seen at their exit, where the kernel knows what came of them. Only what the caller could change
//! meanwhile, the strings, is read and judged at the entry, and kept for the exit by thread, in [`pending`].

mod cgroup;
mod change;
mod exec;
mod network;
mod open;
mod pending;
mod process;
mod task;

use crate::kernel::{self, OFFSETS};
use aya_ebpf::{
    helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    programs::TracePointContext,
};

/// Byte of a syscall tracepoint's record where arguments (8 bytes each) or the result begin:
/// `/sys/kernel/tracing/events/syscalls/*/format`.
const VALUES: usize = 16;

/// The result of a system call, at its exit.
#[inline(always)]
fn result(ctx: &TracePointContext) -> i64 {
    // SAFETY: within the record of every `sys_exit_*`.
    unsafe { ctx.read_at(VALUES) }.unwrap_or(-1)
}

/// An argument of a system call, at its entry.
#[inline(always)]
fn argument(ctx: &TracePointContext, n: usize) -> u64 {
    // SAFETY: within the record of a `sys_enter_*` with more than `n` arguments.
    unsafe { ctx.read_at(VALUES + n * 8) }.unwrap_or(0)
}

/// The same at its exit: the kernel keeps the registers with which the call was made (helpers of 5.11 and 5.15).
#[inline(always)]
fn argument_at_exit(n: usize) -> u64 {
    // SAFETY: the current task is always there, and so are its registers.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    kernel::read(registers, kernel::constant(&raw const OFFSETS.arguments[n]))
}
