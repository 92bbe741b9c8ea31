//! Addresses as the kernel side writes them.

use aya::maps::lpm_trie::Key;
use ipnet::IpNet;
use ringfence_abi::ExceptionKey;
use std::net::IpAddr;

/// The key of a network of exceptions.
pub(crate) fn key(network: IpNet) -> Key<ExceptionKey> {
    let bits = u32::from(network.prefix_len());
    let bits = if network.addr().is_ipv4() { bits + 96 } else { bits };
    Key::new(bits, ExceptionKey { address: mapped(network.addr()) })
}

/// IPv4 as IPv4-mapped IPv6.
pub(crate) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_counts_its_bits_behind_the_mapping() {
        let key = key("10.0.0.0/8".parse().unwrap());
        assert_eq!(key.prefix_len(), 104);
        assert_eq!(key.data().address[10..], [0xff, 0xff, 10, 0, 0, 0]);
    }
}
