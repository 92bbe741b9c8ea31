//! Class change: names and attributes in a file system.
//!
//! Security hooks have the kernel's own path, whoever asks: a system call of 64 or 32 bits, or a ring. They come before
//! the kernel looks at the permissions of the directory: an attempt counts.
//!
//! Without them most calls carry only a path string: it is read once, at the entry, joined to the working directory or to
//! the directory descriptor, and normalised. Calls on a descriptor have the kernel's own path. Judged is what has
//! succeeded.

use super::{
    answer, argument, argument_at_exit, parameter, parameter_of_function,
    pending::{self, Unread},
    result, unless_decided,
};
use crate::{
    facets::{self, any},
    judge::{self, Report, SecurityHook, Tracepoint, Verdict},
    kernel::{self, get, offset},
    object, path, process,
    scratch::{self, Lane, Scratch},
};
use aya_ebpf::{
    macros::{lsm, tracepoint},
    programs::{LsmContext, TracePointContext},
};
use ringfence_abi::{Class, Counter, Facet, FacetDefaults, Op, Tier, flag};

const CLASS: Class = Class::Change;
const AT_FDCWD: i32 = -100;
const AT_REMOVEDIR: u64 = 0x200;
/// Two files change names (`include/uapi/linux/fs.h`).
const RENAME_EXCHANGE: u64 = 2;

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
}

/// Judges one path of a call as far as can be told before it.
#[inline(always)]
fn named(change: Change) {
    let Some(mut held) = judge::begin::<Tracepoint>(CLASS, Lane::Change, change.op) else { return };
    let s = &mut *held;
    s.event.header.number = change.number;
    s.event.header.flags = change.flags;
    rf_named(s.index, change.path, change.at as u32, change.which);
}

/// Matches a caller's path, and keeps it for the exit if lines are left, or if it can't be read yet. Verified by itself: most
/// calls have two paths.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_named(index: u32, path: u64, at: u32, which: u64) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    if path == 0 {
        // The call fails.
        return 0;
    }
    let was_read = rf_string(index, path, at) != 0;
    pending::keep(which, s, if was_read { Unread::NOTHING } else { Unread::new(path, at as i32) });
    0
}

/// Narrows by a caller's string, and by who asks. 0: it could not be read. Verified by itself: asked at the entry and at the
/// exit.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_string(index: u32, string: u64, at: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 0 };
    if !path::fetch(s, string) {
        return 0;
    }
    let Some(defaults) = facets::defaults(s, CLASS) else { return 0 };
    let file = if follows(get(&raw const s.event.header.op)) { process::file(path::own_descriptor(s)) } else { 0 };
    if file != 0 {
        object::set(s, file);
        let asked = s.event.header.flags;
        matched(s, defaults, asked);
        if any(&s.hit) {
            Report::File.object(s);
        }
    } else {
        s.event.header.flags |= flag::STRING_PATH;
        facets::flags(s, CLASS);
        if any(&s.hit) {
            path::join(s, at as i32);
            facets::string(s, CLASS, defaults);
        }
        if any(&s.hit) {
            path::report(s);
        }
    }
    if any(&s.hit) {
        by_whom(s, defaults);
    }
    1
}

/// Whether the call follows a symbolic link at the end of the path.
#[inline(always)]
fn follows(op: u8) -> bool {
    op == Op::Chmod as u8 || op == Op::Truncate as u8
}

/// Narrows by the number, and by who asks.
#[inline(always)]
fn by_whom(s: &mut Scratch, defaults: &FacetDefaults) {
    facets::number(s, CLASS, defaults, Facet::Number, s.event.header.number);
    process::match_actor(s, CLASS, defaults);
}

/// Narrows by the object, of which everything is known.
#[inline(always)]
fn matched(s: &mut Scratch, defaults: &FacetDefaults, flags: u32) {
    // A name that is yet to come has no file. The mode asked for counts here, not the one that is there.
    let there = if s.object.inode == 0 { 0 } else { object::flags(&s.object) & !(flag::EXECUTABLE | flag::SETUID) };
    s.event.header.flags = flags | there;
    facets::flags(s, CLASS);
    if any(&s.hit) {
        facets::object(s, CLASS, defaults);
    }
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
    object::set(s, file);
    judged::<Tracepoint>(s, flags, number);
}

