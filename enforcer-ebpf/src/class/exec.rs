//! Class exec: a program is started.

use super::{parameter, unless_decided};
use crate::{
    facets::{self, any},
    identity::{self, ENTERING},
    judge::{self, EntryPoint, Report, SecurityHook, Tracepoint, Verdict},
    kernel::{self, offset, read},
    object, path, process,
    scratch::{self, Lane},
    socket,
};
use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel_str,
    macros::{btf_tracepoint, lsm},
    programs::{BtfTracePointContext, LsmContext},
};
use ringfence_abi::{Class, Facet, Op, flag};

const CLASS: Class = Class::Exec;

/// After the new program is in place, before its first instruction.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    let binprm: u64 = ctx.arg(2);
    let stage = match rf_whose_life() {
        life::RUNTIME => return 0,
        // Nobody has judged it when it was asked for: then it was the runtime's.
        life::FIRST => Stage::First,
        _ => Stage::Started,
    };
    started::<Tracepoint>(binprm, stage);
    invoked(binprm);
    0
}

/// Before the new program is in place; for a script once for the script and once for its interpreter. Of LSM programs
/// alone: who can't deny loses nothing by waiting for [`sched_process_exec`], and knows the arguments there.
#[lsm(hook = "bprm_check_security")]
pub fn bprm_check_security(ctx: LsmContext) -> i32 {
    unless_decided(&ctx, 1, || started::<SecurityHook>(parameter(&ctx, 0), Stage::Asked))
}

/// Whose program a process begins with an execution: one of the `life` numbers. Verified by itself, so that its
/// branches are not multiplied with those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_whose_life() -> u32 {
    let task = kernel::current();
    let tgid = kernel::process(task);
    // SAFETY: copied at once.
    let Some(from) = (unsafe { ENTERING.get(&tgid) }).copied() else { return life::INSIDE };
    if identity::mount_namespace(task) == from {
        return life::RUNTIME;
    }
    let _ = ENTERING.remove(&tgid);
    life::FIRST
}

/// What [`rf_whose_life`] tells.
mod life {
    /// The runtime's own init, on its way in: runc starts itself anew, from a sealed memfd.
    pub const RUNTIME: u32 = 0;
    /// The first in another mount namespace than the mover's: the container's own life begins.
    pub const FIRST: u32 = 1;
    /// Any later one.
    pub const INSIDE: u32 = 2;
}

/// Where in an execution the hook sits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has happened yet: neither arguments nor the new name are there.
    Asked,
    /// Everything is known. What was decided when asked is left out.
    Started,
    /// Everything is known, and nothing was asked.
    First,
}

#[inline(always)]
fn started<E: EntryPoint>(binprm: u64, stage: Stage) -> Verdict {
    let Some(mut held) = judge::begin::<E>(CLASS, Lane::Exec, Op::Exec) else { return Verdict::Pass };
    let s = &mut *held;
    match stage {
        Stage::Asked => facets::drop_caring(s, CLASS, Facet::Arg),
        Stage::Started if kernel::exec_judged_early() => {
            rf_keep_undecided(s.index);
        }
        Stage::Started | Stage::First => {}
    }
    object::set(s, read(binprm, offset!(binprm_file)));
    s.event.header.flags = object::flags(&s.object);
    facets::home_flags(s, CLASS);
    if !any(&s.hit) {
        return Verdict::Pass;
    }
    let Some(defaults) = facets::defaults(s, CLASS) else { return Verdict::Pass };
    let (dentry, mnt, sb) = (s.object.dentry, s.object.mnt, s.object.sb);
    let looked_up = facets::look_up_object(s, CLASS, defaults, dentry, mnt, sb);
    if stage != Stage::Asked {
        let task = kernel::current();
        if looked_up {
            if stage == Stage::Started && kernel::exec_judged_early() {
                rf_drop_decided(s.index);
            }
            // The name it was started by: the kernel has made it the task's (first 15 bytes).
            kernel::zero(&mut s.name_key.name);
            // SAFETY: `comm` has 16 bytes, the name more.
            unsafe {
                bpf_probe_read_kernel_str(
                    s.name_key.name.as_mut_ptr().cast(),
                    16,
                    task.wrapping_add(offset!(task_comm) as u64) as *const _,
                );
            }
            facets::add_object_name(s, CLASS as u8);
        }
        if looked_up || facets::cares(s, defaults, Facet::Arg) {
            process::fetch_arguments(s, task);
            let names = match (looked_up, is_multi_call(dentry)) {
                (false, _) => 0,
                (true, false) => 1,
                (true, true) => 2,
            };
            process::look_up_arguments(s, CLASS, defaults, names);
            if process::arguments_are_cut(s) {
                rf_leave_open(s.index, names as u32);
            }
            facets::end_list(s);
        }
    }
    if looked_up {
        facets::found(s);
    }
    // Few programs come here: what takes long to find out is asked last.
    if any(&s.hit) {
        rf_circumstances(s.index);
        facets::other_flags(s, CLASS);
    }
    if any(&s.hit) {
        process::match_ancestry(s, CLASS, defaults, kernel::current());
    }
    if stage == Stage::Asked && any(&s.hit) {
        s.event.header.args_len = 0;
    }
    if stage == Stage::Asked || !process::arguments_are_cut(s) {
        return judge::settle::<E>(s, CLASS, Report::File);
    }
    facets::set_candidates_apart(s);
    let verdict = judge::settle::<E>(s, CLASS, Report::File);
    rf_propose(s.index, 1);
    verdict
}

