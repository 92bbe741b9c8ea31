//! Trials at the enforcer's start.
//!
//! What does this kernel let us attach to hooks and functions of its own, and does it come by there? Three programs do
//! nothing but note that one given thread did.
//!
//! What do the programs make of a file that one given thread opens?
//! Where overlayfs keeps its upper layer is not told by every kernel; so files of both layers of an overlay of the
//! enforcer's own are opened, and the answers compared.

use crate::{kernel, object, process, scratch::Object};
use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{fexit, kprobe, lsm, map, tracepoint},
    maps::Array,
    programs::{FExitContext, LsmContext, ProbeContext, TracePointContext},
};

/// Entry 0: the thread's id; entry 1: flags of the last file that it opened; entry 2: 1 once it came by.
#[map]
static TRIAL: Array<u32> = Array::with_max_entries(3, 0);

#[inline(always)]
fn is_the_thread() -> bool {
    TRIAL.get(0).copied() == Some(bpf_get_current_pid_tgid() as u32)
}

#[inline(always)]
fn note() {
    if is_the_thread() {
        let _ = TRIAL.set(2, &1, 0);
    }
}

#[tracepoint]
pub fn trial_open(ctx: TracePointContext) -> u32 {
    if !is_the_thread() {
        return 0;
    }
    // SAFETY: the result in the record of every `sys_exit_*`.
    let fd: i64 = unsafe { ctx.read_at(16) }.unwrap_or(-1);
    if fd >= 0 {
        let file = process::file(fd as i32);
        let inode: u64 = kernel::read(file, kernel::offset!(file_inode));
        let object = Object {
            dentry: kernel::read(file, kernel::offset!(file_dentry)),
            mnt: kernel::read(file, kernel::offset!(file_mnt)),
            inode,
            sb: kernel::read(inode, kernel::offset!(inode_sb)),
        };
        let _ = TRIAL.set(1, &object::flags(&object), 0);
    }
    0
}

#[fexit]
pub fn trial_trampoline(_ctx: FExitContext) -> i32 {
    note();
    0
}

#[lsm]
pub fn trial_hook(_ctx: LsmContext) -> i32 {
    note();
    0
}

#[kprobe]
pub fn trial_kprobe(_ctx: ProbeContext) -> u32 {
    note();
    0
}
