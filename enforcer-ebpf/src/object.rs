//! The file that an event is about, and what can be told from its inode.

use crate::{
    kernel::{self, offset, read},
    scratch::{Object, Scratch},
};
use aya_ebpf::{macros::map, maps::LruHashMap};
use ringfence_abi::{ABSENT, flag};

const OVERLAY: u64 = 0x794c_7630;
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const HUGETLBFS: u64 = 0x9584_58f6;
/// File systems that the kernel makes up: nobody can put a program there.
const KERNEL_MADE: [u64; 7] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x1cd1, 0x6462_6720, 0x7472_6163];

const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;
const S_IFBLK: u16 = 0o060_000;

const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
/// The open made the file (`include/linux/fs.h`, since 4.19).
const FMODE_CREATED: u32 = 0x10_0000;

const O_TRUNC: u32 = 0o1000;
const O_APPEND: u32 = 0o2000;

/// A file by its file system and number.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FileId {
    ino: u64,
    dev: u64,
}

/// Files of an image that a governed process opened for writing: their content counts as changed from then on.
/// (That a file was copied up says little: chmod and touch do that too.)
#[map]
static WRITTEN: LruHashMap<FileId, u64> = LruHashMap::with_max_entries(16_384, 0);

/// The current task's file at a descriptor; 0: none.
#[inline(always)]
pub fn file_of(task: u64, fd: i32) -> u64 {
    let files: u64 = read(task, offset!(task_files));
    let table: u64 = read(files, offset!(files_fdtable));
    let max: u32 = read(table, offset!(fdtable_max));
    if fd as u32 >= max {
        return 0;
    }
    let array: u64 = read(table, offset!(fdtable_fd));
    read(array.wrapping_add(fd as u64 * 8), 0)
}

/// Takes the file as the event's object.
#[inline(always)]
pub fn set(s: &mut Scratch, file: u64) {
    let inode: u64 = read(file, offset!(file_inode));
    s.object = Object {
        dentry: read(file, offset!(file_dentry)),
        mnt: read(file, offset!(file_mnt)),
        inode,
        sb: read(inode, offset!(inode_sb)),
    };
}

/// Takes what a `struct path` leads to as the event's object.
#[inline(always)]
pub fn set_path(s: &mut Scratch, path: u64) {
    let dentry: u64 = read(path, offset!(path_dentry));
    let inode: u64 = read(dentry, offset!(dentry_inode));
    s.object = Object { dentry, mnt: read(path, offset!(path_mnt)), inode, sb: read(inode, offset!(inode_sb)) };
}

/// Takes a name in a directory (a `struct path`) as the event's object. It may have no file yet.
#[inline(always)]
pub fn set_name(s: &mut Scratch, directory: u64, dentry: u64) {
    let parent: u64 = read(directory, offset!(path_dentry));
    let above: u64 = read(parent, offset!(dentry_inode));
    s.object = Object {
        dentry,
        mnt: read(directory, offset!(path_mnt)),
        inode: read(dentry, offset!(dentry_inode)),
        sb: read(above, offset!(inode_sb)),
    };
}

/// Flags of the object itself: where it lives and what its mode is.
#[inline(always)]
pub fn flags(o: &Object) -> u32 {
    rf_object_flags(o.inode, o.sb)
}

/// By itself, because every flag doubles what the verifier has to walk from here on: to the caller they are a number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_object_flags(inode: u64, sb: u64) -> u32 {
    let mode: u16 = read(inode, offset!(inode_mode));
    let links: u32 = read(inode, offset!(inode_nlink));
    let magic: u64 = read(sb, offset!(sb_magic));
    let mut flags = mode_flags(mode);
    match mode & S_IFMT {
        S_IFREG => flags |= flag::REGULAR,
        S_IFBLK => flags |= flag::BLOCK_DEVICE,
        _ => {}
    }
    if links == 0 {
        flags |= flag::NAMELESS;
    }
    match magic {
        OVERLAY => flags |= overlay_flags(inode, sb),
        TMPFS | RAMFS | HUGETLBFS => {
            if links != 0 {
                flags |= flag::TMPFS;
            }
        }
        _ => {
            if !KERNEL_MADE.contains(&magic) {
                flags |= flag::VOLUME;
            }
        }
    }
    flags
}

/// Flags of mode bits.
#[inline(always)]
pub fn mode_flags(mode: u16) -> u32 {
    let mut flags = 0;
    if mode & 0o111 != 0 {
        flags |= flag::EXECUTABLE;
    }
    if mode & 0o4000 != 0 || mode & 0o2010 == 0o2010 {
        flags |= flag::SETUID;
    }
    flags
}

/// Whether a program is as the image has it. (Where the overlay's layers can't be told apart: whether it is on one.)
#[inline(always)]
pub fn is_of_image(file: u64) -> bool {
    let inode: u64 = read(file, offset!(file_inode));
    rf_object_flags(inode, read(inode, offset!(inode_sb))) & (flag::UPPER | flag::TMPFS | flag::NAMELESS | flag::VOLUME)
        == 0
}

/// How a file is open: `fs.h`'s modes, and what the open did.
#[inline(always)]
pub fn open_flags(file: u64, inode: u64) -> u32 {
    // What is read is a number; the file itself may be a typed pointer.
    rf_open_flags(read(file, offset!(file_mode)), read(file, offset!(file_flags)), inode)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_open_flags(mode: u32, asked: u32, inode: u64) -> u32 {
    let mut flags = 0;
    if mode & FMODE_READ != 0 {
        flags |= flag::READ;
    }
    if mode & FMODE_WRITE != 0 {
        flags |= flag::WRITE;
    }
    if mode & FMODE_CREATED != 0 {
        flags |= flag::CREATED;
    } else if mode & FMODE_WRITE != 0 {
        // Before the open is done the kernel still has O_TRUNC; after it the file is empty, and an empty file that is
        // opened to append to is not a truncated one.
        let size: i64 = read(inode, offset!(inode_size));
        if asked & O_TRUNC != 0 || (size == 0 && asked & O_APPEND == 0) {
            flags |= flag::EMPTIED;
        }
    }
    flags
}

#[inline(always)]
fn id(inode: u64, sb: u64) -> FileId {
    let dev: u32 = read(sb, offset!(sb_dev));
    FileId { ino: read(inode, offset!(inode_ino)), dev: dev as u64 }
}

/// A governed process has the file open for writing.
#[inline(always)]
pub fn note_write(o: &Object) {
    let _ = WRITTEN.insert(&id(o.inode, o.sb), &1, 0);
}

#[inline(always)]
fn overlay_flags(inode: u64, sb: u64) -> u32 {
    if !kernel::overlay_proven() {
        return 0;
    }
    let mut flags = 0;
    let from_image = has_lower(inode);
    if from_image {
        flags |= flag::FROM_IMAGE;
    }
    let upper: u64 = read(inode, offset!(ovl_upper));
    if upper != 0 {
        flags |= flag::UPPER;
        if !from_image || WRITTEN.get_ptr(&id(inode, sb)).is_some() {
            flags |= flag::DRIFTED;
        }
    }
    flags
}

#[inline(always)]
fn has_lower(inode: u64) -> bool {
    if offset!(ovl_entry) != ABSENT {
        let entry: u64 = read(inode, offset!(ovl_entry));
        let lower: u32 = read(entry, offset!(ovl_entry_numlower));
        return entry != 0 && lower != 0;
    }
    if offset!(ovl_lower) != ABSENT {
        return read::<u64>(inode, offset!(ovl_lower)) != 0;
    }
    false
}