/// Judges what is done to the object.
#[inline(always)]
fn judged<E: judge::EntryPoint>(s: &mut Scratch, flags: u32, number: u64) -> Verdict {
    s.event.header.number = number;
    let Some(defaults) = facets::defaults(s, CLASS) else { return Verdict::Pass };
    matched(s, defaults, flags);
    if !any(&s.hit) {
        return Verdict::Pass;
    }
    by_whom(s, defaults);
    judge::settle::<E>(s, CLASS, Report::File)
}

/// Judges what is asked for a name in a directory (a `struct path`).
#[inline(always)]
fn asked(op: Op, directory: u64, dentry: u64) -> Verdict {
    let Some(mut held) = judge::begin::<SecurityHook>(CLASS, Lane::Change, op) else { return Verdict::Pass };
    let s = &mut *held;
    object::set_name(s, directory, dentry);
    if rf_asked(s.index) != 0 { Verdict::Stop } else { Verdict::Pass }
}

/// Judges what is asked for the object. 1: it must not be. Verified by itself: a rename asks up to four times.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_asked(index: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 0 };
    (judged::<SecurityHook>(s, 0, 0) == Verdict::Stop) as u32
}

/// Security hooks on one name in a directory: `hook: op, parameters`. The first two are the directory and the name.
macro_rules! names {
    ($($hook:literal $name:ident: $op:ident, $parameters:literal)*) => {
        $(#[doc = concat!("Before the kernel does it: the hook `", stringify!($name), "`.")]
        #[lsm(hook = $hook)]
        pub fn $name(ctx: LsmContext) -> i32 {
            unless_decided(&ctx, $parameters, || asked(Op::$op, parameter(&ctx, 0), parameter(&ctx, 1)))
        })*
    };
}

names! {
    "---path_unlink" path_unlink: Unlink, 2
    "---path_mkdir" path_mkdir: Mkdir, 3
}

/// path_rename(old directory, old name, new directory, new name, flags): the hook got the flags in 5.19, its function
/// always had them. Of names that are exchanged each is a new one.
#[lsm(hook = "---path_rename")]
pub fn path_rename(ctx: LsmContext) -> i32 {
    let parameters = if kernel::hooks_are(Tier::Lsm) { offset!(rename_parameters) } else { 5 };
    if super::decided_after(&ctx, parameters) != 0 {
        // Not what was decided itself: read from a place that differs, that is any number to the verifier, and since 7.x
        // only a refusal may be returned.
        return kernel::refusal();
    }
    let flags = if parameters == 5 { parameter_of_function(&ctx, 4) } else { 0 };
    let (old_directory, old) = (parameter(&ctx, 0), parameter(&ctx, 1));
    let (new_directory, new) = (parameter(&ctx, 2), parameter(&ctx, 3));
    let verdict = renamed(old_directory, old, new_directory, new);
    if flags & RENAME_EXCHANGE == 0 {
        return answer(verdict);
    }
    answer(verdict.and(renamed(new_directory, new, old_directory, old)))
}

#[inline(always)]
fn renamed(old_directory: u64, old: u64, new_directory: u64, new: u64) -> Verdict {
    asked(Op::RenameFrom, old_directory, old).and(asked(Op::RenameTo, new_directory, new))
}

/// path_link(old name, new directory, new name). The old name is on the new one's mount: the kernel has seen to that.
#[lsm(hook = "---path_link")]
pub fn path_link(ctx: LsmContext) -> i32 {
    unless_decided(&ctx, 3, || {
        let (old, directory, new) = (parameter(&ctx, 0), parameter(&ctx, 1), parameter(&ctx, 2));
        asked(Op::LinkFrom, directory, old).and(asked(Op::LinkTo, directory, new))
    })
}

/// path_symlink(directory, name, text)
#[lsm(hook = "---path_symlink")]
pub fn path_symlink(ctx: LsmContext) -> i32 {
    unless_decided(&ctx, 3, || {
        let (directory, name, text) = (parameter(&ctx, 0), parameter(&ctx, 1), parameter(&ctx, 2));
        symlink_target(directory, text).and(asked(Op::Symlink, directory, name))
    })
}

