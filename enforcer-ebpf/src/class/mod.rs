//! Event classes: one file each, thin entry points over a shared body. No body knows its tier.
//!
//! System calls are seen at their exit, where the kernel knows what came of them. Only what the caller could change
//! meanwhile, the strings, is read and judged at the entry, and kept for the exit by thread, in [`pending`].
//!
//! A program is built once and loaded in the form that the node takes: the loader exchanges the first part of its
//! section's name, which says of what type it is. On a system call it is a tracepoint, or sits on the call's function by
//! a trampoline (`tracepoint/enter` becomes `fentry`, `tracepoint/exit` becomes `fexit`), or is gone on to by what sees all
//! calls (both become `tp_btf`: [`call`]); on a security hook it is an LSM program, or sits on the hook's function by a
//! trampoline or a kprobe (`lsm/---` becomes `fexit/-` or `kprobe/`: the dashes are room for the longer names). What
//! differs is what the program is handed, and how it answers: here.

mod call;
mod cgroup;
mod change;
mod escape;
mod exec;
mod network;
mod open;
mod pending;
mod process;
mod task;

use crate::{
    judge::Verdict,
    kernel::{self, OFFSETS},
};
use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    programs::{LsmContext, TracePointContext},
};
use ringfence_abi::Tier;

/// Word of a syscall tracepoint's record where arguments or the result begin:
/// `/sys/kernel/tracing/events/syscalls/*/format`.
const VALUES: usize = 2;
/// Bytes of a word.
const WORD: u32 = 8;

/// A word of what a program is handed.
#[inline(always)]
fn word(ctx: &impl EbpfContext, n: usize) -> u64 {
    // SAFETY: every caller names a word that its kind of program has.
    unsafe { ctx.as_ptr().cast::<u64>().add(n).read_volatile() }
}

/// A word of the same at another place in another form of the program, by a helper: of two loads the compiler would make
/// one, from an address that it computes, and older verifiers (5.10) take only constants next to the context.
#[inline(always)]
fn word_at(ctx: &impl EbpfContext, byte: u32) -> u64 {
    let mut word = 0u64;
    // SAFETY: the helper writes the size of a word.
    unsafe { kernel::copy((&raw mut word).cast(), size_of::<u64>() as u32, ctx.as_ptr() as u64 + byte as u64) };
    word
}

/// The result of a system call, at its exit.
#[inline(always)]
fn result(ctx: &TracePointContext) -> i64 {
    // Elsewhere it is handed the registers, and then the result.
    if kernel::calls_by_registers() { word_at(ctx, WORD) as i64 } else { word(ctx, VALUES) as i64 }
}

/// An argument of a system call, at its entry.
#[inline(always)]
fn argument(ctx: &TracePointContext, n: usize) -> u64 {
    if kernel::calls_by_registers() { register(word_at(ctx, 0), n) } else { word(ctx, VALUES + n) }
}

/// The same at its exit: the kernel keeps the registers with which the call was made. At a call's
/// tracepoint helpers of 5.11 and 5.15 find them, elsewhere they are handed over.
#[inline(always)]
fn argument_at_exit(ctx: &TracePointContext, n: usize) -> u64 {
    if kernel::calls_by_registers() {
        return register(word_at(ctx, 0), n);
    }
    // SAFETY: the current task is always there, and so are its registers.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    register(registers, n)
}

#[inline(always)]
fn register(registers: u64, n: usize) -> u64 {
    let offset = kernel::constant(&raw const OFFSETS.arguments[n]);
    if kernel::compat_calls() { kernel::read::<u32>(registers, offset) as u64 } else { kernel::read(registers, offset) }
}

/// A parameter of a security hook, or of its function where that has the same one.
#[inline(always)]
fn parameter(ctx: &LsmContext, n: usize) -> u64 {
    if kernel::hooks_are(Tier::Kprobe) { parameter_of_function(ctx, n) } else { word(ctx, n) }
}

/// A parameter of a security hook's function.
#[inline(always)]
fn parameter_of_function(ctx: &LsmContext, n: usize) -> u64 {
    if kernel::hooks_are(Tier::Kprobe) {
        word_at(ctx, kernel::constant(&raw const OFFSETS.parameters[n]))
    } else {
        word_at(ctx, n as u32 * WORD)
    }
}

/// What was decided before: by LSM programs ahead of ours, or by all LSMs where ours sits at the end of the hook's
/// function. It follows the parameters. A kprobe sits at the entry, where nothing has been decided.
#[inline(always)]
fn decided(ctx: &LsmContext, parameters: usize) -> i32 {
    if kernel::hooks_are(Tier::Kprobe) { 0 } else { word(ctx, parameters) as i32 }
}

/// The same where the number of parameters differs: between the hook and its function, or between kernels.
#[inline(always)]
fn decided_after(ctx: &LsmContext, parameters: u32) -> i32 {
    if kernel::hooks_are(Tier::Kprobe) { 0 } else { word_at(ctx, parameters * WORD) as i32 }
}

/// What a program on a security hook returns where another has refused already: the same. Only LSM programs are asked.
#[inline(always)]
fn as_decided(before: i32) -> i32 {
    if kernel::hooks_are(Tier::Lsm) { before } else { 0 }
}

/// What a program on a security hook with so many parameters returns: where it was decided before, that; else by a
/// judgement.
#[inline(always)]
fn unless_decided(ctx: &LsmContext, parameters: usize, judge: impl FnOnce() -> Verdict) -> i32 {
    let before = decided(ctx, parameters);
    if before != 0 { as_decided(before) } else { answer(judge()) }
}

/// What a program on a security hook returns.
#[inline(always)]
fn answer(verdict: Verdict) -> i32 {
    if verdict == Verdict::Stop { kernel::refusal() } else { 0 }
}
