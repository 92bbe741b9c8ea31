//! Class process: calls on other processes, namespaces, mounts, and the kernel itself. Judged at the exit, with
//! [`flag::FAILED`] where the call failed: for most of them the attempt says enough.

use super::{argument, pending, result};
use crate::{
    facets::{self, any},
    judge::{self, Report, Tracepoint},
    kernel, path, process,
    scratch::{self, Lane},
};
use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::tracepoint, programs::TracePointContext};
use ringfence_abi::{Class, Facet, Op, flag};

const CLASS: Class = Class::Process;
const CLONE_NEWUSER: u64 = 0x1000_0000;

/// Key of [`pending`]; a thread is in one of these calls at a time.
const CALL: u64 = 20;
/// Keys of the two paths of a mount.
const SOURCE: u64 = 2;
const TARGET: u64 = 3;

/// Keeps the call's numbers for the exit, for governed tasks.
#[inline(always)]
fn keep(number: u64, target: u64) {
    if crate::identity::current().is_some() {
        pending::keep(CALL, number, target);
    }
}

/// A call is over.
#[inline(always)]
fn over(op: Op, ctx: &TracePointContext, only_success: bool) {
    let Some(call) = pending::take(CALL) else { return };
    let failed = result(ctx) < 0;
    if failed && only_success {
        return;
    }
    let Some(mut held) = judge::begin::<Tracepoint>(CLASS, Lane::Process, op) else { return };
    let s = &mut *held;
    s.event.header.number = call.first;
    s.event.header.target_pid = call.second as u32;
    let own = (bpf_get_current_pid_tgid() >> 32) as u32;
    let mut flags = 0;
    if failed {
        flags |= flag::FAILED;
    }
    if call.second != 0 && call.second as u32 != own {
        flags |= flag::OTHER_PROCESS;
    }
    if op as u8 == Op::Unshare as u8 && call.first & CLONE_NEWUSER != 0 {
        flags |= flag::NEW_USER_NAMESPACE;
    }
    s.event.header.flags = flags;
    facets::flags(s, CLASS);
    facets::number(s, CLASS, Facet::Number, call.first);
    facets::without_object(s, CLASS);
    if !any(&s.hit) {
        return;
    }
    process::match_actor(s, CLASS);
    judge::settle::<Tracepoint>(s, CLASS, Report::None);
}

/// Pairs of entry and exit: what is kept, and whether only success counts.
macro_rules! calls {
    ($($(#[$doc:meta])* $enter:ident, $exit:ident: $op:ident($number:expr, $target:expr, $only_success:expr))*) => {
        $($(#[$doc])*
        #[tracepoint]
        pub fn $enter(ctx: TracePointContext) -> u32 {
            let (number, target): (fn(&TracePointContext) -> u64, fn(&TracePointContext) -> u64) = ($number, $target);
            keep(number(&ctx), target(&ctx));
            0
        }

        #[tracepoint]
        pub fn $exit(ctx: TracePointContext) -> u32 {
            over(Op::$op, &ctx, $only_success);
            0
        })*
    };
}

calls! {
    /// ptrace(request, pid, ..)
    enter_ptrace, exit_ptrace: Ptrace(|c| argument(c, 0), |c| argument(c, 1), true)
    /// setns(fd, type)
    enter_setns, exit_setns: Setns(|c| argument(c, 1), |_| 0, false)
    /// unshare(flags)
    enter_unshare, exit_unshare: Unshare(|c| argument(c, 0), |_| 0, false)
    /// memfd_create(name, flags)
    enter_memfd, exit_memfd: Memfd(|c| argument(c, 1), |_| 0, true)
    /// bpf(command, ..)
    enter_bpf, exit_bpf: Bpf(|c| argument(c, 0), |_| 0, false)
    /// init_module, finit_module, delete_module
    enter_module, exit_module: Module(|_| 0, |_| 0, false)
    /// kill(pid, signal)
    enter_kill, exit_kill: Kill(|c| argument(c, 1), |c| argument(c, 0), true)
    /// tgkill(tgid, tid, signal)
    enter_tgkill, exit_tgkill: Kill(|c| argument(c, 2), |c| argument(c, 0), true)
}

/// mount(source, target, type, flags, data): both are strings of the caller.
#[tracepoint]
pub fn enter_mount(ctx: TracePointContext) -> u32 {
    named(Op::MountSource, argument(&ctx, 0), SOURCE);
    named(Op::MountTarget, argument(&ctx, 1), TARGET);
    0
}

/// fsconfig(fd, command, key, value, aux): the new way to name a mount's source (5.2).
#[tracepoint]
pub fn enter_fsconfig(ctx: TracePointContext) -> u32 {
    const FSCONFIG_SET_STRING: u64 = 1;
    const FSCONFIG_SET_PATH: u64 = 3;
    let command = argument(&ctx, 1);
    if command == FSCONFIG_SET_STRING || command == FSCONFIG_SET_PATH {
        named(Op::MountSource, argument(&ctx, 3), SOURCE);
    }
    0
}

#[tracepoint]
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
