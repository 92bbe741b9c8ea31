//! Facet tables: keys and values of the maps that turn an observed value into a vector of lines.

use crate::{CLASSES, Class, Vector, layout::shared};

/// Longest path that an exact path entry can hold, in bytes.
pub const PATH_KEY: usize = 252;
/// Longest path prefix, in bytes. The kernel's limit for an LPM key is 256 bytes.
pub const PATH_PREFIX: usize = 244;
/// Longest name (one path component) or argument token that is compared, in bytes.
pub const NAME: usize = 60;

/// Which file, process or list of them a path or name facet speaks of.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The event's own file: executed, opened, changed, connected to.
    Object = 0,
    /// The executable of the acting process. Exec events have none: theirs is the object.
    Exe = 1,
    /// The executable of the acting process's parent.
    Parent = 2,
    /// The executable of any of the nearest [`ANCESTORS`] ancestors (satisfied if one of them is).
    Ancestor = 3,
    /// The same ancestors, for exceptions (satisfied if none of them is named). Only programs of the image count: a
    /// container can give its own any name.
    NoAncestor = 4,
    /// An argument token of a started program (satisfied if one of them is).
    Arg = 5,
}

impl Role {
    /// All roles, in the order of their numbers.
    pub const ALL: [Self; ROLES] = [Self::Object, Self::Exe, Self::Parent, Self::Ancestor, Self::NoAncestor, Self::Arg];
}

/// Ancestors that [`Role::Ancestor`] looks at, the parent included.
pub const ANCESTORS: usize = 8;

/// Facets with a default vector and a mask of the lines that care: indices into [`FacetDefault`]s.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Facet {
    /// Path of the object, exact or by prefix.
    ObjectPath = 0,
    /// Name (last component) of the object, exact or by prefix. For exec: also the name it was invoked by.
    ObjectName = 1,
    /// Path of the acting process's executable.
    ExePath = 2,
    /// Name of the acting process's executable.
    ExeName = 3,
    /// Path of the parent's executable.
    ParentPath = 4,
    /// Name of the parent's executable.
    ParentName = 5,
    /// Name of an ancestor's executable.
    AncestorName = 6,
    /// No ancestor's executable has the name.
    NoAncestorName = 7,
    /// A token of the arguments, exact or by prefix.
    Arg = 8,
    /// Remote address, by prefix; IPv4 as IPv4-mapped IPv6.
    Destination = 9,
    /// Remote (bind, listen: local) port.
    Port = 10,
    /// The operation's own number (ptrace request, signal ...).
    Number = 11,
}

impl Facet {
    /// All facets, in the order of their numbers.
    pub const ALL: [Self; FACETS] = [
        Self::ObjectPath,
        Self::ObjectName,
        Self::ExePath,
        Self::ExeName,
        Self::ParentPath,
        Self::ParentName,
        Self::AncestorName,
        Self::NoAncestorName,
        Self::Arg,
        Self::Destination,
        Self::Port,
        Self::Number,
    ];
}

/// Which names a table lists at all, told by their first two bytes: bit `first + 256 * second`. (A name of one byte has
/// a zero behind it.) Most names and arguments are in no table; this spares their look-ups.
pub type NameStarts = [u64; 65_536 / 64];

/// Roles that have tables of names.
pub const ROLES: usize = 6;

/// Index into the map of [`NameStarts`].
pub const fn name_starts_index(generation: u32, class: u8, role: u8) -> u32 {
    ((generation % BANKS as u32) * CLASSES as u32 + class as u32) * ROLES as u32 + role as u32
}

/// Entries of the map of [`NameStarts`].
pub const NAME_STARTS_ENTRIES: u32 = (BANKS * CLASSES * ROLES) as u32;

/// Number of keyed facets.
pub const FACETS: usize = 12;

