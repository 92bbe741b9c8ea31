//! The acting process: its executable, its parents, its arguments, its terminal.

use crate::{
    facets, identity,
    kernel::{self, get, offset, put, read},
    object, path,
    scratch::{self, Scratch},
};
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use ringfence_abi::{ANCESTORS, CANDIDATE_ARGS, Class, EVENT_ANCESTORS, EVENT_ARGS, Facet, FacetDefaults, Role, flag};

/// The executable's file of a task; 0: a kernel thread or a dying process.
#[inline(always)]
pub fn executable(task: u64) -> u64 {
    let mm: u64 = read(task, offset!(task_mm));
    read(mm, offset!(mm_exe))
}

#[inline(always)]
pub fn parent(task: u64) -> u64 {
    read(task, offset!(task_real_parent))
}

/// Narrows by an executable, seen as `role`. The task is found only if a line that is still possible looks at it.
#[inline(always)]
fn match_executable(s: &mut Scratch, class: Class, defaults: &FacetDefaults, role: Role, task: impl FnOnce() -> u64) {
    if !facets::cares_for_file(s, defaults, role) {
        return;
    }
    let file = executable(task());
    let dentry: u64 = read(file, offset!(file_dentry));
    let inode: u64 = read(file, offset!(file_inode));
    let sb: u64 = read(inode, offset!(inode_sb));
    facets::file(s, class, defaults, role, dentry, read(file, offset!(file_mnt)), sb);
}

/// Narrows by who acts: the executable, the parent's, the ancestors'.
#[inline(always)]
pub fn match_actor(s: &mut Scratch, class: Class, defaults: &FacetDefaults) {
    let task = kernel::current();
    match_executable(s, class, defaults, Role::Exe, || task);
    match_ancestry(s, class, defaults, task);
}

