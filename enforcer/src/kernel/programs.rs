//! Every program of the object, the hook it sits on, and when it is needed.

use ringfence_abi::{Op, Tier};
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
    /// Nobody needs it where security hooks see these operations.
    pub only_without_hooks: bool,
}

/// A program on a security hook, which has the hook's name: of the hook itself (`lsm`), or of the kernel's function that
/// calls it (`fentry`, `kprobe`).
#[derive(Debug)]
pub struct SecurityHook {
    /// The hook.
    pub name: &'static str,
    /// The function.
    pub function: &'static str,
    /// Operations that it sees.
    pub ops: &'static [Op],
}

macro_rules! hooks {
    ($($name:literal: $ops:expr,)*) => {
        &[$(SecurityHook { name: $name, function: concat!("security_", $name), ops: $ops },)*]
    };
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

/// On every system call, where their programs are found by their numbers: each where there are any.
pub const EVERY_CALL: &[Attachment] =
    &[always("every_enter", Hook::Trace("sys_enter")), always("every_exit", Hook::Trace("sys_exit"))];

/// Denies executions. Only where programs deny: who can't waits for `sched_process_exec`, which knows more.
pub const EXECUTION: &SecurityHook =
    &SecurityHook { name: "bprm_check_security", function: "security_bprm_check", ops: &[Op::Exec] };

/// No hook, but a system call, and called for the same.
pub const OPENAT: &SecurityHook = &SecurityHook {
    name: "file_open",
    function: if cfg!(target_arch = "aarch64") { "__arm64_sys_openat" } else { "__x64_sys_openat" },
    ops: &[Op::Open],
};

/// Without one of these the kernel does not have the tier.
pub const ESSENTIAL: &[SecurityHook] = hooks![
    "file_open": &[Op::Open],
    "mmap_file": &[Op::Mmap],
    "socket_connect": &[Op::Connect],
    "unix_stream_connect": &[Op::Connect],
];

/// Each where the kernel has it. Calls that these see as well stay observed for what comes as far as no hook.
pub const FURTHER: &[SecurityHook] = hooks![
    "path_unlink": &[Op::Unlink],
    "path_rename": RENAME,
    "path_link": LINK,
    "path_symlink": SYMLINK,
    "path_mkdir": &[Op::Mkdir],
    "path_chmod": &[Op::Chmod],
    "ptrace_access_check": &[Op::Ptrace],
    "sb_mount": &[Op::MountSource],
    "socket_post_create": &[Op::Socket],
];

const RENAME: &[Op] = &[Op::RenameFrom, Op::RenameTo];
const LINK: &[Op] = &[Op::LinkFrom, Op::LinkTo];
const SYMLINK: &[Op] = &[Op::SymlinkTarget, Op::Symlink];
const MOUNT: &[Op] = &[Op::MountSource, Op::MountTarget];

/// The `tracepoint` tier.
pub const TRACEPOINT: &[Attachment] = &[
    alone("exit_open", Hook::Exit("open"), &[Op::Open]),
    alone("exit_open", Hook::Exit("openat"), &[Op::Open]),
    alone("exit_open", Hook::Exit("openat2"), &[Op::Open]),
    alone("exit_open", Hook::Exit("creat"), &[Op::Open]),
    alone("exit_open", Hook::Exit("open_by_handle_at"), &[Op::Open]),
    alone("io_uring_complete", Hook::Trace("io_uring_complete"), &[Op::Open]),
    alone("exit_mmap", Hook::Exit("mmap"), &[Op::Mmap]),
    // Of 32-bit programs alone, like socketcall: the old one.
    alone("exit_old_mmap", Hook::Exit("ia32_mmap"), &[Op::Mmap]),
    alone("enter_unlink", Hook::Enter("unlink"), &[Op::Unlink]),
    alone("exit_change", Hook::Exit("unlink"), &[Op::Unlink]),
    alone("enter_unlinkat", Hook::Enter("unlinkat"), &[Op::Unlink]),
    alone("exit_change", Hook::Exit("unlinkat"), &[Op::Unlink]),
    alone("enter_rename", Hook::Enter("rename"), RENAME),
    alone("exit_change", Hook::Exit("rename"), RENAME),
    alone("enter_renameat", Hook::Enter("renameat"), RENAME),
    alone("exit_change", Hook::Exit("renameat"), RENAME),
    alone("enter_renameat2", Hook::Enter("renameat2"), RENAME),
    alone("exit_renameat2", Hook::Exit("renameat2"), RENAME),
    alone("enter_link", Hook::Enter("link"), LINK),
    alone("exit_change", Hook::Exit("link"), LINK),
    alone("enter_linkat", Hook::Enter("linkat"), LINK),
    alone("exit_change", Hook::Exit("linkat"), LINK),
    alone("enter_symlink", Hook::Enter("symlink"), SYMLINK),
    alone("exit_change", Hook::Exit("symlink"), SYMLINK),
    alone("enter_symlinkat", Hook::Enter("symlinkat"), SYMLINK),
    alone("exit_change", Hook::Exit("symlinkat"), SYMLINK),
    alone("enter_chmod", Hook::Enter("chmod"), &[Op::Chmod]),
    alone("exit_change", Hook::Exit("chmod"), &[Op::Chmod]),
    alone("exit_fchmod", Hook::Exit("fchmod"), &[Op::Chmod]),
    alone("enter_fchmodat", Hook::Enter("fchmodat"), &[Op::Chmod]),
    alone("exit_change", Hook::Exit("fchmodat"), &[Op::Chmod]),
    alone("enter_fchmodat", Hook::Enter("fchmodat2"), &[Op::Chmod]),
    alone("exit_change", Hook::Exit("fchmodat2"), &[Op::Chmod]),
    on("enter_truncate", Hook::Enter("truncate"), &[Op::Truncate]),
    on("exit_change", Hook::Exit("truncate"), &[Op::Truncate]),
    on("exit_ftruncate", Hook::Exit("ftruncate"), &[Op::Truncate]),
    alone("enter_mkdir", Hook::Enter("mkdir"), &[Op::Mkdir]),
    alone("exit_change", Hook::Exit("mkdir"), &[Op::Mkdir]),
    alone("enter_mkdirat", Hook::Enter("mkdirat"), &[Op::Mkdir]),
    alone("exit_change", Hook::Exit("mkdirat"), &[Op::Mkdir]),
    on("inet_sock_set_state", Hook::Trace("inet_sock_set_state"), &[Op::Connect, Op::Listen]),
    on("exit_connect", Hook::Exit("connect"), &[Op::Connect, Op::Stdio]),
    on("exit_bind", Hook::Exit("bind"), &[Op::Bind]),
    alone("exit_socket", Hook::Exit("socket"), &[Op::Socket]),
    on("exit_socketcall", Hook::Exit("socketcall"), &[Op::Connect, Op::Stdio, Op::Bind, Op::Socket]),
    on("exit_dup", Hook::Exit("dup"), &[Op::Stdio]),
    on("exit_dup", Hook::Exit("dup2"), &[Op::Stdio]),
    on("exit_dup", Hook::Exit("dup3"), &[Op::Stdio]),
    on("exit_fcntl", Hook::Exit("fcntl"), &[Op::Stdio]),
    on("exit_ptrace", Hook::Exit("ptrace"), &[Op::Ptrace]),
    on("exit_setns", Hook::Exit("setns"), &[Op::Setns]),
    on("exit_unshare", Hook::Exit("unshare"), &[Op::Unshare]),
    on("exit_memfd", Hook::Exit("memfd_create"), &[Op::Memfd]),
    on("exit_ring", Hook::Exit("io_uring_setup"), &[Op::Ring]),
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
    on(program, hook, &[])
}

const fn on(program: &'static str, hook: Hook, ops: &'static [Op]) -> Attachment {
    Attachment { program, hook, ops, only_without_hooks: false }
}

const fn alone(program: &'static str, hook: Hook, ops: &'static [Op]) -> Attachment {
    Attachment { only_without_hooks: true, ..on(program, hook, ops) }
}

impl SecurityHook {
    /// The program in its place for this tier; `None`: it has none there.
    pub const fn on(&self, tier: Tier) -> Option<Attachment> {
        match tier {
            Tier::Lsm => Some(on(self.name, Hook::Lsm(self.name), self.ops)),
            Tier::Fentry | Tier::Kprobe => Some(on(self.name, Hook::Function(self.function), self.ops)),
            Tier::Tracepoint => None,
        }
    }
}

/// Every hook that has a program.
pub fn security_hooks() -> impl Iterator<Item = &'static SecurityHook> {
    ESSENTIAL.iter().chain(FURTHER).chain([EXECUTION])
}

