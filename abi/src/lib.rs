//! What the eBPF programs and user space have in common: events, map keys and values, limits.
//!
//! Invariants, see [`layout`]: every struct is `repr(C)`, has no padding, and is laid out alike on both targets.
//!
//! How matching works, in one paragraph. Each event belongs to a [`Class`]. Per class there are up to
//! [`LINES`] lines; a line is one bit of a [`Vector`]. Each facet look-up yields the vector of the lines
//! that the observed value satisfies (a line that does not care about the facet is always set). The AND of
//! all facets and of the pod's enabled lines is the set of violated lines.
#![no_std]

pub mod layout;

mod event;
mod facet;
mod offsets;
mod slot;

pub use event::*;
pub use facet::*;
pub use offsets::*;
pub use slot::*;

/// Lines of one class: one bit each.
pub const LINES: usize = 256;

/// A set of lines of one class, bit `n` of word `n / 64`.
pub type Vector = [u64; LINES / 64];

/// The empty set of lines.
pub const NONE: Vector = [0; LINES / 64];

/// The set of all lines.
pub const ALL: Vector = [u64::MAX; LINES / 64];

/// Event classes. Each has its own line numbers and facet tables.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A program was started.
    Exec = 0,
    /// A file was opened, or mapped executable.
    Open = 1,
    /// A name or an attribute in a file system was changed.
    Change = 2,
    /// A socket was made, connected or bound, or sent a packet.
    Network = 3,
    /// A process used a privileged or process-related call.
    Process = 4,
}

impl Class {
    /// All classes, in the order of their numbers.
    pub const ALL: [Self; CLASSES] = [Self::Exec, Self::Open, Self::Change, Self::Network, Self::Process];
}

/// Number of event classes.
pub const CLASSES: usize = 5;

/// What happened, within its class. Numbers are unique over all classes.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Exec: the file that the kernel loaded (for a script: its interpreter).
    Exec = 0,
    /// Exec: the script as it was named by the caller, when the kernel loaded its interpreter.
    Script = 1,
    /// Open: a file was opened; the flags say how.
    Open = 8,
    /// Open: a file was mapped executable.
    Mmap = 9,
    /// Change: a name was removed.
    Unlink = 16,
    /// Change: the old name of a rename.
    RenameFrom = 17,
    /// Change: the new name of a rename.
    RenameTo = 18,
    /// Change: the existing file of a hard link.
    LinkFrom = 19,
    /// Change: the new name of a hard link.
    LinkTo = 20,
    /// Change: the text of a new symbolic link.
    SymlinkTarget = 21,
    /// Change: the name of a new symbolic link.
    Symlink = 22,
    /// Change: mode bits were set; the flags say which.
    Chmod = 23,
    /// Change: a file was cut to a length; `number` is the length.
    Truncate = 24,
    /// Change: a directory was made.
    Mkdir = 25,
    /// Network: a connection was begun; TCP, connected UDP, or a Unix socket (then `path` is set).
    Connect = 32,
    /// Network: an address was bound.
    Bind = 33,
    /// Network: a socket began to listen.
    Listen = 34,
    /// Network: a socket was made.
    Socket = 35,
    /// Network: a packet is on its way out.
    Packet = 36,
    /// Network: a connected internet socket was put on descriptor 0, 1 or 2.
    Stdio = 37,
    /// Process: ptrace; `number` is the request.
    Ptrace = 48,
    /// Process: the source (device) of a mount.
    MountSource = 49,
    /// Process: the target of a mount.
    MountTarget = 50,
    /// Process: setns, also when it fails; `number` is the namespace type asked for.
    Setns = 51,
    /// Process: unshare or clone with new namespaces; `number` is the flags.
    Unshare = 52,
    /// Process: an anonymous memory file was made.
    Memfd = 53,
    /// Process: bpf(2); `number` is the command.
    Bpf = 54,
    /// Process: a kernel module was loaded or removed.
    Module = 55,
    /// Process: a signal was sent to another process; `number` is the signal.
    Kill = 56,
    /// Process: one of the pod is, or gets a cgroup made, where the pod's cgroups are not, and not by the runtime's doing.
    Escape = 57,
    /// Process: a ring for `io_uring` was set up.
    Ring = 58,
}

