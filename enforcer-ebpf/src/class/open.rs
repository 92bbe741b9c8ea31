//! Class open: a file was opened, or mapped executable. The path is always the kernel's own, of the file itself.

use super::{
    answer, argument_at_exit, as_decided, decided, decided_after, parameter, parameter_of_function, unless_decided,
};
use crate::{
    facets::{self, any},
    judge::{self, EntryPoint, Report, SecurityHook, Tracepoint, Verdict},
    kernel::{self, offset},
    object, process,
    scratch::{Lane, Scratch},
};
use aya_ebpf::{
    macros::{btf_tracepoint, lsm, tracepoint},
    programs::{BtfTracePointContext, LsmContext, TracePointContext},
};
use ringfence_abi::{Class, Op, Tier, flag};

const CLASS: Class = Class::Open;
const PROT_EXEC: u64 = 4;
/// The kernel's own: overlayfs opens a layer's file beside each of its own (`include/linux/fs.h`, since 4.19).
const FMODE_NOACCOUNT: u32 = 0x2000_0000;
/// Among a file's flags, and nobody but the kernel can set it: it is opened to be executed, which is class exec's.
const FMODE_EXEC: u32 = 0x20;

/// Exit of open, openat, openat2, creat, open_by_handle_at: the result is a descriptor.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_open(ctx: TracePointContext) -> u32 {
    let fd = super::result(&ctx);
    if fd >= 0 {
        opened::<Tracepoint>(|| process::file(fd as i32));
    }
    0
}

/// An open that was submitted through a ring is complete. Runs in the submitter or in a worker thread of its process:
/// either has its files. (A completion without an entry in the ring's queue is not seen.)
#[btf_tracepoint(function = "io_uring_complete")]
pub fn io_uring_complete(ctx: BtfTracePointContext) -> i32 {
    const IORING_OP_OPENAT: u8 = 18;
    const IORING_OP_OPENAT2: u8 = 28;
    let request: u64 = ctx.arg(1);
    let opcode: u8 = kernel::read(request, offset!(io_opcode));
    if opcode != IORING_OP_OPENAT && opcode != IORING_OP_OPENAT2 {
        return 0;
    }
    let fd: i32 = kernel::read(request, offset!(io_result));
    if fd >= 0 {
        opened::<Tracepoint>(|| process::file(fd));
    }
    0
}

/// Before an open takes effect.
#[lsm(hook = "---file_open")]
pub fn file_open(ctx: LsmContext) -> i32 {
    unless_decided(&ctx, 1, || {
        let file = parameter(&ctx, 0);
        let mode: u32 = kernel::read(file, offset!(file_mode));
        let asked: u32 = kernel::read(file, offset!(file_flags));
        if mode & FMODE_NOACCOUNT != 0 || asked & FMODE_EXEC != 0 {
            return Verdict::Pass;
        }
        opened::<SecurityHook>(|| file)
    })
}

/// Exit of mmap(address, length, protection, flags, fd, ..): the result is an address. What the kernel maps for an
/// execution does not pass here.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_mmap(ctx: TracePointContext) -> u32 {
    mapped_by_call(super::result(&ctx), |n| argument_at_exit(&ctx, n));
    0
}

/// Exit of the mmap(arguments) of 32-bit programs that takes all of these from memory (`struct mmap_arg_struct32`), where
/// another thread may have changed them since the kernel read them.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_old_mmap(ctx: TracePointContext) -> u32 {
    let arguments: [u32; 5] = kernel::words_of_caller(argument_at_exit(&ctx, 0));
    mapped_by_call(super::result(&ctx), |n| arguments[n] as u64);
    0
}

/// Asks for no more arguments than it takes to tell that a mapping is none of ours: most are not.
#[inline(always)]
fn mapped_by_call(result: i64, argument: impl Fn(usize) -> u64) {
    const MAP_ANONYMOUS: u64 = 0x20;
    const LAST_ERROR: i64 = -4095;
    let failed = (LAST_ERROR..0).contains(&result);
    if !failed && argument(2) & PROT_EXEC != 0 && argument(3) & MAP_ANONYMOUS == 0 {
        mapped::<Tracepoint>(|| process::file(argument(4) as i32));
    }
}

/// Before a mapping takes effect; also the kernel's own, for an execution.
#[lsm(hook = "---mmap_file")]
pub fn mmap_file(ctx: LsmContext) -> i32 {
    // The hook has the protection that was asked for and the one that is given, its function only the former.
    let (protection, before) = if kernel::hooks_are(Tier::Lsm) {
        (parameter(&ctx, 2), decided(&ctx, 4))
    } else {
        (parameter_of_function(&ctx, 1), decided_after(&ctx, 3))
    };
    if before != 0 {
        return as_decided(before);
    }
    let file = parameter(&ctx, 0);
    if file == 0 || protection & PROT_EXEC == 0 {
        return 0;
    }
    answer(mapped::<SecurityHook>(|| file))
}

/// A program may map itself: that it was started is judged elsewhere.
#[inline(always)]
fn mapped<E: EntryPoint>(file: impl FnOnce() -> u64) -> Verdict {
    let Some(mut held) = judge::begin::<E>(CLASS, Lane::Open, Op::Mmap) else { return Verdict::Pass };
    let s = &mut *held;
    let file = file();
    if file == 0 {
        return Verdict::Pass;
    }
    object::set(s, file);
    let program: u64 = kernel::read(process::executable(kernel::current()), offset!(file_inode));
    if s.object.inode == program {
        return Verdict::Pass;
    }
    let flags = object::flags(&s.object);
    matched::<E>(s, flags)
}

#[inline(always)]
fn opened<E: EntryPoint>(file: impl FnOnce() -> u64) -> Verdict {
    let Some(mut held) = judge::begin::<E>(CLASS, Lane::Open, Op::Open) else { return Verdict::Pass };
    let s = &mut *held;
    let file = file();
    if file == 0 {
        return Verdict::Pass;
    }
    object::set(s, file);
    let flags = object::flags(&s.object) | object::open_flags(file, s.object.inode);
    if flags & (flag::WRITE | flag::FROM_IMAGE | flag::REGULAR) == flag::WRITE | flag::FROM_IMAGE | flag::REGULAR {
        object::note_write(&s.object);
    }
    matched::<E>(s, flags)
}

/// Judges the file in `s.object`.
#[inline(always)]
fn matched<E: EntryPoint>(s: &mut Scratch, flags: u32) -> Verdict {
    s.event.header.flags = flags;
    facets::flags(s, CLASS);
    if !any(&s.hit) {
        return Verdict::Pass;
    }
    let Some(defaults) = facets::defaults(s, CLASS) else { return Verdict::Pass };
    facets::object(s, CLASS, defaults);
    if !any(&s.hit) {
        return Verdict::Pass;
    }
    process::match_actor(s, CLASS, defaults);
    judge::settle::<E>(s, CLASS, Report::File)
}
