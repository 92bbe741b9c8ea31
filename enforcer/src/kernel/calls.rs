//! Numbers of system calls, where a call's program is found by them ([`Calls::Every`](super::object::Calls::Every)).

/// The same on all architectures (since 6.6), but not known to musl on all of them.
const FCHMODAT2: libc::c_long = 452;

/// Every call that a program wants to see and that is not there on x86 alone: those have no tracepoint elsewhere.
const NUMBERS: [(&str, libc::c_long); 34] = [
    ("bind", libc::SYS_bind),
    ("bpf", libc::SYS_bpf),
    ("connect", libc::SYS_connect),
    ("delete_module", libc::SYS_delete_module),
    ("dup", libc::SYS_dup),
    ("dup3", libc::SYS_dup3),
    ("fchmod", libc::SYS_fchmod),
    ("fchmodat", libc::SYS_fchmodat),
    ("fchmodat2", FCHMODAT2),
    ("fcntl", libc::SYS_fcntl),
    ("finit_module", libc::SYS_finit_module),
    ("fsconfig", libc::SYS_fsconfig),
    ("ftruncate", libc::SYS_ftruncate),
    ("init_module", libc::SYS_init_module),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("kill", libc::SYS_kill),
    ("linkat", libc::SYS_linkat),
    ("memfd_create", libc::SYS_memfd_create),
    ("mkdirat", libc::SYS_mkdirat),
    ("mmap", libc::SYS_mmap),
    ("mount", libc::SYS_mount),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("openat", libc::SYS_openat),
    ("openat2", libc::SYS_openat2),
    ("ptrace", libc::SYS_ptrace),
    ("renameat", libc::SYS_renameat),
    ("renameat2", libc::SYS_renameat2),
    ("setns", libc::SYS_setns),
    ("socket", libc::SYS_socket),
    ("symlinkat", libc::SYS_symlinkat),
    ("tgkill", libc::SYS_tgkill),
    ("truncate", libc::SYS_truncate),
    ("unlinkat", libc::SYS_unlinkat),
    ("unshare", libc::SYS_unshare),
];

/// The call's number on this architecture.
pub fn number(call: &str) -> Option<u32> {
    NUMBERS.iter().find(|(name, _)| *name == call).and_then(|(_, number)| u32::try_from(*number).ok())
}

#[cfg(test)]
mod tests {
    use super::super::programs::{Hook, TRACEPOINT};
    use super::*;
    use ringfence_abi::CALLS;
    use std::collections::BTreeSet;

    /// Calls that newer architectures do not have: each has another one that does the same.
    const ON_X86_ALONE: [&str; 11] =
        ["chmod", "creat", "dup2", "ia32_mmap", "link", "mkdir", "open", "rename", "socketcall", "symlink", "unlink"];

    #[test]
    fn every_call_has_a_number_and_a_place() {
        let calls = TRACEPOINT.iter().filter_map(|attachment| match attachment.hook {
            Hook::Enter(call) | Hook::Exit(call) => Some(call),
            Hook::Trace(_) | Hook::Lsm(_) | Hook::Function(_) => None,
        });
        let missing: BTreeSet<&str> = calls.filter(|call| number(call).is_none_or(|number| number >= CALLS)).collect();
        assert_eq!(missing, BTreeSet::from(ON_X86_ALONE));
    }

    /// By a number there is one program on each side of a call.
    #[test]
    fn no_side_of_a_call_has_two_programs() {
        let mut sides = BTreeSet::new();
        for attachment in TRACEPOINT {
            assert!(sides.insert(attachment.link_name()), "{} twice", attachment.link_name());
        }
    }
}
