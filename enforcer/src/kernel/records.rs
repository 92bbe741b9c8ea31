//! Records of violations, out of the ring buffers.

use aya::maps::{Map, MapData, MapError, RingBuf};
use ringfence_abi::{CANDIDATE_ARGS, EVENT_FIXED, Event, done};
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
    pub fn take(&mut self) -> Option<Record> {
        loop {
            let item = self.0.next()?;
            if let Some(record) = record(&item) {
                return Some(record);
            }
            tracing::warn!(bytes = item.len(), "a record of a wrong size was skipped");
        }
    }
}

impl AsRawFd for Records {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// What a ring buffer holds.
pub enum Record {
    /// A violation.
    Violation(Box<Event>),
    /// What may be one.
    Candidate(Candidate),
}

/// An event whose arguments decide, and are longer than the kernel looks at.
pub struct Candidate {
    /// The record, with the beginning of the arguments.
    pub event: Box<Event>,
    /// The first [`CANDIDATE_ARGS`] bytes of arguments.
    pub args: Vec<u8>,
}

/// A record from its bytes: the fixed part, and arguments.
pub fn record(bytes: &[u8]) -> Option<Record> {
    let event = event(&bytes[..bytes.len().min(size_of::<Event>())])?;
    if event.header.done & done::CANDIDATE != 0 {
        let args = bytes[EVENT_FIXED..].to_vec();
        return (args.len() <= CANDIDATE_ARGS).then_some(Record::Candidate(Candidate { event, args }));
    }
    (bytes.len() <= size_of::<Event>()).then_some(Record::Violation(event))
}

/// The fixed part and the first arguments. `None`: too few bytes, or more than an event has.
fn event(bytes: &[u8]) -> Option<Box<Event>> {
    if !(EVENT_FIXED..=size_of::<Event>()).contains(&bytes.len()) {
        return None;
    }
    let mut event = Box::<Event>::new_uninit();
    let whole = event.as_mut_ptr().cast::<u8>();
    // SAFETY: `Event` is plain data, any bytes are a valid value. All of its bytes are written: those of the record, which
    // are no more, and zeros up to the end.
    unsafe {
        whole.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        whole.add(bytes.len()).write_bytes(0, size_of::<Event>() - bytes.len());
        Some(event.assume_init())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_abi::EventHeader;

    #[test]
    fn a_short_or_long_record_is_none() {
        assert!(record(&[0; EVENT_FIXED - 1]).is_none());
        assert!(record(&vec![0; size_of::<Event>() + 1]).is_none());
        assert!(record(&[0; EVENT_FIXED]).is_some());
    }

    #[test]
    fn a_candidate_has_more_arguments_than_a_record() {
        let mut bytes = vec![b'x'; EVENT_FIXED + CANDIDATE_ARGS];
        bytes[std::mem::offset_of!(EventHeader, done)] = done::CANDIDATE;
        let Some(Record::Candidate(Candidate { event, args })) = record(&bytes) else { panic!("it is a candidate") };
        assert_eq!(args.len(), CANDIDATE_ARGS);
        assert_eq!(event.args[..], args[..event.args.len()]);
        bytes.push(b'x');
        assert!(record(&bytes).is_none());
    }
}
