//! Values that a line names: texts and networks.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A path, name or argument token: exact, or by its beginning (written with a trailing `*`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// The whole text.
    Exact(String),
    /// Its beginning.
    Prefix(String),
}

impl Pattern {
    /// The text without the `*`.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
        }
    }

    /// Whether a value satisfies the pattern.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
        }
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        text.strip_suffix('*').map_or_else(|| Self::Exact(text.into()), |prefix| Self::Prefix(prefix.into()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
        }
    }
}

/// An address range. IPv4 is held as IPv4-mapped IPv6, so `::/0` contains every IPv4 address too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: [u8; 16],
    bits: u8,
}

impl Network {
    /// The first `bits` bits (at most 128) of an address in network byte order.
    pub fn new(address: [u8; 16], bits: u8) -> Self {
        let bits = bits.min(128);
        let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        Self { address: (u128::from_be_bytes(address) & mask).to_be_bytes(), bits }
    }

    /// Its first address, network byte order.
    pub fn address(&self) -> [u8; 16] {
        self.address
    }

    /// Bits that are compared.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether an address lies in the range.
    pub fn contains(&self, address: &[u8; 16]) -> bool {
        Self::new(*address, self.bits).address == self.address
    }
}

/// An IPv4 or IPv6 address as 16 bytes in network byte order, IPv4 as `::ffff:a.b.c.d`.
pub fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl From<IpNet> for Network {
    fn from(net: IpNet) -> Self {
        let offset = if matches!(net, IpNet::V4(_)) { 96 } else { 0 };
        Self::new(address_bytes(net.network()), net.prefix_len() + offset)
    }
}

/// Not an address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an address or an address range; right would be 10.0.0.0/8, 192.0.2.7 or fd00::/8")]
pub struct NotANetwork(String);

/// Reads a range (`10.0.0.0/8`), whatever its host bits, or one address.
pub fn network(text: &str) -> Result<IpNet, NotANetwork> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    network.map(|network| network.trunc()).ok_or_else(|| NotANetwork(text.to_owned()))
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        network(text).map(Self::from)
    }
}