/// [`facets::leave_open`], verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_leave_open(index: u32, names: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    let name_is_open = process::name_is_open(s, names);
    facets::leave_open(s, CLASS, names != 0, name_is_open);
    0
}

/// [`judge::propose`], verified by itself. `file` other than 0: the record's path is that of the file in `s.object`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_propose(index: u32, file: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    judge::propose(s, CLASS, if file != 0 { Report::File } else { Report::Path });
    0
}

/// What was judged when it was asked for is left out: only lines that look at what was not known then stay, arguments
/// and the names that the caller gave. Verified by itself, as [`rf_whose_life`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_keep_undecided(index: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    facets::keep_caring(s, CLASS, Facet::Arg, Facet::ObjectName);
    0
}

/// Of those, the lines that the file's own name (in `s.found`) was enough for are left out too.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_drop_decided(index: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    facets::drop_named(s, CLASS, Facet::Arg);
    0
}

/// For a script: the name that the caller gave, as a path of the caller's making.
#[inline(always)]
fn invoked(binprm: u64) {
    let filename: u64 = read(binprm, offset!(binprm_filename));
    let interpreter: u64 = read(binprm, offset!(binprm_interp));
    if filename == interpreter {
        return;
    }
    let Some(mut held) = judge::begin::<Tracepoint>(CLASS, Lane::Exec, Op::Script) else { return };
    let s = &mut *held;
    if !path::fetch_kernel(s, filename) {
        return;
    }
    s.event.header.flags |= flag::STRING_PATH;
    rf_circumstances(s.index);
    facets::flags(s, CLASS);
    if !any(&s.hit) {
        return;
    }
    let Some(defaults) = facets::defaults(s, CLASS) else { return };
    path::join(s, -100);
    facets::string(s, CLASS, defaults);
    path::report(s);
    if any(&s.hit) {
        let task = kernel::current();
        process::match_ancestry(s, CLASS, defaults, task);
        process::fetch_arguments(s, task);
        process::look_up_arguments(s, CLASS, defaults, 0);
        if process::arguments_are_cut(s) {
            rf_leave_open(s.index, 0);
        }
        facets::end_list(s);
    }
    if !process::arguments_are_cut(s) {
        judge::settle::<Tracepoint>(s, CLASS, Report::Path);
        return;
    }
    facets::set_candidates_apart(s);
    judge::settle::<Tracepoint>(s, CLASS, Report::Path);
    rf_propose(s.index, 0);
}

/// Flags of the process. Verified by itself: its many branches would each be followed to the end of the program (6.1
/// gives up at a million instructions).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_circumstances(index: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    let task = kernel::current();
    let slot = s.event.header.slot;
    let mut flags = process::terminal_flag(task) | process::entry_flag(slot, task);
    if socket::leads_out(socket::of_descriptor(0))
        || socket::leads_out(socket::of_descriptor(1))
        || socket::leads_out(socket::of_descriptor(2))
    {
        flags |= flag::STDIO_SOCKET;
    }
    s.event.header.flags |= flags;
    0
}

/// Whether the file is a program that is many.
#[inline(always)]
fn is_multi_call(dentry: u64) -> bool {
    let name: u64 = read(dentry, offset!(dentry_name) + 8);
    process::is_multi_call(read(name, 0))
}
