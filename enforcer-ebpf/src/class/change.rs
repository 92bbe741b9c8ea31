//! Class change: names and attributes in a file system.
//!
//! On this tier most of these calls carry only a path string: it is read once, at the entry, joined to the working
//! directory or to the directory descriptor, and normalised. Calls on a descriptor have the kernel's own path.
//! Judged is what has succeeded.

use super::{argument, argument_at_exit, pending, result};
use crate::{
    facets::{self, any},
    judge::{self, Report, Tracepoint},
    kernel, object, path, process,
    scratch::{self, Lane, Scratch},
};
use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use ringfence_abi::{Class, Op, Role, flag};

const CLASS: Class = Class::Change;
const AT_FDCWD: i32 = -100;

/// One path of a call.
struct Change {
    op: Op,
    /// Directory descriptor that a relative path starts from.
    at: i32,
    /// Where the caller's string is.
    path: u64,
    /// Flags of what is asked for.
    flags: u32,
    number: u64,
    /// First or second path of the call.
    which: u64,
    /// Whether the call follows a symbolic link at the end of the path.
    follows: bool,
}

/// Matches a caller's path, and keeps it for the exit if lines are left.
#[inline(always)]
fn named(change: Change) {
    let Some(mut held) = judge::begin::<Tracepoint>(CLASS, Lane::Change, change.op) else { return };
    let s = &mut *held;
    if !path::fetch(s, change.path) {
        return;
    }
    s.event.header.number = change.number;
    let file = if change.follows { process::file(path::own_descriptor(s)) } else { 0 };
    if file != 0 {
        matched(s, file, change.flags);
        if !any(&s.hit) {
            return;
        }
        Report::File.object(s);
    } else {
        s.event.header.flags = change.flags | flag::STRING_PATH;
        facets::flags(s, CLASS);
        if !any(&s.hit) {
            return;
        }
        path::join(s, change.at);
        facets::string(s, CLASS);
        if !any(&s.hit) {
            return;
        }
        kernel::copy_bytes(&mut s.event.path, s.path.as_ptr());
        s.event.header.path_len = s.len as u16;
    }
    facets::number(s, CLASS, ringfence_abi::Facet::Number, change.number);
    process::match_actor(s, CLASS);
    pending::keep_judged(change.which, s);
}

/// Narrows by a file of which everything is known.
#[inline(always)]
fn matched(s: &mut Scratch, file: u64, flags: u32) {
    object::set(s, file);
    // The mode asked for counts here, not the one that is there.
    let there = object::flags(&s.object) & !(flag::EXECUTABLE | flag::SETUID);
    s.event.header.flags = flags | there;
    facets::flags(s, CLASS);
    if !any(&s.hit) {
        return;
    }
    let (dentry, mnt, sb) = (s.object.dentry, s.object.mnt, s.object.sb);
    facets::file(s, CLASS, Role::Object, dentry, mnt, sb);
}

/// Judges a call on a descriptor that has succeeded.
#[inline(always)]
fn described(op: Op, fd: i32, flags: u32, number: u64) {
    let Some(mut held) = judge::begin::<Tracepoint>(CLASS, Lane::Change, op) else { return };
    let s = &mut *held;
    let file = process::file(fd);
    if file == 0 {
        return;
    }
    s.event.header.number = number;
    matched(s, file, flags);
    if !any(&s.hit) {
        return;
    }
    facets::number(s, CLASS, ringfence_abi::Facet::Number, number);
    process::match_actor(s, CLASS);
    judge::settle::<Tracepoint>(s, CLASS, Report::File);
}

/// Exit of every call with a path: what was kept has happened, or not.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_change(ctx: TracePointContext) -> u32 {
    let succeeded = result(&ctx) >= 0;
    settle(0, succeeded);
    settle(1, succeeded);
    0
}

#[inline(always)]
fn settle(which: u64, succeeded: bool) {
    let Some(mut held) = scratch::hold(Lane::Change) else { return };
    let s = &mut *held;
    if pending::take_judged(which, s) && succeeded {
        judge::settle::<Tracepoint>(s, CLASS, Report::Path);
    }
}

