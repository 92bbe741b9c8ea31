//! Address ranges of exceptions.

use crate::Error;
use aya::maps::lpm_trie::Key;
use ringfence_abi::ExceptionKey;
use std::{fmt, net::IpAddr, str::FromStr};

/// An address range, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    /// Leading bits that count: at most 32 for IPv4, 128 for IPv6.
    bits: u8,
}

impl Network {
    pub(crate) fn key(self) -> Key<ExceptionKey> {
        let bits = match self.address {
            IpAddr::V4(_) => u32::from(self.bits) + 96,
            IpAddr::V6(_) => u32::from(self.bits),
        };
        Key::new(bits, ExceptionKey { address: mapped(self.address) })
    }
}

/// As the kernel side writes addresses: IPv4 as IPv4-mapped IPv6.
pub(crate) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Network(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| wrong())?,
            None => most,
        };
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_alone_is_one_address() {
        assert_eq!("192.0.2.7".parse::<Network>().unwrap(), "192.0.2.7/32".parse().unwrap());
        assert_eq!("fd00::1".parse::<Network>().unwrap(), "fd00::1/128".parse().unwrap());
    }

    #[test]
    fn ipv4_counts_its_bits_behind_the_mapping() {
        let key = "10.0.0.0/8".parse::<Network>().unwrap().key();
        assert_eq!(key.prefix_len(), 104);
        assert_eq!(key.data().address[10..], [0xff, 0xff, 10, 0, 0, 0]);
    }

    #[test]
    fn wrong_ranges_are_refused_with_an_example() {
        for wrong in ["", "/", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/-1", "example.org", "10.0.0.0/8/8"] {
            let error = wrong.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains("right would be 10.0.0.0/8"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(address: IpAddr, bits in 0u8..=128) {
            let bits = if address.is_ipv4() { bits % 33 } else { bits };
            let network = Network { address, bits };
            prop_assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
        }
    }
}
