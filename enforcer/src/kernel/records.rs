//! Records of violations, out of the ring buffers.

use aya::maps::{Map, MapData, MapError, RingBuf};
use ringfence_abi::{EVENT_FIXED, Event};
use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// One ring buffer.
pub struct Records(RingBuf<MapData>);

impl Records {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self(RingBuf::try_from(map)?))
    }

    /// To be awaited.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is the ring's own, and stays open and the same as long as the ring lives.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }

    /// The next record, if there is one.
    pub fn take(&mut self) -> Option<Box<Event>> {
        loop {
            let item = self.0.next()?;
            if let Some(event) = record(&item) {
                return Some(event);
            }
            tracing::warn!(bytes = item.len(), "a record that is too short was skipped");
        }
    }
}

impl AsRawFd for Records {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A record from its bytes: the fixed part, and as many bytes of arguments as it says.
pub fn record(bytes: &[u8]) -> Option<Box<Event>> {
    if bytes.len() < EVENT_FIXED || bytes.len() > size_of::<Event>() {
        return None;
    }
    let mut whole = [0u8; size_of::<Event>()];
    whole[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: `Event` is plain data, any bytes are a valid value, and there are exactly enough of them.
    Some(Box::new(unsafe { std::ptr::read_unaligned(whole.as_ptr().cast::<Event>()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_or_long_record_is_none() {
        assert!(record(&[0; EVENT_FIXED - 1]).is_none());
        assert!(record(&vec![0; size_of::<Event>() + 1]).is_none());
        assert!(record(&[0; EVENT_FIXED]).is_some());
    }
}
