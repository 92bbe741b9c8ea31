//! The isolated bit of each slot, and the mark of those that are to be terminated.

use crate::{Error, network::key};
use aya::maps::{Array, HashMap, LpmTrie, MapData};
use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use ringfence_abi::{ExceptionKey, ExceptionPorts, FlowKey, Isolation, SLOTS};

/// Isolates slots and releases them. The kernel side sets the same bit by itself on a violation.
pub struct Switch {
    isolated: Array<MapData, Isolation>,
    terminating: Array<MapData, u64>,
    exceptions: LpmTrie<MapData, ExceptionKey, ExceptionPorts>,
    probe_flows: HashMap<MapData, FlowKey, u64>,
}

impl Switch {
    pub(crate) fn new(ebpf: &mut aya::Ebpf) -> Result<Self, Error> {
        Ok(Self {
            isolated: take(ebpf, "ISOLATED")?,
            terminating: take(ebpf, "TERMINATING")?,
            exceptions: take(ebpf, "EXCEPTIONS")?,
            probe_flows: take(ebpf, "PROBE_FLOWS")?,
        })
    }

    /// Whether the slot is isolated, since when, and what was dropped.
    pub fn isolation(&self, slot: u32) -> Result<Isolation, Error> {
        self.isolated.get(&existing(slot)?, 0).map_err(map_error("ISOLATED"))
    }

    /// Isolates the slot from the next packet on. Isolated already, it keeps its time and count.
    pub fn isolate(&mut self, slot: u32) -> Result<(), Error> {
        if self.isolation(slot)?.since != 0 {
            return Ok(());
        }
        let isolation = Isolation { since: now(), dropped: 0 };
        self.isolated.set(slot, isolation, 0).map_err(map_error("ISOLATED"))
    }

    /// Since when the slot is to be terminated: `CLOCK_MONOTONIC` in ns; 0: it is not. A violation sets it in the kernel.
    pub fn terminating(&self, slot: u32) -> Result<u64, Error> {
        self.terminating.get(&existing(slot)?, 0).map_err(map_error("TERMINATING"))
    }

    /// The slot is to be terminated, by a decision of user space.
    pub fn terminate(&mut self, slot: u32) -> Result<(), Error> {
        if self.terminating(slot)? != 0 {
            return Ok(());
        }
        self.terminating.set(slot, now(), 0).map_err(map_error("TERMINATING"))
    }

    /// The slot has been terminated, or is not to be any more.
    pub fn terminated(&mut self, slot: u32) -> Result<(), Error> {
        self.terminating.set(existing(slot)?, 0, 0).map_err(map_error("TERMINATING"))
    }

    /// Lifts the isolation, also of a slot that is to be given away anew, and returns what it was. It is not to be
    /// terminated any more either.
    pub fn release(&mut self, slot: u32) -> Result<Isolation, Error> {
        let was = self.isolation(slot)?;
        self.isolated.set(slot, Isolation::default(), 0).map_err(map_error("ISOLATED"))?;
        self.terminated(slot)?;
        let flows: Vec<FlowKey> =
            self.probe_flows.keys().filter_map(Result::ok).filter(|flow| flow.slot == slot).collect();
        for flow in flows {
            gone_or(self.probe_flows.remove(&flow), "PROBE_FLOWS")?;
        }
        Ok(was)
    }

    /// Replaces the list of networks that isolated pods may still exchange packets with, and of their ports. Of
    /// networks that an address is in, the smallest counts.
    pub fn set_exceptions(
        &mut self,
        exceptions: impl IntoIterator<Item = (IpNet, ExceptionPorts)>,
    ) -> Result<(), Error> {
        let mut wanted = Vec::new();
        for (network, ports) in exceptions {
            let key = key(network);
            self.exceptions.insert(&key, ports, 0).map_err(map_error("EXCEPTIONS"))?;
            wanted.push(key);
        }
        let stale: Vec<_> = self
            .exceptions
            .keys()
            .filter_map(Result::ok)
            .filter(|key| !wanted.iter().any(|w| is_same_range(key.prefix_len(), &key.data(), w)))
            .collect();
        for key in stale {
            gone_or(self.exceptions.remove(&key), "EXCEPTIONS")?;
        }
        Ok(())
    }
}

/// Ranges are the same if the bits that count are.
fn is_same_range(bits: u32, data: &ExceptionKey, other: &aya::maps::lpm_trie::Key<ExceptionKey>) -> bool {
    let leading = |key: &ExceptionKey| match 128 - bits {
        128 => 0,
        rest => u128::from_be_bytes(key.address) >> rest,
    };
    bits == other.prefix_len() && leading(data) == leading(&other.data())
}

fn existing(slot: u32) -> Result<u32, Error> {
    if (1..SLOTS).contains(&slot) { Ok(slot) } else { Err(Error::Slot(slot)) }
}

/// `CLOCK_MONOTONIC` in ns: the clock that the kernel side writes with.
fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    let (seconds, nanoseconds) = (time.tv_sec().cast_unsigned(), time.tv_nsec().cast_unsigned());
    seconds * 1_000_000_000 + nanoseconds
}

/// Takes a map out of the object.
pub(crate) fn take<M>(ebpf: &mut aya::Ebpf, name: &'static str) -> Result<M, Error>
where
    M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).ok_or(Error::NoMap(name))?;
    M::try_from(map).map_err(map_error(name))
}

pub(crate) fn map_error(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Error {
    move |source| Error::Map { map, source }
}

/// A removal of what is gone already is none that failed.
pub(crate) fn gone_or(result: Result<(), aya::maps::MapError>, map: &'static str) -> Result<(), Error> {
    match result {
        Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other.map_err(map_error(map)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_zero_and_the_last_plus_one_do_not_exist() {
        assert!(matches!(existing(0), Err(Error::Slot(0))));
        assert!(matches!(existing(SLOTS), Err(Error::Slot(SLOTS))));
        assert_eq!(existing(SLOTS - 1).unwrap(), SLOTS - 1);
    }

    #[test]
    fn only_the_bits_that_count_make_a_range() {
        let of = |text: &str| key(text.parse().unwrap());
        let same = |a: &str, b: &str| is_same_range(of(a).prefix_len(), &of(a).data(), &of(b));
        assert!(same("10.0.0.0/8", "10.9.9.9/8"));
        assert!(same("::/0", "fd00::/0"));
        assert!(!same("10.0.0.0/8", "11.0.0.0/8"));
        assert!(!same("10.0.0.0/8", "10.0.0.0/9"));
        assert!(same("fd00::1/128", "fd00::1/128"));
        assert!(!same("fd00::1/128", "fd00::2/128"));
    }
}
