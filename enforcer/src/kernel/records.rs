//! Records of violations, out of the ring buffers.

use aya::maps::{Map, MapData, MapError, RingBuf};
use ringfence_abi::{CANDIDATE_ARGS, EVENT_FIXED, Event, done};
use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// One ring buffer.
pub struct Records {
    ring: RingBuf<MapData>,
    /// The record that was taken last.
    event: Box<Event>,
}

impl Records {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { ring: RingBuf::try_from(map)?, event: zeroed() })
    }

    /// To be awaited.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is the ring's own, and stays open and the same as long as the ring lives.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }

    /// The next record, if there is one.
    pub fn take(&mut self) -> Option<Record<'_>> {
        let rest = loop {
            let item = self.ring.next()?;
            if let Some(rest) = read(&item, &mut self.event) {
                break rest;
            }
            tracing::warn!(bytes = item.len(), "a record of a wrong size was skipped");
        };
        Some(match rest {
            Rest::Nothing => Record::Violation(&self.event),
            Rest::Args(args) => Record::Candidate(Candidate { event: self.event.clone(), args }),
        })
    }
}

impl AsRawFd for Records {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

/// What a ring buffer holds.
pub enum Record<'a> {
    /// A violation.
    Violation(&'a Event),
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

/// What a record has besides the event.
#[derive(Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: it is a violation.
    Nothing,
    /// Of a candidate, all arguments.
    Args(Vec<u8>),
}

/// An event of zeros.
pub fn zeroed() -> Box<Event> {
    // SAFETY: `Event` is plain data, any bytes are a valid value.
    unsafe { Box::new_zeroed().assume_init() }
}

/// Reads a record: the fixed part, and arguments. `None`: too few bytes, or more than there may be.
pub fn read(bytes: &[u8], event: &mut Event) -> Option<Rest> {
    // SAFETY: `Event` is plain data: it has no other bytes, and any are a valid value.
    let whole = unsafe { std::slice::from_raw_parts_mut((&raw mut *event).cast::<u8>(), size_of::<Event>()) };
    let own = bytes.len().min(whole.len());
    if own < EVENT_FIXED {
        return None;
    }
    whole[..own].copy_from_slice(&bytes[..own]);
    whole[own..].fill(0);
    let args = &bytes[EVENT_FIXED..];
    if event.header.done & done::CANDIDATE != 0 {
        return (args.len() <= CANDIDATE_ARGS).then(|| Rest::Args(args.to_vec()));
    }
    (bytes.len() == own).then_some(Rest::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_abi::EventHeader;

    #[test]
    fn a_short_or_long_record_is_none() {
        let mut event = zeroed();
        assert_eq!(read(&[0; EVENT_FIXED - 1], &mut event), None);
        assert_eq!(read(&vec![0; size_of::<Event>() + 1], &mut event), None);
        assert_eq!(read(&[0; EVENT_FIXED], &mut event), Some(Rest::Nothing));
    }

    #[test]
    fn a_record_has_nothing_of_the_one_before() {
        let mut event = zeroed();
        assert_eq!(read(&[b'x'; EVENT_FIXED + 9], &mut event), Some(Rest::Nothing));
        let mut bytes = [0; EVENT_FIXED + 5];
        bytes[EVENT_FIXED..].fill(b'x');
        assert_eq!(read(&bytes, &mut event), Some(Rest::Nothing));
        assert_eq!(event.args[..6], *b"xxxxx\0");
        assert_eq!(read(&bytes[..=EVENT_FIXED], &mut event), Some(Rest::Nothing));
        assert_eq!(event.args[..2], *b"x\0");
    }

    #[test]
    fn a_candidate_has_more_arguments_than_a_record() {
        let mut event = zeroed();
        let mut bytes = vec![b'x'; EVENT_FIXED + CANDIDATE_ARGS];
        bytes[std::mem::offset_of!(EventHeader, done)] = done::CANDIDATE;
        let Some(Rest::Args(args)) = read(&bytes, &mut event) else { panic!("it is a candidate") };
        assert_eq!(args.len(), CANDIDATE_ARGS);
        assert_eq!(event.args[..], args[..event.args.len()]);
        bytes.push(b'x');
        assert_eq!(read(&bytes, &mut event), None);
    }
}