impl Op {
    /// All operations, in the order of their numbers.
    pub const ALL: [Self; 31] = [
        Self::Exec,
        Self::Script,
        Self::Open,
        Self::Mmap,
        Self::Unlink,
        Self::RenameFrom,
        Self::RenameTo,
        Self::LinkFrom,
        Self::LinkTo,
        Self::SymlinkTarget,
        Self::Symlink,
        Self::Chmod,
        Self::Truncate,
        Self::Mkdir,
        Self::Connect,
        Self::Bind,
        Self::Listen,
        Self::Socket,
        Self::Packet,
        Self::Stdio,
        Self::Ptrace,
        Self::MountSource,
        Self::MountTarget,
        Self::Setns,
        Self::Unshare,
        Self::Memfd,
        Self::Bpf,
        Self::Module,
        Self::Kill,
        Self::Escape,
        Self::Ring,
    ];

    /// The class whose lines this operation is matched against.
    pub const fn class(self) -> Class {
        match self as u8 {
            0..=7 => Class::Exec,
            8..=15 => Class::Open,
            16..=31 => Class::Change,
            32..=47 => Class::Network,
            _ => Class::Process,
        }
    }
}

/// Properties of an event that are true or false: bits of [`EventHeader::flags`].
///
/// Lines name them, plain or negated, in lower case.
pub mod flag {
    /// The file lives in the overlay's upper layer and its content is not the image's: new, or rewritten.
    pub const DRIFTED: u32 = 1 << 0;
    /// The file lives in the overlay's upper layer (also when only its attributes changed).
    pub const UPPER: u32 = 1 << 1;
    /// The file has a counterpart in a lower layer: it comes from the image.
    pub const FROM_IMAGE: u32 = 1 << 2;
    /// The file lives on a tmpfs, which no image provides.
    pub const TMPFS: u32 = 1 << 3;
    /// The file has no name: a memfd, or unlinked.
    pub const NAMELESS: u32 = 1 << 4;
    /// The file lives on neither an overlay, a tmpfs nor a kernel file system: a volume.
    pub const VOLUME: u32 = 1 << 5;
    /// The file is a regular file.
    pub const REGULAR: u32 = 1 << 6;
    /// The file is a block device.
    pub const BLOCK_DEVICE: u32 = 1 << 7;
    /// Opened for reading.
    pub const READ: u32 = 1 << 8;
    /// Opened for writing.
    pub const WRITE: u32 = 1 << 9;
    /// The open created the file.
    pub const CREATED: u32 = 1 << 10;
    /// The open left an existing file empty: it was truncated.
    pub const EMPTIED: u32 = 1 << 11;
    /// The mode (of the file, or asked for) has an execute bit.
    pub const EXECUTABLE: u32 = 1 << 12;
    /// The mode has set-user-id, or set-group-id together with group execute.
    pub const SETUID: u32 = 1 << 13;
    /// The process has a controlling terminal.
    pub const TTY: u32 = 1 << 14;
    /// The process was put into the container from outside: its entry point, or an exec by the runtime.
    pub const ENTRY: u32 = 1 << 15;
    /// Standard input, output or error is a connected internet socket whose peer is not on the loopback.
    pub const STDIO_SOCKET: u32 = 1 << 16;
    /// A new user namespace is asked for.
    pub const NEW_USER_NAMESPACE: u32 = 1 << 18;
    /// The other process is not the caller itself.
    pub const OTHER_PROCESS: u32 = 1 << 19;
    /// The path comes from a string of the caller, joined and normalised, not from the kernel's own objects.
    pub const STRING_PATH: u32 = 1 << 20;
    /// The path was longer or deeper than can be held; `path` is its beginning.
    pub const PATH_TRUNCATED: u32 = 1 << 21;
    /// There were more arguments than the kernel side looks at.
    pub const ARGS_TRUNCATED: u32 = 1 << 22;
    /// The call failed.
    pub const FAILED: u32 = 1 << 23;

    /// Every flag with the name that lines use.
    pub const NAMES: [(&str, u32); 23] = [
        ("drifted", DRIFTED),
        ("upper", UPPER),
        ("from_image", FROM_IMAGE),
        ("tmpfs", TMPFS),
        ("nameless", NAMELESS),
        ("volume", VOLUME),
        ("regular", REGULAR),
        ("block_device", BLOCK_DEVICE),
        ("read", READ),
        ("write", WRITE),
        ("created", CREATED),
        ("emptied", EMPTIED),
        ("executable", EXECUTABLE),
        ("setuid", SETUID),
        ("tty", TTY),
        ("entry", ENTRY),
        ("stdio_socket", STDIO_SOCKET),
        ("new_user_namespace", NEW_USER_NAMESPACE),
        ("other_process", OTHER_PROCESS),
        ("string_path", STRING_PATH),
        ("path_truncated", PATH_TRUNCATED),
        ("args_truncated", ARGS_TRUNCATED),
        ("failed", FAILED),
    ];
}
