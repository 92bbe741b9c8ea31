//! The stamp: a sender writes its clock into a packet before it hands the packet to the kernel.
//!
//! The clock is `CLOCK_MONOTONIC`, the same that the kernel's events carry, and it is one clock for all containers of
//! a machine. So a packet that arrives with a time later than the violation was sent after it.

use nix::time::{ClockId, clock_gettime};

/// Bytes of a stamp, and of one record of a TCP stream.
pub const STAMP: usize = 24;

const MAGIC: u64 = u64::from_be_bytes(*b"RINGFNCE");

/// Time and number of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `CLOCK_MONOTONIC` in ns right before the packet was sent.
    pub at: u64,
    /// Packets that the sender sent before this one.
    pub number: u64,
}

impl Stamp {
    /// A stamp of this moment.
    pub fn now(number: u64) -> Self {
        Self { at: now(), number }
    }

    /// The bytes that go into the packet.
    pub fn to_bytes(self) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        bytes[..8].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.at.to_be_bytes());
        bytes[16..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// The stamp at the beginning of `bytes`; `None`: there is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        (word(0)? == MAGIC).then_some(())?;
        Some(Self { at: word(8)?, number: word(16)? })
    }
}

/// `CLOCK_MONOTONIC` in ns.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC always exists");
    u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_the_way() {
        let stamp = Stamp { at: 0x0102_0304_0506_0708, number: 9 };
        assert_eq!(Stamp::from_bytes(&stamp.to_bytes()), Some(stamp));
    }

    #[test]
    fn other_bytes_are_no_stamp() {
        assert_eq!(Stamp::from_bytes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
        assert_eq!(Stamp::from_bytes(&Stamp::now(1).to_bytes()[..STAMP - 1]), None);
    }
}
