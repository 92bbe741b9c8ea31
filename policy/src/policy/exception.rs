//! What isolated pods may still exchange packets with.

use std::collections::BTreeMap;
use std::str::FromStr;

use ipnet::IpNet;
use ringfence_abi::{EXCEPTION_PORTS, ExceptionPorts, PortRange};

use crate::line::{NotANetwork, network};

/// A network, and which of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Addresses of peers.
    pub network: IpNet,
    /// Ports of those peers; empty: everything, whatever the protocol.
    pub ports: Vec<PortRange>,
}

impl FromStr for Exception {
    type Err = NotANetwork;

    /// An address or a network, whose peers may exchange everything.
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        Ok(Self { network: network(text)?, ports: Vec::new() })
    }
}

/// A network's ports, with those of the networks around it, are more than the kernel side has room for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{network} has {count} ranges of ports, with those of the networks that it is part of; {EXCEPTION_PORTS} are possible"
)]
pub struct TooManyPorts {
    /// The network.
    pub network: IpNet,
    /// Its ranges.
    pub count: usize,
}

/// What applies to each network, by what all of them say: the kernel side finds only the smallest that an address is in.
pub fn effective(exceptions: &[Exception]) -> Result<BTreeMap<IpNet, ExceptionPorts>, TooManyPorts> {
    let of = |network: IpNet| {
        let around: Vec<_> = exceptions.iter().filter(|other| other.network.contains(&network)).collect();
        if around.iter().any(|other| other.ports.is_empty()) {
            return Ok((network, ExceptionPorts::ALL));
        }
        let mut ranges: Vec<PortRange> = around.iter().flat_map(|other| other.ports.iter().copied()).collect();
        ranges.sort_unstable();
        ranges.dedup();
        let count = ranges.len();
        let ports = ExceptionPorts::new(&ranges).ok_or(TooManyPorts { network, count })?;
        Ok((network, ports))
    };
    exceptions.iter().map(|exception| of(exception.network)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(port: u16) -> PortRange {
        PortRange { first: port, last: port, protocol: 6 }
    }

    fn exception(network: &str, ports: &[u16]) -> Exception {
        Exception { network: network.parse().unwrap(), ports: ports.iter().copied().map(tcp).collect() }
    }

    #[test]
    fn an_address_alone_is_one_address() {
        for (text, same) in [("192.0.2.7", "192.0.2.7/32"), ("fd00::1", "fd00::1/128"), ("10.9.9.9/8", "10.0.0.0/8")] {
            assert_eq!(text.parse::<Exception>(), same.parse());
        }
    }

    #[test]
    fn wrong_ranges_are_refused_with_an_example() {
        for wrong in ["", "/", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/-1", "example.org", "10.0.0.0/8/8"] {
            let error = wrong.parse::<Exception>().unwrap_err().to_string();
            assert!(error.contains("right would be 10.0.0.0/8"), "{error}");
        }
    }

    #[test]
    fn what_a_wider_network_may_do_a_part_of_it_may_too() {
        let exceptions = [exception("10.0.0.0/8", &[443]), exception("10.1.0.0/16", &[80, 443])];
        let effective = effective(&exceptions).unwrap();
        assert_eq!(effective[&exceptions[0].network], ExceptionPorts::new(&[tcp(443)]).unwrap());
        assert_eq!(effective[&exceptions[1].network], ExceptionPorts::new(&[tcp(80), tcp(443)]).unwrap());
    }

    #[test]
    fn everything_is_more_than_any_ports() {
        let exceptions = [exception("fd00::/8", &[]), exception("fd00::1/128", &[80])];
        assert_eq!(effective(&exceptions).unwrap()[&exceptions[1].network], ExceptionPorts::ALL);
    }

    #[test]
    fn ports_that_do_not_fit_are_an_error_that_names_the_network() {
        let many: Vec<u16> = (1..=9).collect();
        let exceptions = [exception("10.0.0.0/8", &many), exception("10.0.0.1/32", &[80, 81, 82, 83, 84, 85, 86, 87])];
        let error = effective(&exceptions).unwrap_err().to_string();
        assert!(error.starts_with("10.0.0.1/32 has 17 ranges of ports"), "{error}");
    }
}
