//! What can go wrong.

use std::{io, path::PathBuf};

/// Why BTF could not be read, or why a question has no safe answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read. No `/sys/kernel/btf/vmlinux`: the kernel is built without `CONFIG_DEBUG_INFO_BTF`.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The bytes begin with neither BTF's magic number nor, where that is allowed, ELF's.
    #[error("not BTF: it begins with {found:#06x} instead of 0xeb9f")]
    NotBtf {
        /// The first two bytes as a little-endian number.
        found: u16,
    },
    /// BTF of a big-endian kernel.
    #[error("this BTF is big-endian; only little-endian kernels (x86-64, arm64) are supported")]
    BigEndian,
    /// A version other than 1, the only one there is as of Linux 7.2.
    #[error("BTF version {0} is not supported, only version 1 is")]
    Version(u8),
    /// The bytes end before what they announce.
    #[error("truncated BTF: {need} bytes are needed for {what}, only {have} are there")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes needed, counted from the beginning of the section that holds it.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// A kind of type that is younger than this code. It cannot be skipped, because its length is not known.
    #[error("unknown BTF kind {kind} of type {id}: this kernel is newer than what was known when this was built")]
    UnknownKind {
        /// The kind; 1 to 19 are known.
        kind: u32,
        /// The type's number.
        id: u32,
    },
    /// A name, type or member that points nowhere, or a chain without end.
    #[error("damaged BTF: {what} of type {id}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// The type's number.
        id: u32,
    },
    /// The ELF file could not be read.
    #[error("not a readable ELF file: {0}")]
    Elf(#[from] object::read::Error),
    /// The ELF file has no section `.BTF`.
    #[error("the ELF file has no .BTF section; was it built without debug information?")]
    NoSection,
    /// No struct, union or typedef of one has this name.
    #[error("no struct {0}")]
    MissingStruct(String),
    /// The struct is known by name only, its members are not in this BTF.
    #[error("struct {0} is declared but not defined here; a module may define it")]
    OnlyDeclared(String),
    /// The struct has no such member.
    #[error("struct {structure} has no member {member}")]
    MissingMember {
        /// The struct.
        structure: String,
        /// The path of the member up to the component that is missing.
        member: String,
    },
    /// Several structs share the name and do not agree on the answer.
    #[error("struct {structure} exists {count} times, and they disagree on {question}: {answers}")]
    Ambiguous {
        /// The struct.
        structure: String,
        /// How many there are.
        count: usize,
        /// What was asked: a member's path, or the size.
        question: String,
        /// The different answers.
        answers: String,
    },
    /// The member is a bit field: it has no byte offset.
    #[error("{structure}.{member} is a bit field at bit {bit}: it has no offset in bytes")]
    Bitfield {
        /// The struct.
        structure: String,
        /// The path of the member.
        member: String,
        /// Bits from the beginning of the struct.
        bit: u32,
    },
    /// The path goes on behind a member that is no struct or union: a pointer has to be followed at run time.
    #[error("{structure}.{member} is {kind}, no struct: the path cannot go on behind it")]
    NotAStruct {
        /// The struct.
        structure: String,
        /// The path of the member up to the one that is no struct.
        member: String,
        /// What it is.
        kind: &'static str,
    },
}

impl Error {
    /// Whether the BTF is sound but does not contain what was asked for.
    ///
    /// This is how a feature finds out that the kernel does not have what it needs, and looks for another name.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::MissingStruct(_) | Self::OnlyDeclared(_) | Self::MissingMember { .. })
    }
}
