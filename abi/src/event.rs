//! The record of a violation, as it comes out of the ring buffer.

use crate::{Vector, layout::shared};

/// Bytes of the object's path that a record holds; a longer path is cut at its end.
pub const EVENT_PATH: usize = 256;
/// Bytes of arguments that are matched in the kernel, and that a record holds.
pub const EVENT_ARGS: usize = 2048;
/// Bytes of arguments that the record of a candidate holds: see [`done::CANDIDATE`].
pub const CANDIDATE_ARGS: usize = 16 << 10;
/// Processes above the acting one that a record names, nearest first.
pub const EVENT_ANCESTORS: usize = 8;

/// Bytes of the ring buffers. One of an earlier enforcer with another size is replaced, not adopted.
pub mod room {
    /// Of `EVENTS`: violations that only log.
    pub const EVENTS: u32 = 4 << 20;
    /// Of `MITIGATIONS`.
    pub const MITIGATIONS: u32 = 2 << 20;
    /// Of `CANDIDATES`.
    pub const CANDIDATES: u32 = 1 << 20;
}

/// What was done in the kernel, in the same run: bits of [`EventHeader::done`].
pub mod done {
    /// The slot's isolated bit was set (or was set already).
    pub const ISOLATED: u8 = 1 << 0;
    /// SIGKILL was sent to the process.
    pub const KILLED: u8 = 1 << 1;
    /// The operation was denied (`lsm` tier).
    pub const DENIED: u8 = 1 << 2;
    /// Nothing: `lines` are candidates. Everything but what stands in arguments that the kernel has not looked at
    /// satisfies them; user space reads those and decides.
    pub const CANDIDATE: u8 = 1 << 7;
}

/// How strong the node's kernel lets us be, strongest last.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Tracepoints: always possible; detects, and kills before the process runs on.
    Tracepoint = 1,
    /// Kprobes on the security hooks.
    Kprobe = 2,
    /// Trampolines on the security hooks.
    Fentry = 3,
    /// LSM programs: can deny.
    Lsm = 4,
}

shared! {
    /// One process of an ancestry.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ancestor {
        /// Process id in the initial pid namespace; 0: no such ancestor.
        pub pid: u32,
        /// Slot of the ancestor's own cgroup; 0: outside of every pod.
        pub slot: u32,
        /// Start, `CLOCK_BOOTTIME` in ns.
        pub start: u64,
        /// Command name; the process chooses it itself.
        pub comm: [u8; 16],
    }
}

shared! {
    /// The record of one violation. On the ring buffer `args` is cut to `args_len`; a candidate's goes on, up to
    /// [`CANDIDATE_ARGS`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Event {
        /// Everything of fixed size.
        pub header: EventHeader,
        /// The object's path, `path_len` bytes.
        pub path: [u8; EVENT_PATH],
        /// The acting process's executable, `exe_len` bytes.
        pub exe: [u8; EVENT_PATH],
        /// Arguments of the acting process, each ended by a zero byte.
        pub args: [u8; EVENT_ARGS],
    }
}

shared! {
    /// The part of fixed size of an [`Event`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EventHeader {
        /// `CLOCK_MONOTONIC` in ns when the hook began to look at the event.
        pub begun_at: u64,
        /// `CLOCK_MONOTONIC` in ns when it was decided that this is a violation, right before the mitigation.
        pub at: u64,
        /// `CLOCK_MONOTONIC` in ns right after the mitigation in the kernel; 0: there was none.
        pub mitigated_at: u64,
        /// The violated lines, or the candidates.
        pub lines: Vector,
        /// Start of the acting process, `CLOCK_BOOTTIME` in ns.
        pub start: u64,
        /// The acting process's [`crate::CgroupKey`] by which it was found.
        pub cgroup: u64,
        /// The operation's own number.
        pub number: u64,
        /// Remote (bind, listen: local) address; IPv4 as IPv4-mapped IPv6.
        pub address: [u8; 16],
        /// Bits of [`crate::flag`].
        pub flags: u32,
        /// The pod.
        pub slot: u32,
        /// Generation of the tables that decided; line numbers are only valid within it.
        pub generation: u32,
        /// Process id in the initial pid namespace.
        pub pid: u32,
        /// Thread id in the initial pid namespace.
        pub tid: u32,
        /// Real user id in the initial user namespace.
        pub uid: u32,
        /// Real group id in the initial user namespace.
        pub gid: u32,
        /// The other process (ptrace, kill); 0: none.
        pub target_pid: u32,
        /// Remote (bind, listen: local) port, host byte order.
        pub port: u16,
        /// Socket protocol (`IPPROTO_TCP` is 6).
        pub protocol: u16,
        /// Bytes of `path` in use.
        pub path_len: u16,
        /// Bytes of `exe` in use.
        pub exe_len: u16,
        /// Bytes of `args` in use.
        pub args_len: u16,
        /// [`crate::Class`].
        pub class: u8,
        /// [`crate::Op`].
        pub op: u8,
        /// [`Tier`].
        pub tier: u8,
        /// Bits of [`done`].
        pub done: u8,
        /// Address family.
        pub family: u8,
        /// Socket type.
        pub socket_type: u8,
        /// The acting process's command name; the process chooses it itself.
        pub comm: [u8; 16],
        /// The acting process's parents, nearest first.
        pub ancestors: [Ancestor; EVENT_ANCESTORS],
    }
}

/// Bytes of an [`Event`] before its variable tail.
pub const EVENT_FIXED: usize = core::mem::offset_of!(Event, args);