/// Facets whose value is one byte: each is a table of 256 vectors.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ByteFacet {
    /// The operation, [`crate::Op`].
    Op = 0,
    /// Bits 0 to 7 of the flags.
    Flags0 = 1,
    /// Bits 8 to 15 of the flags.
    Flags1 = 2,
    /// Bits 16 to 23 of the flags.
    Flags2 = 3,
    /// Address family (`AF_INET` is 2).
    Family = 4,
    /// Socket type (`SOCK_STREAM` is 1).
    SocketType = 5,
}

/// Number of byte facets.
pub const BYTE_FACETS: usize = 6;

/// Generations of the tables that exist side by side while one replaces the other.
pub const BANKS: usize = 2;

/// What each value of a byte facet means.
pub type ByteFacetVectors = [Vector; 256];

/// Index into the map of [`ByteFacetVectors`].
pub const fn byte_facet_index(generation: u32, class: Class, facet: ByteFacet) -> u32 {
    ((generation % BANKS as u32) * CLASSES as u32 + class as u32) * BYTE_FACETS as u32 + facet as u32
}

/// Entries of the map of [`ByteFacetVectors`].
pub const BYTE_FACET_ENTRIES: u32 = (BANKS * CLASSES * BYTE_FACETS) as u32;

/// Those of all facets of a class, by [`Facet`].
pub type FacetDefaults = [FacetDefault; FACETS];

/// Index into the map of [`FacetDefaults`].
pub const fn facet_defaults_index(generation: u32, class: Class) -> u32 {
    (generation % BANKS as u32) * CLASSES as u32 + class as u32
}

/// Entries of the map of [`FacetDefaults`].
pub const FACET_DEFAULTS_ENTRIES: u32 = (BANKS * CLASSES) as u32;

shared! {
    /// What a facet says when its tables hold nothing for a value.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FacetDefault {
        /// Lines that are satisfied by an unlisted value: those that do not care, and those that only exclude values.
        pub default: Vector,
        /// Lines that care about this facet. If none of them is still possible the look-up can be spared.
        pub care: Vector,
    }
}

shared! {
    /// What one listed value (or prefix) of a facet means.
    ///
    /// The facet's vector is `(default | set of all entries that apply) & !(clear of all entries that apply)`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Entry {
        /// Lines that ask for this value.
        pub set: Vector,
        /// Lines that exclude this value.
        pub clear: Vector,
    }
}

shared! {
    /// First four bytes of every facet key.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct KeyHead {
        /// Generation of the tables, modulo 256.
        pub generation: u8,
        /// [`Class`].
        pub class: u8,
        /// [`Role`] for paths and names, [`Facet`] for numbers and destinations.
        pub role: u8,
        /// Always 0.
        pub zero: u8,
    }
}

/// Bits of [`KeyHead`]: what every prefix key starts with.
pub const KEY_HEAD_BITS: u32 = 32;

shared! {
    /// An exact path, padded with zeros.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct PathKey {
        /// Which table.
        pub head: KeyHead,
        /// The path, absolute as seen in the container.
        pub path: [u8; PATH_KEY],
    }
}

shared! {
    /// Data of an LPM key for a path prefix.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct PathPrefixKey {
        /// Which table.
        pub head: KeyHead,
        /// The beginning of the path.
        pub path: [u8; PATH_PREFIX],
    }
}

shared! {
    /// An exact name or argument token, padded with zeros. Also the data of an LPM key for its prefixes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct NameKey {
        /// Which table.
        pub head: KeyHead,
        /// The name.
        pub name: [u8; NAME],
    }
}

shared! {
    /// Data of an LPM key for a destination.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct DestinationKey {
        /// Which table; `role` is [`Facet::Destination`].
        pub head: KeyHead,
        /// Address in network byte order; IPv4 as `::ffff:a.b.c.d`.
        pub address: [u8; 16],
    }
}

shared! {
    /// A number or a port.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct NumberKey {
        /// Which table; `role` is [`Facet::Number`] or [`Facet::Port`].
        pub head: KeyHead,
        /// Always 0.
        pub zero: u32,
        /// The number.
        pub number: u64,
    }
}
