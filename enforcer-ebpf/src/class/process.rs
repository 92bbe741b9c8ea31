//! Class process: calls on other processes, namespaces, mounts, and the kernel itself. Judged at the exit, with
//! [`flag::FAILED`] where the call failed: for most of them the attempt says enough.

use super::{
    argument, argument_at_exit, parameter,
    pending::{self, Unread},
    result, unless_decided,
};
use crate::{
    facets::{self, any},
    judge::{self, EntryPoint, Report, SecurityHook, Tracepoint, Verdict},
    kernel::{self, offset},
    path, process,
    scratch::{self, Lane, Scratch},
};
use aya_ebpf::{
    macros::{lsm, tracepoint},
    programs::{LsmContext, TracePointContext},
};
use ringfence_abi::{Class, Counter, Facet, Op, flag};

const CLASS: Class = Class::Process;
const AT_FDCWD: i32 = -100;
const CLONE_NEWUSER: u64 = 0x1000_0000;

/// Requests by which a process begins to trace another one (`include/uapi/linux/ptrace.h`).
const PTRACE_ATTACH: u64 = 16;
const PTRACE_SEIZE: u64 = 0x4206;

/// Keys of the two paths of a mount.
const SOURCE: u64 = 2;
const TARGET: u64 = 3;

/// What a call was about, read from what the program is handed.
type Read = fn(&TracePointContext) -> u64;

/// A call is over. What it was about, and on which process (0: none).
#[inline(always)]
fn over(op: Op, ctx: &TracePointContext, number: Read, target: Read, only_success: bool) {
    let result = result(ctx);
    if only_success && result < 0 {
        return;
    }
    // Without a branch, which would have the verifier walk everything that follows twice.
    let failed = (result >> 63) as u32 & flag::FAILED;
    judged::<Tracepoint>(op, || (number(ctx), target(ctx) as u32), failed);
}

/// Judges a call with this number on this process (0: none).
#[inline(always)]
fn judged<E: EntryPoint>(op: Op, number_and_target: impl FnOnce() -> (u64, u32), flags: u32) -> Verdict {
    let Some(mut held) = judge::begin::<E>(CLASS, Lane::Process, op) else { return Verdict::Pass };
    let s = &mut *held;
    let (number, target) = number_and_target();
    s.event.header.number = number;
    s.event.header.target_pid = target;
    let own = kernel::process(kernel::current());
    let mut flags = flags;
    if target != 0 && target != own {
        flags |= flag::OTHER_PROCESS;
    }
    if op as u8 == Op::Unshare as u8 && number & CLONE_NEWUSER != 0 {
        flags |= flag::NEW_USER_NAMESPACE;
    }
    s.event.header.flags = flags;
    facets::flags(s, CLASS);
    let Some(defaults) = facets::defaults(s, CLASS) else { return Verdict::Pass };
    facets::number(s, CLASS, defaults, Facet::Number, number);
    facets::without_object(s, defaults);
    if !any(&s.hit) {
        return Verdict::Pass;
    }
    process::match_actor(s, CLASS, defaults);
    judge::settle::<E>(s, CLASS, Report::None)
}

