//! The words of the line language, and which operation has which facet.

use ringfence_abi::{Class, Facet, Op, flag};

use super::LineError;
use crate::nearest::nearest;

const OPS: [(&str, Op); Op::ALL.len()] = [
    ("exec", Op::Exec),
    ("script", Op::Script),
    ("open", Op::Open),
    ("mmap", Op::Mmap),
    ("unlink", Op::Unlink),
    ("rename_from", Op::RenameFrom),
    ("rename_to", Op::RenameTo),
    ("link_from", Op::LinkFrom),
    ("link_to", Op::LinkTo),
    ("symlink_target", Op::SymlinkTarget),
    ("symlink", Op::Symlink),
    ("chmod", Op::Chmod),
    ("truncate", Op::Truncate),
    ("mkdir", Op::Mkdir),
    ("connect", Op::Connect),
    ("bind", Op::Bind),
    ("listen", Op::Listen),
    ("socket", Op::Socket),
    ("packet", Op::Packet),
    ("stdio", Op::Stdio),
    ("ptrace", Op::Ptrace),
    ("mount_source", Op::MountSource),
    ("mount_target", Op::MountTarget),
    ("setns", Op::Setns),
    ("escape", Op::Escape),
    ("unshare", Op::Unshare),
    ("memfd", Op::Memfd),
    ("bpf", Op::Bpf),
    ("module", Op::Module),
    ("kill", Op::Kill),
    ("ring", Op::Ring),
];

/// Address families, `AF_*` of linux/socket.h.
const FAMILIES: [(&str, u8); 9] = [
    ("unix", 1),
    ("inet", 2),
    ("inet6", 10),
    ("key", 15),
    ("netlink", 16),
    ("packet", 17),
    ("alg", 38),
    ("vsock", 40),
    ("xdp", 44),
];

/// Socket types, `SOCK_*` of linux/net.h.
const SOCKET_TYPES: [(&str, u8); 7] =
    [("stream", 1), ("dgram", 2), ("raw", 3), ("rdm", 4), ("seqpacket", 5), ("dccp", 6), ("packet", 10)];

/// Requests of ptrace(2), linux/ptrace.h and asm/ptrace-abi.h (the same on x86-64 and arm64 where both have them).
const PTRACE: [(&str, u64); 23] = [
    ("traceme", 0),
    ("peektext", 1),
    ("peekdata", 2),
    ("peekuser", 3),
    ("poketext", 4),
    ("pokedata", 5),
    ("pokeuser", 6),
    ("cont", 7),
    ("kill", 8),
    ("singlestep", 9),
    ("getregs", 12),
    ("setregs", 13),
    ("getfpregs", 14),
    ("setfpregs", 15),
    ("attach", 16),
    ("detach", 17),
    ("syscall", 24),
    ("setoptions", 0x4200),
    ("getregset", 0x4204),
    ("setregset", 0x4205),
    ("seize", 0x4206),
    ("interrupt", 0x4207),
    ("setsigmask", 0x420b),
];

/// Signals, asm-generic/signal.h.
const SIGNALS: [(&str, u64); 9] = [
    ("hup", 1),
    ("int", 2),
    ("quit", 3),
    ("abrt", 6),
    ("kill", 9),
    ("segv", 11),
    ("term", 15),
    ("cont", 18),
    ("stop", 19),
];

/// Namespace types of setns(2), and single flags of unshare(2): linux/sched.h.
const NAMESPACES: [(&str, u64); 8] = [
    ("newtime", 0x80),
    ("newns", 0x2_0000),
    ("newcgroup", 0x200_0000),
    ("newuts", 0x400_0000),
    ("newipc", 0x800_0000),
    ("newuser", 0x1000_0000),
    ("newpid", 0x2000_0000),
    ("newnet", 0x4000_0000),
];

/// Commands of bpf(2), linux/bpf.h.
const BPF: [(&str, u64); 5] =
    [("map_create", 0), ("prog_load", 5), ("obj_get", 7), ("prog_attach", 8), ("link_create", 28)];

/// The word for an operation.
pub fn op_name(op: Op) -> &'static str {
    OPS.iter().find(|(_, o)| *o == op).map_or("?", |(name, _)| name)
}

/// The word for the lowest of the given flags.
pub fn flag_name(flags: u32) -> Option<&'static str> {
    flag::NAMES.iter().find(|(_, bit)| flags & bit != 0).map(|(name, _)| *name)
}

/// The keys by which lines ask for and exclude values of a facet.
pub fn facet_key(facet: Facet) -> (&'static str, &'static str) {
    match facet {
        Facet::ObjectPath => ("path", "not_path"),
        Facet::ObjectName => ("name", "not_name"),
        Facet::ExePath => ("exe", "not_exe"),
        Facet::ExeName => ("exe_name", "not_exe_name"),
        Facet::ParentPath => ("parent", "not_parent"),
        Facet::ParentName => ("parent_name", "not_parent_name"),
        Facet::AncestorName | Facet::NoAncestorName => ("ancestor", "not_ancestor"),
        Facet::Arg => ("arg", "not_arg"),
        Facet::Destination => ("to", "not_to"),
        Facet::Port => ("port", "not_port"),
        Facet::Number => ("number", "not_number"),
    }
}

