//! The outgoing packet as an event: called by the datapath, before the packet leaves.

use crate::{
    facets::{self, any},
    identity::Governed,
    judge::{self, Packet, Report, Verdict},
    kernel,
    scratch::Lane,
};
use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::LruHashMap};
use ringfence_abi::{ByteFacet, Class, Facet, Op};

/// A process's destination.
#[repr(C)]
#[derive(Clone, Copy)]
struct Destination {
    address: [u8; 16],
    slot: u32,
    process: u32,
    port: u16,
    protocol: u8,
    generation: u8,
}

/// Destinations that were judged a violation, and when that was last reported: one report a second and
/// process, not one a packet.
#[map]
static REPORTED: LruHashMap<Destination, u64> = LruHashMap::with_max_entries(8_192, 0);

const SECOND: u64 = 1_000_000_000;

/// A governed pod's packet to `address` is on its way out. True: it must not leave.
#[inline(always)]
pub fn packet_out(slot: u32, address: &[u8; 16], port: u16, protocol: u8, family: u8) -> bool {
    let who = Governed { slot, cgroup: 0 };
    let Some(mut held) = judge::begin_as::<Packet>(who, Class::Network, Lane::Packet, Op::Packet) else {
        return false;
    };
    let s = &mut *held;
    s.event.header.address = *address;
    s.event.header.port = port;
    s.event.header.protocol = protocol as u16;
    s.event.header.family = family;
    facets::byte(s, Class::Network, ByteFacet::Family, family);
    if !any(&s.hit) {
        return false;
    }
    let Some(defaults) = facets::defaults(s, Class::Network) else { return false };
    facets::number(s, Class::Network, defaults, Facet::Port, port as u64);
    facets::destination(s, Class::Network, defaults);
    if !any(&s.hit) {
        return false;
    }
    let process: u32 = kernel::read(kernel::current(), kernel::offset!(task_tgid));
    let to =
        Destination { address: *address, slot, process, port, protocol, generation: s.event.header.generation as u8 };
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: copied at once.
    let last = unsafe { REPORTED.get(&to) }.copied().unwrap_or(0);
    if last != 0 && now.wrapping_sub(last) < SECOND {
        return crate::datapath::is_isolated(slot);
    }
    let _ = REPORTED.insert(&to, &now, 0);
    judge::settle::<Packet>(s, Class::Network, Report::None) == Verdict::Stop || crate::datapath::is_isolated(slot)
}
