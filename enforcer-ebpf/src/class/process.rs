//! Class process: calls on other processes, namespaces, mounts, and the kernel itself. Judged at the exit, with
//! [`flag::FAILED`] where the call failed: for most of them the attempt says enough.

use super::{argument, argument_at_exit, pending, result};
use crate::{
    facets::{self, any},
    judge::{self, Report, Tracepoint},
    kernel, path, process,
    scratch::{self, Lane},
};
use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use ringfence_abi::{Class, Facet, Op, flag};

const CLASS: Class = Class::Process;
const CLONE_NEWUSER: u64 = 0x1000_0000;

/// Keys of the two paths of a mount.
const SOURCE: u64 = 2;
const TARGET: u64 = 3;

/// What a call was about, read from what the program is handed.
type Read = fn(&TracePointContext) -> u64;

/// A call is over. What it was about, and on which process (0: none).
#[inline(always)]
fn over(op: Op, ctx: &TracePointContext, number: Read, target: Read, only_success: bool) {
    let failed = result(ctx) < 0;
    if failed && only_success {
        return;
    }
    let Some(mut held) = judge::begin::<Tracepoint>(CLASS, Lane::Process, op) else { return };
    let s = &mut *held;
    let (number, target) = (number(ctx), target(ctx) as u32);
    s.event.header.number = number;
    s.event.header.target_pid = target;
    let own = kernel::process(kernel::current());
    let mut flags = 0;
    if failed {
        flags |= flag::FAILED;
    }
    if target != 0 && target != own {
        flags |= flag::OTHER_PROCESS;
    }
    if op as u8 == Op::Unshare as u8 && number & CLONE_NEWUSER != 0 {
        flags |= flag::NEW_USER_NAMESPACE;
    }
    s.event.header.flags = flags;
    facets::flags(s, CLASS);
    facets::number(s, CLASS, Facet::Number, number);
    facets::without_object(s, CLASS);
    if !any(&s.hit) {
        return;
    }
    process::match_actor(s, CLASS);
    judge::settle::<Tracepoint>(s, CLASS, Report::None);
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

calls! {
    /// ptrace(request, pid, ..)
    exit_ptrace: Ptrace(|ctx| argument_at_exit(ctx, 0), |ctx| argument_at_exit(ctx, 1), true)
    /// setns(fd, type)
    exit_setns: Setns(|ctx| argument_at_exit(ctx, 1), |_| 0, false)
    /// unshare(flags)
    exit_unshare: Unshare(|ctx| argument_at_exit(ctx, 0), |_| 0, false)
    /// memfd_create(name, flags)
    exit_memfd: Memfd(|ctx| argument_at_exit(ctx, 1), |_| 0, true)
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

#[inline(always)]
fn named(op: Op, string: u64, which: u64) {
    let Some(mut held) = judge::begin::<Tracepoint>(CLASS, Lane::Process, op) else { return };
    let s = &mut *held;
    s.event.header.flags = flag::STRING_PATH;
    if !path::fetch(s, string) {
        return;
    }
    path::join(s, -100);
    facets::string(s, CLASS);
    if !any(&s.hit) {
        return;
    }
    kernel::copy_bytes(&mut s.event.path, s.path.as_ptr());
    s.event.header.path_len = s.len as u16;
    process::match_actor(s, CLASS);
    pending::keep_judged(which, s);
}

#[inline(always)]
fn settle_mount(which: u64, failed: bool) {
    let Some(mut held) = scratch::hold(Lane::Process) else { return };
    let s = &mut *held;
    if !pending::take_judged(which, s) {
        return;
    }
    if failed {
        s.event.header.flags |= flag::FAILED;
    }
    facets::flags(s, CLASS);
    judge::settle::<Tracepoint>(s, CLASS, Report::Path);
}
