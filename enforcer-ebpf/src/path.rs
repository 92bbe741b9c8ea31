//! Paths from the kernel's own dentries, as the container sees them, and the names in them.
//!
//! Which path a file has depends on its file system:
//! - overlay (a container's root): the path inside the file system, whatever it is mounted on. So a bind mount, a
//!   chroot or `/proc/self/root` does not change what `/etc/shadow` of the image is called.
//! - proc, sysfs, cgroup: the same, below `/proc`, `/sys`, `/sys/fs/cgroup`, wherever they are mounted.
//! - everything else (volumes, tmpfs): through the mounts up to the root of the mount namespace.
//!
//! A walk has two turns. The first only hashes what it passes and sums up the length; the hash identifies the path,
//! so that what a path satisfies can be remembered without ever being stale (docs/adr/0003). The second, on demand,
//! writes the path.

use crate::{
    kernel::{self, copy, get, offset, put, read},
    scratch::{self, PATH, Scratch},
};

/// Components that one climb passes, climbs of a stretch, and stretches of a walk: a thousand components, which the
/// verifier sees as a few.
const COMPONENTS: usize = 4;
const CLIMBS: usize = 16;
const STRETCHES: usize = 16;

/// Beginnings of components that are noted; more wrap around, and only `..` in strings that deep would tell.
const STARTS: u64 = 64;

const OVERLAY: u64 = 0x794c_7630;
const PROC: u64 = 0x9fa0;
const SYSFS: u64 = 0x6265_6572;
const CGROUP: u64 = 0x0027_e0eb;
const CGROUP2: u64 = 0x6367_7270;

/// First turn, from a dentry seen through a mount: length and fingerprint into `s.walk`.
#[inline(always)]
pub fn measure(s: &mut Scratch, dentry: u64, mnt: u64, sb: u64) {
    let magic: u64 = read(sb, offset!(sb_magic));
    let (inside, root) = match magic {
        OVERLAY => (1, 0),
        PROC => (1, 1),
        SYSFS => (1, 2),
        CGROUP | CGROUP2 => (1, 3),
        _ => (0, 0u64),
    };
    let w = &raw mut s.walk;
    // SAFETY: `w` points into the scratch.
    unsafe {
        put(&raw mut (*w).from_dentry, dentry);
        put(&raw mut (*w).from_mnt, mnt);
        put(&raw mut (*w).dentry, dentry);
        put(&raw mut (*w).mnt, mnt);
        put(&raw mut (*w).inside, inside);
        put(&raw mut (*w).root, root);
        put(&raw mut (*w).len, root_len(root));
        put(&raw mut (*w).fingerprint, magic);
        put(&raw mut (*w).too_deep, 1);
        // `/proc` and the like count as components too: one slash each.
        put(&raw mut (*w).components, root_components(root));
    }
    rf_measure(s.index);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_measure(index: u32) -> u32 {
    if walk(index, false)
        && let Some(s) = scratch::by_index(index)
    {
        put(&raw mut s.walk.too_deep, 0);
    }
    0
}

/// A walk that was set up. True: the root is reached. Most are over after one climb.
#[inline(always)]
fn walk(index: u32, writing: bool) -> bool {
    if rf_climb(index, writing as u32) != 0 {
        return true;
    }
    for _ in 0..STRETCHES {
        if rf_stretch(index, writing as u32) != 0 {
            return true;
        }
    }
    false
}

/// Up to [`CLIMBS`] climbs. 1: the root is reached.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_stretch(index: u32, writing: u32) -> u32 {
    for _ in 0..CLIMBS {
        if rf_climb(index, writing) != 0 {
            return 1;
        }
    }
    0
}

/// Up to [`COMPONENTS`] steps of a walk that was set up. 1: the root is reached.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_climb(index: u32, writing: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    for _ in 0..COMPONENTS {
        // SAFETY: the caller has set the walk up.
        if unsafe { step(s, writing != 0) } {
            return 1;
        }
    }
    0
}

/// What stands before a kernel file system's own root.
#[inline(always)]
fn root<const N: usize>(s: &mut Scratch, name: [u8; N]) {
    for (to, byte) in s.path.iter_mut().zip(name) {
        *to = byte;
    }
    s.starts[0] = 0;
}

#[inline(always)]
fn root_components(root: u64) -> u64 {
    match root {
        0 => 0,
        3 => 3,
        _ => 1,
    }
}

#[inline(always)]
fn root_len(root: u64) -> u64 {
    match root {
        1 => 5,
        2 => 4,
        3 => 14,
        _ => 0,
    }
}