/// Narrows by the parent's and the ancestors' executables.
#[inline(always)]
pub fn match_ancestry(s: &mut Scratch, class: Class, defaults: &FacetDefaults, task: u64) {
    match_executable(s, class, defaults, Role::Parent, || parent(task));
    for (role, facet) in [(Role::Ancestor, Facet::AncestorName), (Role::NoAncestor, Facet::NoAncestorName)] {
        if facets::cares(s, defaults, facet) {
            facets::begin(s, defaults, facet);
            put(&raw mut s.ancestor, task);
            rf_ancestors(s.index, class as u32, role as u32);
            facets::end_list(s);
        }
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_ancestors(index: u32, class: u32, role: u32) -> u32 {
    for _ in 0..ANCESTORS {
        rf_ancestor(index, class, role);
    }
    0
}

/// Looks up the executable's name of the parent of `s.ancestor`, which it becomes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_ancestor(index: u32, class: u32, role: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    let above = parent(get(&raw const s.ancestor));
    put(&raw mut s.ancestor, above);
    let file = executable(above);
    // An exception is for the image's own programs, not for what a container gives the same name.
    if file != 0 && (role != Role::NoAncestor as u32 || object::is_of_image(file)) {
        path::leaf(s, read(file, offset!(file_dentry)));
        facets::add_to_list(s, class as u8, role as u8);
    }
    0
}

/// Whether the process has a controlling terminal.
#[inline(always)]
pub fn terminal_flag(task: u64) -> u32 {
    let signal: u64 = read(task, offset!(task_signal));
    if read::<u64>(signal, offset!(signal_tty)) != 0 { flag::TTY } else { 0 }
}

/// Whether the process was put into its pod from outside.
#[inline(always)]
pub fn entry_flag(slot: u32, task: u64) -> u32 {
    if identity::rf_slot_of_task(parent(task)) == slot { 0 } else { flag::ENTRY }
}

/// The current process's arguments into the event, as far as they can be read now.
#[inline(always)]
pub fn fetch_arguments(s: &mut Scratch, task: u64) {
    let mm: u64 = read(task, offset!(task_mm));
    let start: u64 = read(mm, offset!(mm_arg_start));
    let end: u64 = read(mm, offset!(mm_arg_end));
    let all = end.wrapping_sub(start);
    let len = if all > EVENT_ARGS as u64 {
        s.event.header.flags |= flag::ARGS_TRUNCATED;
        EVENT_ARGS as u64
    } else {
        all
    };
    // SAFETY: `len` is at most the buffer's size.
    let failed = unsafe { bpf_probe_read_user(s.event.args.as_mut_ptr().cast(), len as u32, start as *const _) };
    s.event.header.args_len = if failed == 0 { len as u16 } else { 0 };
}

/// Whether there are more arguments than [`fetch_arguments`] has fetched.
#[inline(always)]
pub fn arguments_are_cut(s: &Scratch) -> bool {
    s.event.header.flags & flag::ARGS_TRUNCATED != 0
}

/// Whether fewer names of the object than the first `names` arguments hold were seen by [`look_up_arguments`].
#[inline(always)]
pub fn name_is_open(s: &Scratch, names: u32) -> bool {
    let seen = get(&raw const s.count);
    names != 0 && (seen == 0 || (seen == 1 && names > 1 && get(&raw const s.multi_call) != 0))
}

/// As many of the current process's arguments as fit, to `to`; how many bytes that are, 0 if they can't be read.
///
/// # Safety
/// `to` must have room for [`CANDIDATE_ARGS`] bytes.
#[inline(always)]
pub unsafe fn copy_arguments(to: *mut u8) -> u32 {
    let mm: u64 = read(kernel::current(), offset!(task_mm));
    let start: u64 = read(mm, offset!(mm_arg_start));
    let end: u64 = read(mm, offset!(mm_arg_end));
    let all = end.wrapping_sub(start);
    let len = if all > CANDIDATE_ARGS as u64 { CANDIDATE_ARGS as u64 } else { all };
    let failed = unsafe { bpf_probe_read_user(to.cast(), len as u32, start as *const _) };
    if failed == 0 { len as u32 } else { 0 }
}

/// Whether a name (its first eight bytes) begins as that of a program that is many: by such names busybox
/// (`appletlib.c`) and toybox (`main.c`) take the next argument for the applet's.
#[inline(always)]
pub fn is_multi_call(name: u64) -> bool {
    const BUSYBOX: u64 = u64::from_le_bytes(*b"busybox\0");
    const TOYBOX: u64 = u64::from_le_bytes(*b"toybox\0\0");
    name & (u64::MAX >> 8) == BUSYBOX || name & (u64::MAX >> 16) == TOYBOX
}

/// Looks up the argument tokens in the event, into `s.set`; [`facets::end_list`] then narrows by them. The first
/// `names` tokens are also names of the object: `argv[0]` decides what busybox does, and if that says `busybox`, the
/// next does.
#[inline(always)]
pub fn look_up_arguments(s: &mut Scratch, class: Class, defaults: &FacetDefaults, names: u64) {
    facets::begin(s, defaults, Facet::Arg);
    rf_arguments(s.index, class as u32, names as u32);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_arguments(index: u32, class: u32, names: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    put(&raw mut s.len, 0);
    put(&raw mut s.count, 0);
    kernel::zero(&mut s.name_key.name);
    let len = s.event.header.args_len as u32;
    for chunk in 0..EVENT_ARGS as u32 / CHUNK {
        if chunk * CHUNK >= len {
            break;
        }
        rf_argument_bytes(index, class, names, chunk * CHUNK);
    }
    0
}

/// Bytes of arguments that one call of [`rf_argument_bytes`] looks at: what the verifier walks is a chunk, not all.
const CHUNK: u32 = 16;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_argument_bytes(index: u32, class: u32, names: u32, from: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    let len = s.event.header.args_len as u32;
    for i in 0..CHUNK {
        let at = from.wrapping_add(i);
        if at >= len {
            break;
        }
        // SAFETY: masked below the buffer's size, a power of two.
        let byte = get(unsafe { s.event.args.as_ptr().add(at as usize & (EVENT_ARGS - 1)) });
        if is_separator(byte) {
            close_token(s, class, names);
        } else if byte == b'-' && get(&raw const s.count) == 0 && get(&raw const s.len) == 0 {
            // `argv[0]` counts without the dash of a login shell.
        } else if byte == b'/' && get(&raw const s.count) == 0 {
            // It counts by its last component.
            kernel::zero(&mut s.name_key.name);
            put(&raw mut s.len, 0);
        } else {
            facets::push_name_byte(s, byte);
        }
    }
    0
}

const _: () = assert!(EVENT_ARGS.is_power_of_two() && (EVENT_ARGS as u32).is_multiple_of(CHUNK));

/// Where arguments are split: at their ends, and inside at what shells and options join them with.
#[inline(always)]
fn is_separator(byte: u8) -> bool {
    const SEPARATORS: u64 = 1 | 1 << b' ' | 1 << b'\t' | 1 << b'\n' | 1 << b'=' | 1 << b',' | 1 << b'"' | 1 << b'\'';
    byte < 64 && SEPARATORS >> byte & 1 != 0
}

#[inline(always)]
fn close_token(s: &mut Scratch, class: u32, names: u32) {
    if get(&raw const s.len) == 0 {
        return;
    }
    facets::add_to_list(s, class as u8, Role::Arg as u8);
    let count = get(&raw const s.count);
    let is_second_name = count == 1 && get(&raw const s.multi_call) != 0;
    if names != 0 && (count == 0 || (names > 1 && is_second_name)) {
        facets::add_object_name(s, class as u8);
    }
    if count == 0 {
        let start = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| s.name_key.name[i]));
        put(&raw mut s.multi_call, is_multi_call(start) as u64);
    }
    put(&raw mut s.count, count + 1);
    kernel::zero(&mut s.name_key.name);
    put(&raw mut s.len, 0);
}

