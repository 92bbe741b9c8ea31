//! An event as a line sees it.

use std::collections::BTreeSet;

use ringfence_abi::{ANCESTORS, Class, Event, Facet, Op, flag};

/// An event's facets. What an event has not is empty or zero, and satisfies only lines that do not ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What happened.
    pub op: Op,
    /// Bits of [`ringfence_abi::flag`].
    pub flags: u32,
    /// Path of the object.
    pub path: Vec<u8>,
    /// Exec: the last component of the name by which the program was called, where it differs.
    pub invoked: Vec<u8>,
    /// Path of the acting process's executable.
    pub exe: Vec<u8>,
    /// Path of the parent's executable.
    pub parent: Vec<u8>,
    /// Names of the executables of the parent, its parent and so on; only the first [`ANCESTORS`] count.
    pub ancestors: Vec<Vec<u8>>,
    /// Arguments, each ended by a zero byte.
    pub args: Vec<u8>,
    /// Remote (bind, listen: local) address, IPv4 as IPv4-mapped IPv6.
    pub address: [u8; 16],
    /// Remote (bind, listen: local) port.
    pub port: u16,
    /// The operation's own number.
    pub number: u64,
    /// Address family.
    pub family: u8,
    /// Socket type.
    pub socket_type: u8,
    /// Facets that may have values which are not given here.
    pub unknown: BTreeSet<Facet>,
}

/// The record's operation is not one that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {op} of class {class} is unknown to this version")]
pub struct UnknownOp {
    op: u8,
    class: u8,
}

/// Whether a byte of the arguments separates tokens.
pub(crate) fn splits_arguments(byte: u8) -> bool {
    matches!(byte, 0 | b' ' | b'\t' | b'\n' | b'=' | b',' | b'\'' | b'"')
}

/// The tokens of arguments: what the kernel side compares with `arg`.
///
/// ```
/// let tokens: Vec<_> = ringfence_policy::tokens(b"sh\0-c\0xmrig -o 'stratum+tcp://a:1' --algo=rx\0").collect();
/// let expected: [&[u8]; 7] = [b"sh", b"-c", b"xmrig", b"-o", b"stratum+tcp://a:1", b"--algo", b"rx"];
/// assert_eq!(tokens, expected);
/// ```
pub fn tokens(args: &[u8]) -> impl Iterator<Item = &[u8]> {
    args.split(|&byte| splits_arguments(byte)).filter(|token| !token.is_empty())
}

/// Last component of a path.
pub(crate) fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

impl Observed {
    /// An event with nothing but an operation.
    pub fn new(op: Op) -> Self {
        Self {
            op,
            flags: 0,
            path: Vec::new(),
            invoked: Vec::new(),
            exe: Vec::new(),
            parent: Vec::new(),
            ancestors: Vec::new(),
            args: Vec::new(),
            address: [0; 16],
            port: 0,
            number: 0,
            family: 0,
            socket_type: 0,
            unknown: BTreeSet::new(),
        }
    }

    /// What a record of the kernel side says. Names of parents' executables and the name by which a program was
    /// called are not in it; they are marked unknown.
    pub fn from_event(event: &Event) -> Result<Self, UnknownOp> {
        let header = &event.header;
        let unknown_op = UnknownOp { op: header.op, class: header.class };
        let op = Op::ALL.into_iter().find(|op| *op as u8 == header.op).ok_or(unknown_op)?;
        if op.class() as u8 != header.class {
            return Err(unknown_op);
        }
        let mut unknown =
            BTreeSet::from([Facet::ParentPath, Facet::ParentName, Facet::AncestorName, Facet::NoAncestorName]);
        let mut path = used(&event.path, header.path_len);
        if header.flags & flag::PATH_TRUNCATED != 0 {
            path = &[];
            unknown.extend([Facet::ObjectPath, Facet::ObjectName]);
        }
        if op == Op::Exec {
            unknown.insert(Facet::ObjectName);
        }
        let mut exe = used(&event.exe, header.exe_len);
        if exe.len() == event.exe.len() {
            exe = &[];
            unknown.extend([Facet::ExePath, Facet::ExeName]);
        }
        let args = used(&event.args, header.args_len);
        if header.flags & flag::ARGS_TRUNCATED != 0 || args.len() == event.args.len() {
            unknown.insert(Facet::Arg);
        }
        Ok(Self {
            flags: header.flags,
            path: path.to_vec(),
            exe: exe.to_vec(),
            args: args.to_vec(),
            address: header.address,
            port: header.port,
            number: header.number,
            family: header.family,
            socket_type: header.socket_type,
            unknown,
            ..Self::new(op)
        })
    }

    /// The class of the operation.
    pub fn class(&self) -> Class {
        self.op.class()
    }

    /// The values of a text facet.
    pub(crate) fn texts(&self, facet: Facet) -> Vec<&[u8]> {
        match facet {
            Facet::ObjectPath => vec![&self.path],
            Facet::ObjectName if self.invoked.is_empty() => vec![name_of(&self.path)],
            Facet::ObjectName => vec![name_of(&self.path), &self.invoked],
            Facet::ExePath => vec![&self.exe],
            Facet::ExeName => vec![name_of(&self.exe)],
            Facet::ParentPath => vec![&self.parent],
            Facet::ParentName => vec![name_of(&self.parent)],
            Facet::AncestorName | Facet::NoAncestorName => {
                self.ancestors.iter().take(ANCESTORS).map(Vec::as_slice).collect()
            }
            Facet::Arg => tokens(&self.args).collect(),
            Facet::Destination | Facet::Port | Facet::Number => Vec::new(),
        }
    }
}

fn used(buffer: &[u8], length: u16) -> &[u8] {
    &buffer[..usize::from(length).min(buffer.len())]
}