/// Second turn: the path that was measured, into `s.path`, zeros behind it. What does not fit is cut at the end.
/// Returns the bytes in use.
#[inline(always)]
pub fn write(s: &mut Scratch) -> u64 {
    rf_write(s.index);
    let len = get(&raw const s.walk.len);
    if len == 0 {
        1
    } else if len > PATH as u64 {
        PATH as u64
    } else {
        len
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_write(index: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    kernel::zero(&mut s.path);
    let w = &raw mut s.walk;
    // SAFETY: `w` points into the scratch; positions are masked.
    unsafe {
        put(&raw mut (*w).dentry, get(&raw const (*w).from_dentry));
        put(&raw mut (*w).mnt, get(&raw const (*w).from_mnt));
        put(&raw mut (*w).pos, get(&raw const (*w).len));
        put(&raw mut (*w).component, get(&raw const (*w).components));
        walk(index, true);
        match get(&raw const (*w).root) {
            1 => root::<5>(s, *b"/proc"),
            2 => root::<4>(s, *b"/sys"),
            3 => {
                root::<14>(s, *b"/sys/fs/cgroup");
                (s.starts[1], s.starts[2]) = (4, 7);
            }
            _ => {}
        }
        if get(&raw const (*w).len) == 0 {
            s.path[0] = b'/';
        }
    }
    0
}

/// `struct dentry` from `d_parent` on, where `d_name` follows directly (all kernels so far).
#[derive(Clone, Copy)]
#[repr(C)]
struct ParentAndName {
    parent: u64,
    /// `hash` in the lower, `len` in the upper half.
    hash_len: u64,
    name: u64,
}

/// The parent and the name of a dentry, in one read where they are neighbours.
#[inline(always)]
fn parent_and_name(dentry: u64) -> ParentAndName {
    if !kernel::DIRECT_READS && offset!(dentry_name) == offset!(dentry_parent) + 8 {
        return read(dentry, offset!(dentry_parent));
    }
    ParentAndName {
        parent: read(dentry, offset!(dentry_parent)),
        hash_len: read(dentry, offset!(dentry_name)),
        name: read(dentry, offset!(dentry_name) + 8),
    }
}

/// One component, or up through one mount point. True: the root is reached.
#[inline(always)]
unsafe fn step(s: &mut Scratch, writing: bool) -> bool {
    let w = &raw mut s.walk;
    unsafe {
        let dentry = get(&raw const (*w).dentry);
        let d = parent_and_name(dentry);
        if get(&raw const (*w).inside) == 0 {
            let mnt = get(&raw const (*w).mnt);
            if dentry == read::<u64>(mnt, offset!(vfsmount_root)) {
                let mount = mnt.wrapping_sub(offset!(mount_mnt) as u64);
                let up: u64 = read(mount, offset!(mount_parent));
                if up == mount || up == 0 {
                    return true;
                }
                let above = up.wrapping_add(offset!(mount_mnt) as u64);
                put(&raw mut (*w).dentry, read(mount, offset!(mount_mountpoint)));
                put(&raw mut (*w).mnt, above);
                if !writing {
                    mix(s, above);
                }
                return false;
            }
        }
        if d.parent == dentry || d.parent == 0 {
            return true;
        }
        let len = (d.hash_len >> 32) & 0xff;
        if writing {
            let pos = get(&raw const (*w).pos).wrapping_sub(len + 1);
            put(&raw mut (*w).pos, pos);
            let component = get(&raw const (*w).component).wrapping_sub(1);
            put(&raw mut (*w).component, component);
            put(s.starts.as_mut_ptr().add((component & (STARTS - 1)) as usize), pos as u16);
            // What begins inside is kept as far as it goes; the buffer has room for a whole name more.
            if pos < PATH as u64 {
                // Read back: else the compiler knows that the mask changes nothing, and the verifier does not.
                let at = (get(&raw const (*w).pos) as usize) & (PATH - 1);
                s.path[at] = b'/';
                copy(s.path.as_mut_ptr().add(at + 1), (len & 0xff) as u32, d.name);
            }
        } else {
            put(&raw mut (*w).len, get(&raw const (*w).len).wrapping_add(len + 1));
            put(&raw mut (*w).components, get(&raw const (*w).components) + 1);
            mix(s, dentry);
            mix(s, d.hash_len);
        }
        put(&raw mut (*w).dentry, d.parent);
        false
    }
}

/// One round of a 64-bit multiply-and-rotate hash (the inputs are kernel addresses and the kernel's own name hashes).
#[inline(always)]
fn mix(s: &mut Scratch, value: u64) {
    let f = &raw mut s.walk.fingerprint;
    put(f, (get(f).rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15));
}

/// The file's own name into `s.name_key`, zeros behind it.
#[inline(always)]
pub fn leaf(s: &mut Scratch, dentry: u64) {
    kernel::zero(&mut s.name_key.name);
    let d = parent_and_name(dentry);
    // SAFETY: the buffer has NAME bytes.
    unsafe {
        aya_ebpf::helpers::generated::bpf_probe_read_kernel_str(
            s.name_key.name.as_mut_ptr().cast(),
            ringfence_abi::NAME as u32,
            d.name as *const _,
        );
    }
}

/// A caller's string at `user` into `s.string`; false: unreadable or empty.
#[inline(always)]
pub fn fetch(s: &mut Scratch, user: u64) -> bool {
    // SAFETY: the buffer has twice PATH bytes.
    let len = unsafe {
        aya_ebpf::helpers::generated::bpf_probe_read_user_str(
            s.string.as_mut_ptr().cast(),
            PATH as u32,
            user as *const _,
        )
    };
    len > 0
}

/// A string of the kernel's own at `from` into `s.string`; false: unreadable or empty.
#[inline(always)]
pub fn fetch_kernel(s: &mut Scratch, from: u64) -> bool {
    // SAFETY: the buffer has twice PATH bytes.
    let len = unsafe {
        aya_ebpf::helpers::generated::bpf_probe_read_kernel_str(
            s.string.as_mut_ptr().cast(),
            PATH as u32,
            from as *const _,
        )
    };
    len > 0
}

/// The descriptor that `s.string` names as `/proc/self/fd/N`: so glibc changes the mode of what it has open by
/// `O_PATH`. -1: it names something else.
#[inline(always)]
pub fn own_descriptor(s: &Scratch) -> i32 {
    rf_own_descriptor(s.index) as i32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_own_descriptor(index: u32) -> u32 {
    const FOLDER: [u8; 14] = *b"/proc/self/fd/";
    const DIGITS: usize = 10;
    let Some(s) = scratch::by_index(index) else { return u32::MAX };
    for (at, byte) in FOLDER.iter().enumerate() {
        if s.string[at] != *byte {
            return u32::MAX;
        }
    }
    put(&raw mut s.count, 0);
    for at in FOLDER.len()..FOLDER.len() + DIGITS {
        let byte = s.string[at];
        if byte == 0 && at > FOLDER.len() {
            return get(&raw const s.count) as u32;
        }
        if !byte.is_ascii_digit() {
            return u32::MAX;
        }
        put(&raw mut s.count, get(&raw const s.count) * 10 + (byte - b'0') as u64);
    }
    u32::MAX
}

/// Joins `s.string` to the directory `fd` (`AT_FDCWD`: the working directory), normalises `.`, `..` and `//`, and
/// leaves the result in `s.path`, its length in `s.len` and its name in `s.name_key`.
///
/// This is a path of the caller's making: symbolic links in it are not followed.
#[inline(always)]
pub fn join(s: &mut Scratch, fd: i32) {
    const AT_FDCWD: i32 = -100;
    let task = kernel::current();
    let (dentry, mnt): (u64, u64) = if fd == AT_FDCWD || s.string[0] == b'/' {
        let fs: u64 = read(task, offset!(task_fs));
        (read(fs, offset!(fs_pwd_dentry)), read(fs, offset!(fs_pwd_mnt)))
    } else {
        let file = crate::object::file_of(task, fd);
        (read(file, offset!(file_dentry)), read(file, offset!(file_mnt)))
    };
    join_to(s, dentry, mnt);
}

/// [`join`] to a directory of the kernel's own.
#[inline(always)]
pub fn join_to(s: &mut Scratch, dentry: u64, mnt: u64) {
    let (dentry, mnt): (u64, u64) = if s.string[0] == b'/' {
        let fs: u64 = read(kernel::current(), offset!(task_fs));
        (read(fs, offset!(fs_root_dentry)), read(fs, offset!(fs_root_mnt)))
    } else {
        (dentry, mnt)
    };
    let inode: u64 = read(dentry, offset!(dentry_inode));
    measure(s, dentry, mnt, read(inode, offset!(inode_sb)));
    put(&raw mut s.count, write(s));
    rf_normalise(s.index);
}

/// What was joined, as the path of the event's object.
#[inline(always)]
pub fn report(s: &mut Scratch) {
    kernel::copy_bytes(&mut s.event.path, s.path.as_ptr());
    s.event.header.path_len = s.len as u16;
}

/// `s.path[..s.count]`, a slash and `s.string`, normalised into `s.path`. Where the base's components begin was noted
/// when it was written.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_normalise(index: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    let base = get(&raw const s.count);
    put(&raw mut s.len, if base > 1 { base } else { 0 });
    put(&raw mut s.depth, get(&raw const s.walk.components));
    open_component(s);
    for chunk in 0..PATH as u32 / CHUNK {
        if rf_string_bytes(index, chunk * CHUNK) != 0 {
            break;
        }
    }
    if get(&raw const s.len) == 0 {
        s.path[0] = b'/';
        put(&raw mut s.len, 1);
    }
    // Keys are compared whole: zeros behind the end.
    let len = get(&raw const s.len) & (PATH as u64 - 1);
    // SAFETY: the length is masked below PATH, both buffers have twice that.
    unsafe {
        copy(s.string.as_mut_ptr(), len as u32, s.path.as_ptr() as u64);
        kernel::zero(&mut s.path);
        copy(s.path.as_mut_ptr(), len as u32, s.string.as_ptr() as u64);
    }
    // The last component's name.
    kernel::zero(&mut s.name_key.name);
    let depth = get(&raw const s.depth);
    let start = if depth == 0 { 0 } else { start(s, depth - 1) + 1 };
    // SAFETY: masked start below PATH, the buffer has twice that.
    unsafe {
        aya_ebpf::helpers::generated::bpf_probe_read_kernel_str(
            s.name_key.name.as_mut_ptr().cast(),
            ringfence_abi::NAME as u32,
            s.path.as_ptr().add((start as usize) & (PATH - 1)).cast(),
        );
    }
    0
}

/// Bytes of a string that one call of [`rf_string_bytes`] takes: what the verifier walks is a chunk, not all.
const CHUNK: u32 = 8;

/// Takes the string's bytes from `from` on. 1: it has ended.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_string_bytes(index: u32, from: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    for i in 0..CHUNK {
        let at = from.wrapping_add(i) as usize & (PATH - 1);
        // SAFETY: masked below PATH, the buffer has twice that.
        let byte = get(unsafe { s.string.as_ptr().add(at) });
        if byte == b'/' || byte == 0 {
            close_component(s);
            if byte == 0 {
                return 1;
            }
            open_component(s);
        } else {
            let len = get(&raw const s.len);
            if len < (PATH - 1) as u64 {
                s.path[(len as usize) & (PATH - 1)] = byte;
                put(&raw mut s.len, len + 1);
            } else {
                s.event.header.flags |= ringfence_abi::flag::PATH_TRUNCATED;
            }
        }
    }
    0
}