/// Whether events of an operation carry a facet. Without it they would satisfy only lines that exclude values.
pub fn has_facet(op: Op, facet: Facet) -> bool {
    match facet {
        Facet::ObjectPath | Facet::ObjectName => {
            matches!(op.class(), Class::Exec | Class::Open | Class::Change)
                || matches!(op, Op::Connect | Op::MountSource | Op::MountTarget)
        }
        Facet::ExePath | Facet::ExeName => op.class() != Class::Exec && op != Op::Packet,
        // A packet may leave on another task's time: its process is not known.
        Facet::ParentPath | Facet::ParentName | Facet::AncestorName | Facet::NoAncestorName => op != Op::Packet,
        Facet::Arg => op.class() == Class::Exec,
        Facet::Destination | Facet::Port => op.class() == Class::Network && op != Op::Socket,
        Facet::Number => {
            matches!(op, Op::Truncate | Op::Ptrace | Op::Setns | Op::Unshare | Op::Bpf | Op::Kill)
        }
    }
}

/// Whether events of an operation can have a flag. A script is named by a string: its file's flags are not known.
pub fn has_flag(op: Op, flag: u32) -> bool {
    match flag {
        flag::TTY | flag::ENTRY | flag::STDIO_SOCKET | flag::ARGS_TRUNCATED => op.class() == Class::Exec,
        flag::READ | flag::WRITE | flag::CREATED | flag::EMPTIED => op == Op::Open,
        flag::NEW_USER_NAMESPACE => op == Op::Unshare,
        flag::OTHER_PROCESS => matches!(op, Op::Ptrace | Op::Kill),
        flag::STRING_PATH => op == Op::Script || op.class() == Class::Change || op.class() == Class::Process,
        flag::FAILED => op.class() == Class::Process,
        flag::PATH_TRUNCATED => has_facet(op, Facet::ObjectPath),
        flag::EXECUTABLE | flag::SETUID => matches!(op, Op::Exec | Op::Open | Op::Mmap | Op::Chmod),
        // Of the file itself: also known where a call has a descriptor (fchmod, ftruncate).
        _ => matches!(op, Op::Exec | Op::Open | Op::Mmap | Op::Chmod | Op::Truncate),
    }
}

pub(super) fn op(word: &str) -> Result<Op, LineError> {
    find("an operation", &OPS, word)
}

pub(super) fn flag_bit(word: &str) -> Result<u32, LineError> {
    find("a flag", &flag::NAMES, word)
}

pub(super) fn family(word: &str) -> Result<u8, LineError> {
    find("an address family", &FAMILIES, word)
}

pub(super) fn socket_type(word: &str) -> Result<u8, LineError> {
    find("a socket type", &SOCKET_TYPES, word)
}

/// The word for an address family, else its number.
pub(super) fn family_name(family: u8) -> String {
    word_for(&FAMILIES, &family)
}

/// The word for a socket type, else its number.
pub(super) fn socket_type_name(socket_type: u8) -> String {
    word_for(&SOCKET_TYPES, &socket_type)
}

/// The word for an operation's own number, else the number.
pub(super) fn number_name(op: Option<Op>, number: u64) -> String {
    word_for(numbers(op).1, &number)
}

/// The number that a word stands for with the given operation.
pub(super) fn number(op: Option<Op>, word: &str) -> Result<u64, LineError> {
    let (what, words) = numbers(op);
    find(what, words, word)
}

/// What an operation's own number is, and the words for it.
fn numbers(op: Option<Op>) -> (&'static str, &'static [(&'static str, u64)]) {
    match op {
        Some(Op::Ptrace) => ("a number or a ptrace request", &PTRACE),
        Some(Op::Kill) => ("a number or a signal", &SIGNALS),
        Some(Op::Setns | Op::Unshare) => ("a number or a kind of namespace", &NAMESPACES),
        Some(Op::Bpf) => ("a number or a bpf command", &BPF),
        _ => ("a number", &[]),
    }
}

fn word_for<T: PartialEq + ToString>(words: &[(&str, T)], value: &T) -> String {
    words.iter().find(|(_, known)| known == value).map_or_else(|| value.to_string(), |(word, _)| (*word).into())
}

fn find<T: Copy>(what: &'static str, words: &[(&str, T)], word: &str) -> Result<T, LineError> {
    words.iter().find(|(name, _)| *name == word).map(|(_, value)| *value).ok_or_else(|| LineError::UnknownWord {
        what,
        value: word.into(),
        nearest: nearest(word, words.iter().map(|(name, _)| *name)).map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_name() {
        for named in Op::ALL {
            assert_eq!(op(op_name(named)), Ok(named));
        }
    }

    #[test]
    fn unknown_words_get_the_nearest() {
        let error = op("renam_to").unwrap_err().to_string();
        assert_eq!(error, "'renam_to' is not an operation, did you mean 'rename_to'?");
        assert_eq!(number(Some(Op::Ptrace), "seize"), Ok(0x4206));
        assert!(number(Some(Op::Truncate), "seize").is_err());
    }
}
