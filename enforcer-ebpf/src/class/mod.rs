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
    EbpfContext,
    helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    programs::TracePointContext,
};

/// Byte of a syscall tracepoint's record where arguments (8 bytes each) or the result begin:
/// `/sys/kernel/tracing/events/syscalls/*/format`.
const VALUES: usize = 16;

/// A word of a system call's record.
#[inline(always)]
fn word(ctx: &TracePointContext, n: usize) -> u64 {
    // SAFETY: the record of a `sys_exit_*` has one word, that of a `sys_enter_*` one per argument.
    unsafe { ctx.as_ptr().cast::<u8>().add(VALUES + n * 8).cast::<u64>().read_volatile() }
}

/// The result of a system call, at its exit.
#[inline(always)]
fn result(ctx: &TracePointContext) -> i64 {
    word(ctx, 0) as i64
}

/// An argument of a system call, at its entry.
#[inline(always)]
fn argument(ctx: &TracePointContext, n: usize) -> u64 {
    word(ctx, n)
}

/// The same at its exit: the kernel keeps the registers with which the call was made (helpers of 5.11 and 5.15).
#[inline(always)]
fn argument_at_exit(n: usize) -> u64 {
    // SAFETY: the current task is always there, and so are its registers.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    kernel::read(registers, kernel::constant(&raw const OFFSETS.arguments[n]))
}