/// Where a component begins (at its slash).
#[inline(always)]
fn start(s: &Scratch, depth: u64) -> u64 {
    // SAFETY: masked below the array's length.
    get(unsafe { s.starts.as_ptr().add((depth & (STARTS - 1)) as usize) }) as u64
}

/// Remembers where a component begins (at its slash).
#[inline(always)]
fn push(s: &mut Scratch, at: u64) {
    let depth = get(&raw const s.depth);
    put(unsafe { s.starts.as_mut_ptr().add((depth & (STARTS - 1)) as usize) }, at as u16);
    put(&raw mut s.depth, depth + 1);
}

#[inline(always)]
fn open_component(s: &mut Scratch) {
    let len = get(&raw const s.len);
    push(s, len);
    if len < (PATH - 1) as u64 {
        s.path[(len as usize) & (PATH - 1)] = b'/';
        put(&raw mut s.len, len + 1);
    }
}

/// A component is complete: drop it if it is empty or `.`, drop it and the one before if it is `..`.
#[inline(always)]
fn close_component(s: &mut Scratch) {
    let depth = get(&raw const s.depth);
    if depth == 0 {
        return;
    }
    let start = start(s, depth - 1);
    let len = get(&raw const s.len);
    let size = len.wrapping_sub(start + 1);
    let first = s.path[((start + 1) as usize) & (PATH - 1)];
    let second = s.path[((start + 2) as usize) & (PATH - 1)];
    if size == 0 || (size == 1 && first == b'.') {
        put(&raw mut s.depth, depth - 1);
        put(&raw mut s.len, start);
    } else if size == 2 && first == b'.' && second == b'.' {
        if depth >= 2 {
            let before = self::start(s, depth - 2);
            put(&raw mut s.depth, depth - 2);
            put(&raw mut s.len, before);
        } else {
            put(&raw mut s.depth, 0);
            put(&raw mut s.len, 0);
        }
    }
}
