//! Event classes: one file each, thin entry points over a shared body. No body knows its tier.
//!
//! System calls are seen at their exit, where the kernel knows what came of them. What the exit no longer has (the
//! arguments) is kept from the entry by thread, in [`pending`].

mod cgroup;
mod change;
mod exec;
mod network;
mod open;
mod pending;
mod process;
mod task;

use aya_ebpf::programs::TracePointContext;

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
