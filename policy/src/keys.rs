//! Map keys for the values that lines name and events carry. Generation 0 throughout.

use ringfence_abi::{
    Class, DestinationKey, Facet, KEY_HEAD_BITS, KeyHead, NAME, NameKey, NumberKey, PATH_PREFIX, PathKey,
    PathPrefixKey, Role,
};

use crate::line::{Network, Pattern, is_path};
use crate::tables::Prefix;

/// Which table a text pattern goes into, and its key there.
pub(crate) enum TextTable {
    Path(PathKey),
    PathPrefix(Prefix<PathPrefixKey>),
    Name(NameKey),
    NamePrefix(Prefix<NameKey>),
}

/// The role under which values of a text facet are kept.
pub(crate) fn role(facet: Facet) -> Role {
    match facet {
        Facet::ExePath | Facet::ExeName => Role::Exe,
        Facet::ParentPath | Facet::ParentName => Role::Parent,
        Facet::AncestorName => Role::Ancestor,
        Facet::NoAncestorName => Role::NoAncestor,
        Facet::Arg => Role::Arg,
        _ => Role::Object,
    }
}

fn head(class: Class, role: u8) -> KeyHead {
    KeyHead { generation: 0, class: class as u8, role, zero: 0 }
}

/// The beginning of `text`, padded with zeros.
fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| text.get(i).copied().unwrap_or(0))
}

/// Bits of a prefix key that compares `bytes` bytes after the head.
fn bits(bytes: usize) -> u32 {
    // Bounded by the kernel's 256 bytes per key.
    KEY_HEAD_BITS + 8 * u32::try_from(bytes).unwrap_or(0)
}

/// The exact key of a path. A longer path than can be listed is cut; no listed one fills the key.
pub(crate) fn path_key(class: Class, role: Role, path: &[u8]) -> PathKey {
    PathKey { head: head(class, role as u8), path: padded(path) }
}

/// The LPM key of a path, cut at what prefixes can hold.
pub(crate) fn path_prefix_key(class: Class, role: Role, path: &[u8]) -> Prefix<PathPrefixKey> {
    let path = &path[..path.len().min(PATH_PREFIX)];
    Prefix { bits: bits(path.len()), data: PathPrefixKey { head: head(class, role as u8), path: padded(path) } }
}

/// The exact key of a name, cut likewise.
pub(crate) fn name_key(class: Class, role: Role, name: &[u8]) -> NameKey {
    NameKey { head: head(class, role as u8), name: padded(name) }
}

/// The LPM key of a name, cut at what prefixes can hold.
pub(crate) fn name_prefix_key(class: Class, role: Role, name: &[u8]) -> Prefix<NameKey> {
    let name = &name[..name.len().min(NAME)];
    Prefix { bits: bits(name.len()), data: NameKey { head: head(class, role as u8), name: padded(name) } }
}

/// Table and key of a pattern whose length [`crate::line::Line::check`] has accepted.
pub(crate) fn text_table(class: Class, facet: Facet, pattern: &Pattern) -> TextTable {
    let (role, text) = (role(facet), pattern.text().as_bytes());
    match (is_path(facet), pattern) {
        (true, Pattern::Exact(_)) => TextTable::Path(path_key(class, role, text)),
        (true, Pattern::Prefix(_)) => TextTable::PathPrefix(path_prefix_key(class, role, text)),
        (false, Pattern::Exact(_)) => TextTable::Name(name_key(class, role, text)),
        (false, Pattern::Prefix(_)) => TextTable::NamePrefix(name_prefix_key(class, role, text)),
    }
}

/// The LPM key of an address range.
pub(crate) fn destination_key(class: Class, network: &Network) -> Prefix<DestinationKey> {
    let data = DestinationKey { head: head(class, Facet::Destination as u8), address: network.address() };
    Prefix { bits: KEY_HEAD_BITS + u32::from(network.bits()), data }
}

/// The key of a number or port.
pub(crate) fn number_key(class: Class, facet: Facet, number: u64) -> NumberKey {
    NumberKey { head: head(class, facet as u8), zero: 0, number }
}

const LEAST_HEAD: KeyHead = KeyHead { generation: 0, class: 0, role: 0, zero: 0 };

/// Data of LPM keys, to be cut.
pub(crate) trait PrefixData: Copy + Ord {
    /// No data is less.
    const LEAST: Self;
    /// Keeps the first `bits` bits after the head and zeroes the rest.
    fn keep(&mut self, bits: usize);
}

fn keep_bits(bytes: &mut [u8], bits: usize) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte &= match bits.saturating_sub(8 * i) {
            0 => 0,
            kept @ 1..=7 => 0xff << (8 - kept),
            _ => 0xff,
        };
    }
}

impl PrefixData for PathPrefixKey {
    const LEAST: Self = Self { head: LEAST_HEAD, path: [0; PATH_PREFIX] };

    fn keep(&mut self, bits: usize) {
        keep_bits(&mut self.path, bits);
    }
}

impl PrefixData for NameKey {
    const LEAST: Self = Self { head: LEAST_HEAD, name: [0; NAME] };

    fn keep(&mut self, bits: usize) {
        keep_bits(&mut self.name, bits);
    }
}

impl PrefixData for DestinationKey {
    const LEAST: Self = Self { head: LEAST_HEAD, address: [0; 16] };

    fn keep(&mut self, bits: usize) {
        keep_bits(&mut self.address, bits);
    }
}

/// The key cut to a smaller number of bits, head included.
pub(crate) fn shorten<K: PrefixData>(key: Prefix<K>, bits: u32) -> Prefix<K> {
    let mut data = key.data;
    data.keep(bits.saturating_sub(KEY_HEAD_BITS) as usize);
    Prefix { bits, data }
}