/// Exits: the operation's own number, its target, and whether only success counts.
macro_rules! calls {
    ($($(#[$doc:meta])* $exit:ident: $op:ident($number:expr, $target:expr, $only_success:expr))*) => {
        $($(#[$doc])*
        #[tracepoint(category = "exit", name = "call")]
        pub fn $exit(ctx: TracePointContext) -> u32 {
            over(Op::$op, &ctx, $number, $target, $only_success);
            0
        })*
    };
}

/// Exit of ptrace(request, pid, ..). Where a hook judges who begins to trace, the request for that is not judged again.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_ptrace(ctx: TracePointContext) -> u32 {
    let request = argument_at_exit(&ctx, 0);
    if !kernel::tracing_judged_early() || (request != PTRACE_ATTACH && request != PTRACE_SEIZE) {
        over(Op::Ptrace, &ctx, |ctx| argument_at_exit(ctx, 0), |ctx| argument_at_exit(ctx, 1), true);
    }
    0
}

/// ptrace_access_check(process, mode): before a process begins to trace another one, or gets at its memory another way
/// (`process_vm_writev`, `/proc/PID/mem`, `pidfd_getfd`), which counts as the same.
#[lsm(hook = "---ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    /// Not only to look (`include/linux/ptrace.h`).
    const PTRACE_MODE_ATTACH: u64 = 2;
    unless_decided(&ctx, 2, || {
        if parameter(&ctx, 1) & PTRACE_MODE_ATTACH == 0 {
            return Verdict::Pass;
        }
        let other = parameter(&ctx, 0);
        judged::<SecurityHook>(Op::Ptrace, || (PTRACE_ATTACH, kernel::read(other, offset!(task_tgid))), 0)
    })
}

calls! {
    /// setns(fd, type)
    exit_setns: Setns(|ctx| argument_at_exit(ctx, 1), |_| 0, false)
    /// unshare(flags)
    exit_unshare: Unshare(|ctx| argument_at_exit(ctx, 0), |_| 0, false)
    /// memfd_create(name, flags)
    exit_memfd: Memfd(|ctx| argument_at_exit(ctx, 1), |_| 0, true)
    /// io_uring_setup(entries, parameters)
    exit_ring: Ring(|_| 0, |_| 0, true)
    /// bpf(command, ..)
    exit_bpf: Bpf(|ctx| argument_at_exit(ctx, 0), |_| 0, false)
    /// init_module, finit_module, delete_module
    exit_module: Module(|_| 0, |_| 0, false)
    /// kill(pid, signal)
    exit_kill: Kill(|ctx| argument_at_exit(ctx, 1), |ctx| argument_at_exit(ctx, 0), true)
    /// tgkill(tgid, tid, signal)
    exit_tgkill: Kill(|ctx| argument_at_exit(ctx, 2), |ctx| argument_at_exit(ctx, 0), true)
}

/// mount(source, target, type, flags, data): both are strings of the caller.
#[tracepoint(category = "enter", name = "call")]
pub fn enter_mount(ctx: TracePointContext) -> u32 {
    named(Op::MountSource, argument(&ctx, 0), SOURCE);
    named(Op::MountTarget, argument(&ctx, 1), TARGET);
    0
}

/// fsconfig(fd, command, key, value, aux): the new way to name a mount's source (5.2).
#[tracepoint(category = "enter", name = "call")]
pub fn enter_fsconfig(ctx: TracePointContext) -> u32 {
    const FSCONFIG_SET_STRING: u64 = 1;
    const FSCONFIG_SET_PATH: u64 = 3;
    let command = argument(&ctx, 1);
    if command == FSCONFIG_SET_STRING || command == FSCONFIG_SET_PATH {
        named(Op::MountSource, argument(&ctx, 3), SOURCE);
    }
    0
}

#[tracepoint(category = "exit", name = "call")]
pub fn exit_mount(ctx: TracePointContext) -> u32 {
    let failed = result(&ctx) < 0;
    settle_mount(SOURCE, failed);
    settle_mount(TARGET, failed);
    0
}

/// sb_mount(source, target, type, flags, data): before mount(2) makes or changes a mount. What does not come as far as
/// this has failed, and is judged at the call's exit; so is a source that fsconfig(2) names.
#[lsm(hook = "---sb_mount")]
pub fn sb_mount(ctx: LsmContext) -> i32 {
    unless_decided(&ctx, 5, || {
        let source = parameter(&ctx, 0);
        let Some(mut held) = judge::begin::<SecurityHook>(CLASS, Lane::Process, Op::MountSource) else {
            return Verdict::Pass;
        };
        let s = &mut *held;
        pending::forget(SOURCE);
        s.event.header.flags = flag::STRING_PATH;
        if !path::fetch_kernel(s, source) {
            return Verdict::Pass;
        }
        matched(s);
        facets::flags(s, CLASS);
        judge::settle::<SecurityHook>(s, CLASS, Report::Path)
    })
}

#[inline(always)]
fn named(op: Op, string: u64, which: u64) {
    if string == 0 {
        // A mount may have no source.
        return;
    }
    let Some(mut held) = judge::begin::<Tracepoint>(CLASS, Lane::Process, op) else { return };
    let s = &mut *held;
    s.event.header.flags = flag::STRING_PATH;
    let was_read = matched_string(s, string);
    pending::keep(which, s, if was_read { Unread::NOTHING } else { Unread::new(string, AT_FDCWD) });
}

/// Narrows by a caller's string, and by who asks. False: it could not be read.
#[inline(always)]
fn matched_string(s: &mut Scratch, string: u64) -> bool {
    if !path::fetch(s, string) {
        return false;
    }
    matched(s);
    true
}

/// Narrows by the string that was fetched, and by who asks.
#[inline(always)]
fn matched(s: &mut Scratch) {
    let Some(defaults) = facets::defaults(s, CLASS) else { return };
    path::join(s, AT_FDCWD);
    facets::string(s, CLASS, defaults);
    if !any(&s.hit) {
        return;
    }
    path::report(s);
    process::match_actor(s, CLASS, defaults);
}

#[inline(always)]
fn settle_mount(which: u64, failed: bool) {
    let Some(mut held) = scratch::hold(Lane::Process) else { return };
    let s = &mut *held;
    let Some(unread) = pending::take(which, s) else { return };
    if unread.string != 0 && !matched_string(s, unread.string) {
        // A call with a bad address fails.
        if !failed {
            judge::count(CLASS, Counter::Unreadable);
        }
        return;
    }
    if failed {
        s.event.header.flags |= flag::FAILED;
    }
    facets::flags(s, CLASS);
    judge::settle::<Tracepoint>(s, CLASS, Report::Path);
}