/// What a report says of the acting process: ids, command name, executable, parents. Only for violations.
#[inline(always)]
pub fn describe(s: &mut Scratch) {
    rf_describe(s.index);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_describe(index: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    let task = kernel::current();
    let cred: u64 = read(task, offset!(task_cred));
    let h = &raw mut s.event.header;
    // SAFETY: `h` points into the scratch.
    unsafe {
        (*h).start = read(task, offset!(task_start));
        kernel::copy((&raw mut (*h).comm).cast(), 16, task.wrapping_add(offset!(task_comm) as u64));
        (*h).pid = read(task, offset!(task_tgid));
        (*h).tid = read(task, offset!(task_pid));
        (*h).uid = read(cred, offset!(cred_uid));
        (*h).gid = read(cred, offset!(cred_gid));
    }
    put(&raw mut s.ancestor, task);
    for i in 0..EVENT_ANCESTORS {
        rf_describe_ancestor(index, i as u32);
    }
    let file = executable(task);
    if file != 0 {
        let inode: u64 = read(file, offset!(file_inode));
        path::measure(
            s,
            read(file, offset!(file_dentry)),
            read(file, offset!(file_mnt)),
            read(inode, offset!(inode_sb)),
        );
        let len = path::write(s);
        kernel::copy_bytes(&mut s.event.exe, s.path.as_ptr());
        s.event.header.exe_len = len as u16;
    } else {
        s.event.header.exe_len = 0;
    }
    0
}

/// The parent of `s.ancestor`, which it becomes, into that place of the report.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_describe_ancestor(index: u32, at: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    let above = parent(get(&raw const s.ancestor));
    put(&raw mut s.ancestor, above);
    let Some(entry) = s.event.header.ancestors.get_mut(at as usize) else { return 1 };
    entry.pid = read(above, offset!(task_tgid));
    entry.slot = identity::rf_slot_of_task(above);
    entry.start = read(above, offset!(task_start));
    // SAFETY: points into the scratch.
    unsafe { kernel::copy((&raw mut entry.comm).cast(), 16, above.wrapping_add(offset!(task_comm) as u64)) };
    0
}

/// The current task's file at a descriptor.
#[inline(always)]
pub fn file(fd: i32) -> u64 {
    object::file_of(kernel::current(), fd)
}