#[inline(always)]
fn symlink_target(directory: u64, text: u64) -> Verdict {
    let Some(mut held) = judge::begin::<SecurityHook>(CLASS, Lane::Change, Op::SymlinkTarget) else {
        return Verdict::Pass;
    };
    let s = &mut *held;
    if !path::fetch_kernel(s, text) {
        return Verdict::Pass;
    }
    s.event.header.flags = flag::STRING_PATH;
    facets::flags(s, CLASS);
    if !any(&s.hit) {
        return Verdict::Pass;
    }
    let Some(defaults) = facets::defaults(s, CLASS) else { return Verdict::Pass };
    path::join_to(s, kernel::read(directory, offset!(path_dentry)), kernel::read(directory, offset!(path_mnt)));
    facets::string(s, CLASS, defaults);
    if !any(&s.hit) {
        return Verdict::Pass;
    }
    path::report(s);
    process::match_actor(s, CLASS, defaults);
    judge::settle::<SecurityHook>(s, CLASS, Report::Path)
}

/// path_chmod(path, mode)
#[lsm(hook = "---path_chmod")]
pub fn path_chmod(ctx: LsmContext) -> i32 {
    unless_decided(&ctx, 2, || {
        let (path, mode) = (parameter(&ctx, 0), parameter(&ctx, 1) as u16);
        let Some(mut held) = judge::begin::<SecurityHook>(CLASS, Lane::Change, Op::Chmod) else { return Verdict::Pass };
        let s = &mut *held;
        object::set_path(s, path);
        judged::<SecurityHook>(s, object::mode_flags(mode), mode as u64)
    })
}

/// Exit of every call with a path: what was kept has happened, or not.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_change(ctx: TracePointContext) -> u32 {
    let succeeded = result(&ctx) >= 0;
    rf_settle(0, succeeded as u32);
    rf_settle(1, succeeded as u32);
    0
}

/// Exit of renameat2, which may exchange two names.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_renameat2(ctx: TracePointContext) -> u32 {
    let succeeded = result(&ctx) >= 0;
    rf_settle(0, succeeded as u32);
    rf_settle(1, succeeded as u32);
    rf_settle(EXCHANGED, succeeded as u32);
    rf_settle(EXCHANGED + 1, succeeded as u32);
    0
}

/// Keys of the two paths of an exchange the other way round. (2 and 3 are a mount's.)
const EXCHANGED: u64 = 4;

/// Verified by itself: calls have two paths, or four.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_settle(which: u64, succeeded: u32) -> u32 {
    let Some(mut held) = scratch::hold(Lane::Change) else { return 1 };
    let s = &mut *held;
    let Some(unread) = pending::take(which, s) else { return 0 };
    if succeeded == 0 {
        return 0;
    }
    if unread.string != 0 && rf_string(s.index, unread.string, unread.at as u32) == 0 {
        judge::count(CLASS, Counter::Unreadable);
        return 0;
    }
    judge::settle::<Tracepoint>(s, CLASS, Report::Path);
    0
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
    Change { op, at, path, flags: 0, number: 0, which }
}

#[inline(always)]
fn mode(at: i32, path: u64, mode: u64) -> Change {
    Change { op: Op::Chmod, at, path, flags: object::mode_flags(mode as u16), number: mode, which: 0 }
}

/// unlinkat(dirfd, path, flags): of files, as unlink is.
#[tracepoint(category = "enter", name = "call")]
pub fn enter_unlinkat(ctx: TracePointContext) -> u32 {
    if argument(&ctx, 2) & AT_REMOVEDIR == 0 {
        named(plain(Op::Unlink, at(&ctx, 0), argument(&ctx, 1), 0));
    }
    0
}

/// renameat2(olddirfd, old, newdirfd, new, flags)
#[tracepoint(category = "enter", name = "call")]
pub fn enter_renameat2(ctx: TracePointContext) -> u32 {
    named(plain(Op::RenameFrom, at(&ctx, 0), argument(&ctx, 1), 0));
    named(plain(Op::RenameTo, at(&ctx, 2), argument(&ctx, 3), 1));
    if argument(&ctx, 4) & RENAME_EXCHANGE != 0 {
        named(plain(Op::RenameFrom, at(&ctx, 2), argument(&ctx, 3), EXCHANGED));
        named(plain(Op::RenameTo, at(&ctx, 0), argument(&ctx, 1), EXCHANGED + 1));
    }
    0
}

entries! {
    /// unlink(path)
    enter_unlink(ctx) { plain(Op::Unlink, AT_FDCWD, argument(&ctx, 0), 0) }
    /// rename(old, new)
    enter_rename(ctx) {
        plain(Op::RenameFrom, AT_FDCWD, argument(&ctx, 0), 0),
        plain(Op::RenameTo, AT_FDCWD, argument(&ctx, 1), 1),
    }
    /// renameat(olddirfd, old, newdirfd, new)
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
