//! Every system call, on kernels where nothing that sits on a single one outlives the enforcer: those without trampolines
//! before 5.15 (arm64). What sits on `sys_enter` and `sys_exit` is kept by its link, and goes on to the program of the
//! call, by its number.

use crate::kernel::{self, offset};
use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::ProgramArray,
    programs::BtfTracePointContext,
};
use ringfence_abi::CALLS;

/// By a system call's number, what is to see its entry. Their form: on `sys_enter` themselves.
#[map]
static ENTERS: ProgramArray = ProgramArray::with_max_entries(CALLS, 0);

/// The same for its exit.
#[map]
static EXITS: ProgramArray = ProgramArray::with_max_entries(CALLS, 0);

#[btf_tracepoint(function = "sys_enter")]
pub fn every_enter(ctx: BtfTracePointContext) -> i32 {
    go_on(&ctx, &ENTERS);
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn every_exit(ctx: BtfTracePointContext) -> i32 {
    go_on(&ctx, &EXITS);
    0
}

/// Goes on to the call's program, if it has one, and does not come back then. A 32-bit program's calls have other numbers,
/// and pass, as they do where each call has a tracepoint.
#[inline(always)]
fn go_on(ctx: &BtfTracePointContext, programs: &ProgramArray) {
    /// `arch/arm64/include/asm/ptrace.h`
    const PSR_MODE32_BIT: u64 = 0x10;
    let registers: u64 = ctx.arg(0);
    let state: u64 = kernel::read(registers, offset!(call_state));
    if state & PSR_MODE32_BIT == 0 {
        // Of no call (a debugger's doing) it is -1, which no program has.
        let number: u32 = kernel::read(registers, offset!(call_number));
        // SAFETY: nothing is held here that would have to be given back.
        unsafe { programs.tail_call(ctx, number) };
    }
}
