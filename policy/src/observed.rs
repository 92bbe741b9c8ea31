//! An event as a line sees it.

use std::collections::BTreeSet;

use ringfence_abi::{ANCESTORS, Class, Event, Facet, Op, Tier, flag};

/// An event's facets. What an event has not is empty or zero, and satisfies only lines that do not ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What happened.
    pub op: Op,
    /// Bits of [`ringfence_abi::flag`].
    pub flags: u32,
    /// Path of the object.
    pub path: Vec<u8>,
    /// Exec: other names of the program: the one it was called by, and for busybox the applet's. A line may ask for
    /// them, but what it excludes is the file's own name alone.
    pub other_names: Vec<Vec<u8>>,
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

/// The tokens of arguments: what the kernel side compares with `arg`. The first counts by its last path component, and
/// without the dash that makes a login shell.
///
/// ```
/// let tokens: Vec<_> = ringfence_policy::tokens(b"/bin/sh\0-c\0xmrig -o 'stratum+tcp://a:1' --algo=rx\0").collect();
/// let expected: [&[u8]; 7] = [b"sh", b"-c", b"xmrig", b"-o", b"stratum+tcp://a:1", b"--algo", b"rx"];
/// assert_eq!(tokens, expected);
/// ```
pub fn tokens(args: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut first = true;
    args.split(|&byte| splits_arguments(byte)).filter_map(move |token| {
        let token = if first { without_dashes(name_of(token)) } else { token };
        first &= token.is_empty();
        (!token.is_empty()).then_some(token)
    })
}

fn without_dashes(name: &[u8]) -> &[u8] {
    &name[name.iter().take_while(|&&byte| byte == b'-').count()..]
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
            other_names: Vec::new(),
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

    /// What a record of the kernel side says. The executables of parents are not in it; they are marked unknown, and
    /// so is what was cut or was not there yet when the record was made.
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
        let mut exe = used(&event.exe, header.exe_len);
        if exe.len() == event.exe.len() {
            exe = &[];
            unknown.extend([Facet::ExePath, Facet::ExeName]);
        }
        let mut args = used(&event.args, header.args_len);
        if header.flags & flag::ARGS_TRUNCATED != 0 {
            // What follows the last separator may be only the beginning of a token.
            args = &args[..args.iter().rposition(|&byte| splits_arguments(byte)).map_or(0, |last| last + 1)];
            unknown.insert(Facet::Arg);
            if op == Op::Exec && !has_all_names(path, args) {
                unknown.insert(Facet::ObjectName);
            }
        }
        if op == Op::Exec && header.tier == Tier::Lsm as u8 {
            // Before the new program is in place: its arguments and its other names come later.
            args = &[];
            unknown.extend([Facet::Arg, Facet::ObjectName]);
        }
        Ok(Self {
            flags: header.flags,
            path: path.to_vec(),
            other_names: if op == Op::Exec { other_names(path, &header.comm, args) } else { Vec::new() },
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

    /// What the record of a candidate says, together with all of its arguments.
    pub fn from_candidate(event: &Event, args: &[u8]) -> Result<Self, UnknownOp> {
        let mut observed = Self::from_event(event)?;
        observed.unknown.remove(&Facet::Arg);
        if event.header.flags & flag::PATH_TRUNCATED == 0 {
            observed.unknown.remove(&Facet::ObjectName);
        }
        if observed.op == Op::Exec {
            observed.other_names = other_names(&observed.path, &event.header.comm, args);
        }
        observed.args = args.to_vec();
        Ok(observed)
    }

    /// The class of the operation.
    pub fn class(&self) -> Class {
        self.op.class()
    }

    /// The values of a text facet; of the object's name only the file's own.
    pub(crate) fn texts(&self, facet: Facet) -> Vec<&[u8]> {
        match facet {
            Facet::ObjectPath => vec![&self.path],
            Facet::ObjectName => vec![name_of(&self.path)],
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

/// Names of a program besides its file's: the kernel's for the new task, and what it was called by. Programs that are
/// many take their first argument for one, if they were called by a name of their own.
fn other_names(path: &[u8], comm: &[u8; 16], args: &[u8]) -> Vec<Vec<u8>> {
    let comm = comm.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut called = tokens(args);
    let first = called.next();
    let many = is_multi_call(name_of(path)) && first.is_some_and(is_multi_call);
    let second = if many { called.next() } else { None };
    std::iter::once(comm).chain(first).chain(second).map(<[u8]>::to_vec).collect()
}

/// Whether the beginning of the arguments holds all names that [`other_names`] takes from them.
fn has_all_names(path: &[u8], args: &[u8]) -> bool {
    let mut called = tokens(args);
    called
        .next()
        .is_some_and(|first| !(is_multi_call(name_of(path)) && is_multi_call(first)) || called.next().is_some())
}

/// By such names busybox (`appletlib.c`) and toybox (`main.c`) take the next argument for the applet's.
fn is_multi_call(name: &[u8]) -> bool {
    name.starts_with(b"busybox") || name.starts_with(b"toybox")
}

fn used(buffer: &[u8], length: u16) -> &[u8] {
    &buffer[..usize::from(length).min(buffer.len())]
}
