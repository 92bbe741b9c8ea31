//! Every program of the object, the hook it sits on, and when it is needed.

use ringfence_abi::Op;
use std::collections::BTreeSet;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A tracepoint whose arguments are kernel objects (`tp_btf`).
    Trace(&'static str),
    /// The entry of a system call.
    Enter(&'static str),
    /// The exit of a system call.
    Exit(&'static str),
    /// A security hook that can deny.
    Lsm(&'static str),
    /// A function of the kernel.
    Function(&'static str),
}

/// A program on a hook. One program may sit on several hooks of the same form.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    /// Function name in the object.
    pub program: &'static str,
    /// Where it sits.
    pub hook: Hook,
    /// Operations for whose lines it is needed; empty: always.
    pub ops: &'static [Op],
}

/// Identity: needed whatever the rules are.
pub const IDENTITY: &[Attachment] = &[
    always("cgroup_mkdir", Hook::Trace("cgroup_mkdir")),
    always("cgroup_release", Hook::Trace("cgroup_release")),
    always("cgroup_attach_task", Hook::Trace("cgroup_attach_task")),
    always("sched_process_fork", Hook::Trace("sched_process_fork")),
    always("sched_process_exit", Hook::Trace("sched_process_exit")),
    // Also ends the runtime's own part of a container's start.
    always("sched_process_exec", Hook::Trace("sched_process_exec")),
];

/// The `lsm` tier. Where these load and the kernel calls them, [`replaced_by_hooks`] names what they stand in for.
pub const LSM: &[Attachment] = &[
    on("bprm_check_security", Hook::Lsm("bprm_check_security"), &[Op::Exec]),
    on("file_open", Hook::Lsm("file_open"), &[Op::Open]),
    on("mmap_file", Hook::Lsm("mmap_file"), &[Op::Mmap]),
    on("socket_connect", Hook::Lsm("socket_connect"), &[Op::Connect]),
    on("unix_stream_connect", Hook::Lsm("unix_stream_connect"), &[Op::Connect]),
];

/// The same programs on the functions that call the security hooks: the tiers `fentry` and `kprobe`. Executions stay with
/// `sched_process_exec`.
pub const FUNCTIONS: &[Attachment] = &[
    on("file_open", Hook::Function("security_file_open"), &[Op::Open]),
    on("mmap_file", Hook::Function("security_mmap_file"), &[Op::Mmap]),
    on("socket_connect", Hook::Function("security_socket_connect"), &[Op::Connect]),
    on("unix_stream_connect", Hook::Function("security_unix_stream_connect"), &[Op::Connect]),
];

const RENAME: &[Op] = &[Op::RenameFrom, Op::RenameTo];
const LINK: &[Op] = &[Op::LinkFrom, Op::LinkTo];
const SYMLINK: &[Op] = &[Op::SymlinkTarget, Op::Symlink];
const MOUNT: &[Op] = &[Op::MountSource, Op::MountTarget];

/// The `tracepoint` tier.
pub const TRACEPOINT: &[Attachment] = &[
    on("exit_open", Hook::Exit("open"), &[Op::Open]),
    on("exit_open", Hook::Exit("openat"), &[Op::Open]),
    on("exit_open", Hook::Exit("openat2"), &[Op::Open]),
    on("exit_open", Hook::Exit("creat"), &[Op::Open]),
    on("exit_open", Hook::Exit("open_by_handle_at"), &[Op::Open]),
    on("io_uring_complete", Hook::Trace("io_uring_complete"), &[Op::Open]),
    on("exit_mmap", Hook::Exit("mmap"), &[Op::Mmap]),
    on("enter_unlink", Hook::Enter("unlink"), &[Op::Unlink]),
    on("exit_change", Hook::Exit("unlink"), &[Op::Unlink]),
    on("enter_unlinkat", Hook::Enter("unlinkat"), &[Op::Unlink]),
    on("exit_change", Hook::Exit("unlinkat"), &[Op::Unlink]),
    on("enter_rename", Hook::Enter("rename"), RENAME),
    on("exit_change", Hook::Exit("rename"), RENAME),
    on("enter_renameat", Hook::Enter("renameat"), RENAME),
    on("exit_change", Hook::Exit("renameat"), RENAME),
    on("enter_renameat", Hook::Enter("renameat2"), RENAME),
    on("exit_change", Hook::Exit("renameat2"), RENAME),
    on("enter_link", Hook::Enter("link"), LINK),
    on("exit_change", Hook::Exit("link"), LINK),
    on("enter_linkat", Hook::Enter("linkat"), LINK),
    on("exit_change", Hook::Exit("linkat"), LINK),
    on("enter_symlink", Hook::Enter("symlink"), SYMLINK),
    on("exit_change", Hook::Exit("symlink"), SYMLINK),
    on("enter_symlinkat", Hook::Enter("symlinkat"), SYMLINK),
    on("exit_change", Hook::Exit("symlinkat"), SYMLINK),
    on("enter_chmod", Hook::Enter("chmod"), &[Op::Chmod]),
    on("exit_change", Hook::Exit("chmod"), &[Op::Chmod]),
    on("exit_fchmod", Hook::Exit("fchmod"), &[Op::Chmod]),
    on("enter_fchmodat", Hook::Enter("fchmodat"), &[Op::Chmod]),
    on("exit_change", Hook::Exit("fchmodat"), &[Op::Chmod]),
    on("enter_fchmodat", Hook::Enter("fchmodat2"), &[Op::Chmod]),
    on("exit_change", Hook::Exit("fchmodat2"), &[Op::Chmod]),
    on("enter_truncate", Hook::Enter("truncate"), &[Op::Truncate]),
    on("exit_change", Hook::Exit("truncate"), &[Op::Truncate]),
    on("exit_ftruncate", Hook::Exit("ftruncate"), &[Op::Truncate]),
    on("enter_mkdir", Hook::Enter("mkdir"), &[Op::Mkdir]),
    on("exit_change", Hook::Exit("mkdir"), &[Op::Mkdir]),
    on("enter_mkdirat", Hook::Enter("mkdirat"), &[Op::Mkdir]),
    on("exit_change", Hook::Exit("mkdirat"), &[Op::Mkdir]),
    on("inet_sock_set_state", Hook::Trace("inet_sock_set_state"), &[Op::Connect, Op::Listen]),
    on("exit_connect", Hook::Exit("connect"), &[Op::Connect, Op::Stdio]),
    on("exit_bind", Hook::Exit("bind"), &[Op::Bind]),
    on("exit_socket", Hook::Exit("socket"), &[Op::Socket]),
    on("exit_dup", Hook::Exit("dup"), &[Op::Stdio]),
    on("exit_dup", Hook::Exit("dup2"), &[Op::Stdio]),
    on("exit_dup", Hook::Exit("dup3"), &[Op::Stdio]),
    on("exit_fcntl", Hook::Exit("fcntl"), &[Op::Stdio]),
    on("exit_ptrace", Hook::Exit("ptrace"), &[Op::Ptrace]),
    on("exit_setns", Hook::Exit("setns"), &[Op::Setns]),
    on("exit_unshare", Hook::Exit("unshare"), &[Op::Unshare]),
    on("exit_memfd", Hook::Exit("memfd_create"), &[Op::Memfd]),
    on("exit_bpf", Hook::Exit("bpf"), &[Op::Bpf]),
    on("exit_module", Hook::Exit("init_module"), &[Op::Module]),
    on("exit_module", Hook::Exit("finit_module"), &[Op::Module]),
    on("exit_module", Hook::Exit("delete_module"), &[Op::Module]),
    on("exit_kill", Hook::Exit("kill"), &[Op::Kill]),
    on("exit_tgkill", Hook::Exit("tgkill"), &[Op::Kill]),
    on("enter_mount", Hook::Enter("mount"), MOUNT),
    on("exit_mount", Hook::Exit("mount"), MOUNT),
    on("enter_fsconfig", Hook::Enter("fsconfig"), &[Op::MountSource]),
    on("exit_mount", Hook::Exit("fsconfig"), &[Op::MountSource]),
];

const fn always(program: &'static str, hook: Hook) -> Attachment {
    Attachment { program, hook, ops: &[] }
}

const fn on(program: &'static str, hook: Hook, ops: &'static [Op]) -> Attachment {
    Attachment { program, hook, ops }
}

impl Attachment {
    /// Name that the attachment's link is pinned under; unique.
    pub fn link_name(&self) -> String {
        match self.hook {
            Hook::Trace(hook) => format!("trace-{hook}"),
            Hook::Enter(call) => format!("enter-{call}"),
            Hook::Exit(call) => format!("exit-{call}"),
            Hook::Lsm(hook) => format!("lsm-{hook}"),
            Hook::Function(function) => format!("function-{function}"),
        }
    }

    /// Whether it is needed for any of these operations.
    pub fn is_needed(&self, ops: &BTreeSet<Op>) -> bool {
        self.ops.is_empty() || self.ops.iter().any(|op| ops.contains(op))
    }
}

/// The function of a system call, which has the registers of the call for its only parameter
/// (`arch/{x86,arm64}/include/asm/syscall_wrapper.h`).
pub fn function_of(call: &str) -> String {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    format!("__{architecture}_sys_{call}")
}

/// Whether a tracepoint's work is done by the programs on security hooks once those are in place.
pub fn replaced_by_hooks(attachment: &Attachment) -> bool {
    matches!(
        attachment.hook,
        Hook::Exit("open" | "openat" | "openat2" | "creat" | "open_by_handle_at" | "mmap")
            | Hook::Trace("io_uring_complete")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_are_unique() {
        let all: Vec<String> =
            [IDENTITY, LSM, FUNCTIONS, TRACEPOINT].concat().iter().map(Attachment::link_name).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn every_operation_but_packets_and_scripts_has_a_hook() {
        let covered: BTreeSet<Op> = [LSM, TRACEPOINT].concat().iter().flat_map(|a| a.ops.iter().copied()).collect();
        let missing: Vec<Op> =
            Op::ALL.into_iter().filter(|op| !covered.contains(op) && !matches!(op, Op::Script | Op::Packet)).collect();
        assert_eq!(missing, [], "scripts come with sched_process_exec, packets with the datapath");
    }
}
