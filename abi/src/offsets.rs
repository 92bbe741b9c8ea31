//! Where the running kernel keeps what the programs read: byte offsets, found in its BTF before load.

use crate::layout::shared;

/// An offset that the running kernel does not have. Whatever needs it is left out, never read at 0.
pub const ABSENT: u32 = u32::MAX;

/// How to find one offset: the struct and the member's path. Alternatives are separated by `|`, tried in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Field of [`Offsets`].
    pub field: &'static str,
    /// Kernel struct.
    pub of: &'static str,
    /// Member path, dots between levels.
    pub path: &'static str,
}

macro_rules! offsets {
    ($($field:ident: $of:literal $path:literal,)*) => {
        shared! {
            /// Byte offsets of kernel members.
            ///
            /// Sources: `include/linux/{sched,fs,dcache,mount,cgroup-defs,kernfs,binfmts}.h`, `fs/mount.h`,
            /// `include/net/{sock,af_unix}.h`, `include/linux/tcp.h`; 5.10 to 7.2.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct Offsets {
                $(#[doc = concat!("`", $of, ".", $path, "`")] pub $field: u32,)*
                /// `ovl_inode.__upperdentry`, counted from its embedded `vfs_inode`.
                pub ovl_upper: u32,
                /// A pointer in `ovl_inode` that is set when there is a lower inode (before 6.5), counted from `vfs_inode`.
                pub ovl_lower: u32,
                /// `ovl_inode.oe` (since 6.5), counted from `vfs_inode`.
                pub ovl_entry: u32,
                /// `ovl_entry.__numlower` (since 6.5).
                pub ovl_entry_numlower: u32,
                /// `io_kiocb.opcode`: the operation of a ring's request.
                pub io_opcode: u32,
                /// `io_kiocb.cqe.res` (since 5.19): its result.
                pub io_result: u32,
                /// The first five arguments of a system call in `pt_regs`.
                pub arguments: [u32; 5],
                /// The number of a system call in `pt_regs`, where the kernel tells there whose it is, too (arm64).
                pub call_number: u32,
                /// The processor's state in `pt_regs`, which tells whether a program of 32 bits made the call.
                pub call_state: u32,
                /// The first five arguments of a function of the kernel in `pt_regs`, at its entry.
                pub parameters: [u32; 5],
                /// Parameters of the security hook `path_rename`: 4, since 5.19 5.
                pub rename_parameters: u32,
            }
        }

        impl Offsets {
            /// Members that have to be there on every kernel, in the order of the struct's fields.
            pub const MEMBERS: &'static [Member] = &[
                $(Member { field: stringify!($field), of: $of, path: $path },)*
            ];

            /// Nothing known yet.
            pub const UNKNOWN: Self = Self {
                $($field: ABSENT,)*
                ovl_upper: ABSENT,
                ovl_lower: ABSENT,
                ovl_entry: ABSENT,
                ovl_entry_numlower: ABSENT,
                io_opcode: ABSENT,
                io_result: ABSENT,
                arguments: [ABSENT; 5],
                call_number: ABSENT,
                call_state: ABSENT,
                parameters: [ABSENT; 5],
                rename_parameters: ABSENT,
            };

            /// Offsets of [`Self::MEMBERS`] in the order of that list.
            pub fn from_members(values: &[u32]) -> Self {
                let mut all = Self::UNKNOWN;
                let mut value = values.iter().copied();
                $(all.$field = value.next().unwrap_or(ABSENT);)*
                all
            }
        }
    };
}