/// Entry points: `name: op (directory descriptor | none, path) flags number`, several paths a call.
macro_rules! entries {
    ($($(#[$doc:meta])* $name:ident($ctx:ident) { $($change:expr),* $(,)? })*) => {
        $($(#[$doc])*
        #[tracepoint(category = "enter", name = "call")]
        pub fn $name($ctx: TracePointContext) -> u32 {
            $(named($change);)*
            0
        })*
    };
}

#[inline(always)]
fn at(ctx: &TracePointContext, n: usize) -> i32 {
    argument(ctx, n) as i32
}

#[inline(always)]
fn plain(op: Op, at: i32, path: u64, which: u64) -> Change {
    Change { op, at, path, flags: 0, number: 0, which, follows: false }
}

#[inline(always)]
fn mode(at: i32, path: u64, mode: u64) -> Change {
    Change { op: Op::Chmod, at, path, flags: object::mode_flags(mode as u16), number: mode, which: 0, follows: true }
}

entries! {
    /// unlink(path)
    enter_unlink(ctx) { plain(Op::Unlink, AT_FDCWD, argument(&ctx, 0), 0) }
    /// unlinkat(dirfd, path, flags)
    enter_unlinkat(ctx) { plain(Op::Unlink, at(&ctx, 0), argument(&ctx, 1), 0) }
    /// rename(old, new)
    enter_rename(ctx) {
        plain(Op::RenameFrom, AT_FDCWD, argument(&ctx, 0), 0),
        plain(Op::RenameTo, AT_FDCWD, argument(&ctx, 1), 1),
    }
    /// renameat(olddirfd, old, newdirfd, new), renameat2(.., flags)
    enter_renameat(ctx) {
        plain(Op::RenameFrom, at(&ctx, 0), argument(&ctx, 1), 0),
        plain(Op::RenameTo, at(&ctx, 2), argument(&ctx, 3), 1),
    }
    /// link(old, new)
    enter_link(ctx) {
        plain(Op::LinkFrom, AT_FDCWD, argument(&ctx, 0), 0),
        plain(Op::LinkTo, AT_FDCWD, argument(&ctx, 1), 1),
    }
    /// linkat(olddirfd, old, newdirfd, new, flags)
    enter_linkat(ctx) {
        plain(Op::LinkFrom, at(&ctx, 0), argument(&ctx, 1), 0),
        plain(Op::LinkTo, at(&ctx, 2), argument(&ctx, 3), 1),
    }
    /// symlink(target, new)
    enter_symlink(ctx) {
        plain(Op::SymlinkTarget, AT_FDCWD, argument(&ctx, 0), 0),
        plain(Op::Symlink, AT_FDCWD, argument(&ctx, 1), 1),
    }
    /// symlinkat(target, newdirfd, new)
    enter_symlinkat(ctx) {
        plain(Op::SymlinkTarget, at(&ctx, 1), argument(&ctx, 0), 0),
        plain(Op::Symlink, at(&ctx, 1), argument(&ctx, 2), 1),
    }
    /// chmod(path, mode)
    enter_chmod(ctx) { mode(AT_FDCWD, argument(&ctx, 0), argument(&ctx, 1)) }
    /// fchmodat(dirfd, path, mode), fchmodat2(.., flags)
    enter_fchmodat(ctx) { mode(at(&ctx, 0), argument(&ctx, 1), argument(&ctx, 2)) }
    /// truncate(path, length)
    enter_truncate(ctx) {
        Change {
            op: Op::Truncate,
            at: AT_FDCWD,
            path: argument(&ctx, 0),
            flags: 0,
            number: argument(&ctx, 1),
            which: 0,
            follows: true,
        }
    }
    /// mkdir(path, mode)
    enter_mkdir(ctx) { plain(Op::Mkdir, AT_FDCWD, argument(&ctx, 0), 0) }
    /// mkdirat(dirfd, path, mode)
    enter_mkdirat(ctx) { plain(Op::Mkdir, at(&ctx, 0), argument(&ctx, 1), 0) }
}

/// Exit of fchmod(fd, mode).
#[tracepoint(category = "exit", name = "call")]
pub fn exit_fchmod(ctx: TracePointContext) -> u32 {
    if result(&ctx) == 0 {
        let mode = argument_at_exit(&ctx, 1);
        described(Op::Chmod, argument_at_exit(&ctx, 0) as i32, object::mode_flags(mode as u16), mode);
    }
    0
}

/// Exit of ftruncate(fd, length).
#[tracepoint(category = "exit", name = "call")]
pub fn exit_ftruncate(ctx: TracePointContext) -> u32 {
    if result(&ctx) == 0 {
        described(Op::Truncate, argument_at_exit(&ctx, 0) as i32, 0, argument_at_exit(&ctx, 1));
    }
    0
}