/// The hooks without which there is no such tier.
pub fn essential_hooks(tier: Tier) -> impl Iterator<Item = &'static SecurityHook> {
    ESSENTIAL.iter().chain((tier == Tier::Lsm).then_some(EXECUTION))
}

/// Their programs.
pub fn essential(tier: Tier) -> impl Iterator<Item = Attachment> {
    essential_hooks(tier).filter_map(move |hook| hook.on(tier))
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

/// The functions of a 32-bit system call, of those that this kernel has
/// (`arch/x86/entry/syscalls/syscall_32.tbl`): of one that takes its arguments otherwise, that one.
pub fn compat_functions_of(call: &str, has: impl Fn(&str) -> bool) -> Vec<String> {
    // What is one call for programs of 64 bits.
    let further: &[&str] = match call {
        "fcntl" => &["fcntl64"],
        "ftruncate" => &["ia32_ftruncate64"],
        "mmap" => &["mmap_pgoff"],
        "truncate" => &["ia32_truncate64"],
        _ => &[],
    };
    let calls = [call].into_iter().chain(further.iter().copied());
    let function = |call| ["__ia32_compat_sys_", "__ia32_sys_"].map(|prefix| format!("{prefix}{call}"));
    calls.filter_map(|call| function(call).into_iter().find(|function| has(function))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compat_function_is_taken_where_there_is_one() {
        let kernel =
            ["__ia32_compat_sys_truncate", "__ia32_sys_truncate", "__ia32_sys_ia32_truncate64", "__ia32_sys_dup"];
        let has = |function: &str| kernel.contains(&function);
        assert_eq!(compat_functions_of("truncate", has), ["__ia32_compat_sys_truncate", "__ia32_sys_ia32_truncate64"]);
        assert_eq!(compat_functions_of("dup", has), ["__ia32_sys_dup"]);
        assert_eq!(compat_functions_of("fsconfig", has), [""; 0]);
    }

    #[test]
    fn link_names_are_unique() {
        let hooks = |tier| security_hooks().filter_map(move |hook| hook.on(tier));
        let all: Vec<String> = [IDENTITY, EVERY_CALL, TRACEPOINT]
            .concat()
            .into_iter()
            .chain([Tier::Lsm, Tier::Fentry].into_iter().flat_map(hooks))
            .map(|attachment| attachment.link_name())
            .collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn every_operation_but_packets_and_scripts_is_seen_without_security_hooks() {
        let tracepoints = TRACEPOINT.iter().flat_map(|attachment| attachment.ops.iter().copied());
        let covered: BTreeSet<Op> = tracepoints.chain([Op::Exec, Op::Escape]).collect();
        let missing: Vec<Op> =
            Op::ALL.into_iter().filter(|op| !covered.contains(op) && !matches!(op, Op::Script | Op::Packet)).collect();
        assert_eq!(
            missing,
            [],
            "executions and scripts come with sched_process_exec, escapes with cgroups, packets with the datapath"
        );
    }

    /// What `ringfence_policy::coverage` goes by is what there are programs for.
    #[test]
    fn hooked_operations_are_those_that_coverage_knows() {
        use ringfence_policy::coverage::{HOOKED, HOOKED_TO_DENY};
        let of = |tier| {
            let hooks = essential(tier).chain(FURTHER.iter().filter_map(move |hook| hook.on(tier)));
            hooks.flat_map(|attachment| attachment.ops).copied().collect::<BTreeSet<Op>>()
        };
        let (denied, seen) = (of(Tier::Lsm), of(Tier::Kprobe));
        assert_eq!(denied, HOOKED.iter().copied().collect());
        assert_eq!(denied.difference(&seen).copied().collect::<Vec<_>>(), HOOKED_TO_DENY);
    }
}