offsets! {
    binprm_file: "linux_binprm" "file",
    binprm_filename: "linux_binprm" "filename",
    binprm_interp: "linux_binprm" "interp",
    cgroup_kn: "cgroup" "kn",
    cgroup_parent_css: "cgroup" "self.parent",
    cgroup_root: "cgroup" "root",
    css_cgroup: "cgroup_subsys_state" "cgroup",
    css_set_default: "css_set" "dfl_cgrp",
    css_set_subsys: "css_set" "subsys",
    cred_gid: "cred" "gid",
    cred_uid: "cred" "uid",
    dentry_inode: "dentry" "d_inode",
    dentry_name: "dentry" "d_name|__d_name",
    dentry_parent: "dentry" "d_parent",
    fdtable_fd: "fdtable" "fd",
    fdtable_max: "fdtable" "max_fds",
    file_dentry: "file" "f_path.dentry",
    file_flags: "file" "f_flags",
    file_inode: "file" "f_inode",
    file_mnt: "file" "f_path.mnt",
    file_mode: "file" "f_mode",
    file_private: "file" "private_data",
    files_fdtable: "files_struct" "fdt",
    fs_pwd_dentry: "fs_struct" "pwd.dentry",
    fs_pwd_mnt: "fs_struct" "pwd.mnt",
    fs_root_dentry: "fs_struct" "root.dentry",
    fs_root_mnt: "fs_struct" "root.mnt",
    inode_ino: "inode" "i_ino",
    inode_mode: "inode" "i_mode",
    inode_nlink: "inode" "i_nlink|__i_nlink",
    inode_sb: "inode" "i_sb",
    inode_size: "inode" "i_size",
    kernfs_id: "kernfs_node" "id",
    kernfs_name: "kernfs_node" "name",
    mm_arg_end: "mm_struct" "arg_end",
    mm_arg_start: "mm_struct" "arg_start",
    mm_env_end: "mm_struct" "env_end",
    mm_env_start: "mm_struct" "env_start",
    mm_exe: "mm_struct" "exe_file",
    mnt_ns_inum: "mnt_namespace" "ns.inum",
    mount_mnt: "mount" "mnt",
    mount_mountpoint: "mount" "mnt_mountpoint",
    mount_parent: "mount" "mnt_parent",
    nsproxy_mnt: "nsproxy" "mnt_ns",
    path_dentry: "path" "dentry",
    path_mnt: "path" "mnt",
    sb_dev: "super_block" "s_dev",
    sb_magic: "super_block" "s_magic",
    signal_live: "signal_struct" "live.counter",
    signal_tty: "signal_struct" "tty",
    sock_daddr: "sock" "__sk_common.skc_daddr",
    sock_daddr6: "sock" "__sk_common.skc_v6_daddr",
    sock_dport: "sock" "__sk_common.skc_dport",
    sock_family: "sock" "__sk_common.skc_family",
    sock_num: "sock" "__sk_common.skc_num",
    sock_protocol: "sock" "sk_protocol",
    sock_rcv_saddr: "sock" "__sk_common.skc_rcv_saddr",
    sock_rcv_saddr6: "sock" "__sk_common.skc_v6_rcv_saddr",
    sock_state: "sock" "__sk_common.skc_state",
    sock_type: "sock" "sk_type",
    socket_sk: "socket" "sk",
    task_cgroups: "task_struct" "cgroups",
    task_comm: "task_struct" "comm",
    task_cred: "task_struct" "cred",
    task_files: "task_struct" "files",
    task_fs: "task_struct" "fs",
    task_mm: "task_struct" "mm",
    task_nsproxy: "task_struct" "nsproxy",
    task_pid: "task_struct" "pid",
    task_real_parent: "task_struct" "real_parent",
    task_signal: "task_struct" "signal",
    task_start: "task_struct" "start_boottime|real_start_time",
    task_tgid: "task_struct" "tgid",
    tcp_fastopen_req: "tcp_sock" "fastopen_req",
    unix_path_dentry: "unix_sock" "path.dentry",
    unix_path_mnt: "unix_sock" "path.mnt",
    unix_peer: "unix_sock" "peer",
    vfsmount_root: "vfsmount" "mnt_root",
}

shared! {
    /// What else the programs know of the node, fixed at load.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Node {
        /// Index of the v1 controller by which tasks are known, in `css_set.subsys`; [`ABSENT`] on a pure v2 node.
        pub v1_controller: u32,
        /// A [`crate::Tier`]: of the programs on security hooks, which see what is opened, mapped and connected to, and
        /// whatever else this kernel has hooks for. `Tracepoint`: there are none. `Lsm`: they deny, and judge executions
        /// too, before they happen.
        pub hooks: u32,
        /// 1: one of them sees who begins to trace another process.
        pub tracing_hooked: u32,
        /// 1: one of them sees sockets as they are made.
        pub sockets_hooked: u32,
        /// What these programs return to deny, as an unsigned number; 0 where nothing but 0 may be returned.
        pub refusal: u32,
        /// 1: an overlay's upper layer was told from its lower one by a trial at start; else drift is blind.
        pub overlay_proven: u32,
        /// 1: programs on system calls are handed the registers with which the call was made, and its result: by the
        /// trampoline of its function, or at the tracepoint of all calls. 0: a call's own tracepoint's record.
        pub calls_by_registers: u32,
        /// 1: of 32-bit system calls, whose arguments are the lower halves of registers.
        pub compat_calls: u32,
    }
}

/// Places for programs by the number of a system call: more than any kernel has calls.
pub const CALLS: u32 = 1024;

/// Stands in the object with direct reads where the kernel function `bpf_rdonly_cast` is called: a helper that no kernel
/// has. The loader puts the function's number in its place, if this kernel has it and lets it make plain memory of any
/// address (6.17).
pub const RDONLY_CAST: u32 = 0x5246_0001;
