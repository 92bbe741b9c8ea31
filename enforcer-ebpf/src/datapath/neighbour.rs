//! Address resolution (ARP, IPv6 neighbour discovery) of an isolated pod. ARP is only seen at the veth; the kernel
//! discovers by a socket of its own, which belongs to the pod's cgroup if the network namespace was made in there.
//!
//! Without it the node's probes would fail as soon as neighbour entries expire. With it a pod could whisper, so that
//! what passes says next to nothing: requests for and answers to the node's own (or a listed) address, of the
//! shortest possible length, and ten a second at most (after a burst of ten: what a probe in either family needs). IPv4 link-local addresses count as the node's, because that is
//! where point-to-point CNIs put the gateway (169.254.1.1), which the node answers for by proxy.
//!
//! What is left: a frame's sender fields are the pod's to choose, so an accomplice on the same bridge can be told some
//! 100 bytes a second. `strict` closes that, and the probes with it.

use super::{
    Direction,
    exception::{is_listed, is_node},
    packet::{ETHERNET, Frame, ICMP_V6, IPV6_HEADER, Link, Packet},
};
use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::map, maps::Array};
use ringfence_abi::{SLOTS, slot_flag};

/// Up to when each pod's allowance is used, `CLOCK_MONOTONIC` in ns: every frame moves it on by [`INTERVAL`].
#[map]
static NEIGHBOUR_AT: Array<u64> = Array::with_max_entries(SLOTS, 0);

/// Time per frame, in ns.
const INTERVAL: u64 = 100_000_000;
/// How far ahead the allowance may be used, in ns.
const BURST: u64 = 10 * INTERVAL;

const ARP: u16 = 0x0806;
const ARP_LENGTH: u32 = 28;
/// Shortest Ethernet frame, without its checksum.
const SHORTEST_FRAME: u32 = 60;
/// Ethernet, IPv4, and their address lengths; then request or answer.
const ARP_HEAD: [u8; 7] = [0, 1, 0x08, 0, 6, 4, 0];

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Its header, and one option with a hardware address.
const DISCOVERY_LENGTH: u32 = 24 + 8;

#[inline(always)]
pub fn allows_arp(slot: u32, frame: &Frame, direction: Direction) -> bool {
    if frame.link != Link::Ethernet || super::has(slot, slot_flag::STRICT) || frame.len() > SHORTEST_FRAME {
        return false;
    }
    let Some((ARP, offset)) = frame.ethertype() else { return false };
    if offset != ETHERNET || frame.len() < ETHERNET + ARP_LENGTH {
        return false;
    }
    let Some(head) = frame.load::<[u8; 8]>(ETHERNET) else { return false };
    let [a, b, c, d, e, f, g, operation] = head;
    if [a, b, c, d, e, f, g] != ARP_HEAD || (operation != 1 && operation != 2) {
        return false;
    }
    // Whom it speaks to: outwards the target, inwards the sender.
    let peer = match direction {
        Direction::Out => frame.load::<[u8; 4]>(ETHERNET + 24),
        Direction::In => frame.load::<[u8; 4]>(ETHERNET + 14),
    };
    let Some([a, b, c, d]) = peer else { return false };
    let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    let link_local = a == 169 && b == 254;
    (link_local || is_node(&address) || is_listed(&address)) && in_time(slot, direction)
}

/// Called with what the exceptions refused.
#[inline(always)]
pub fn allows_discovery(slot: u32, frame: &Frame, packet: &Packet, direction: Direction) -> bool {
    let header = match frame.link {
        Link::Ethernet => ETHERNET,
        Link::Ip => 0,
    };
    if packet.protocol != ICMP_V6
        || packet.payload != header + IPV6_HEADER
        || frame.len() > packet.payload + DISCOVERY_LENGTH
        || super::has(slot, slot_flag::STRICT)
    {
        return false;
    }
    let Some([hop_limit]) = frame.load::<[u8; 1]>(header + 7) else { return false };
    let Some([kind, code]) = frame.load::<[u8; 2]>(packet.payload) else { return false };
    if hop_limit != 255 || code != 0 {
        return false;
    }
    let peer = match (kind, direction) {
        (SOLICITATION | ADVERTISEMENT, Direction::In) => packet.source,
        (ADVERTISEMENT, Direction::Out) => packet.destination,
        (SOLICITATION, Direction::Out) => {
            let Some(target) = frame.load::<[u8; 16]>(packet.payload + 8) else { return false };
            if !is_solicited(&packet.destination, &target) {
                return false;
            }
            target
        }
        _ => return false,
    };
    (is_node(&peer) || is_listed(&peer)) && in_time(slot, direction)
}

/// A solicitation goes to the target itself or to its solicited-node group (RFC 4291, 2.7.1).
#[inline(always)]
fn is_solicited(destination: &[u8; 16], target: &[u8; 16]) -> bool {
    let [.., x, y, z] = *target;
    let group = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z];
    *destination == *target || *destination == group
}

#[inline(always)]
fn in_time(slot: u32, direction: Direction) -> bool {
    if direction == Direction::In {
        return true;
    }
    let Some(used) = NEIGHBOUR_AT.get_ptr_mut(slot) else { return false };
    // SAFETY: points into the map; the clock has no precondition.
    unsafe {
        let now = bpf_ktime_get_ns();
        let before = used.read_volatile();
        let from = if before > now { before } else { now };
        if from - now >= BURST {
            return false;
        }
        used.write_volatile(from + INTERVAL);
    }
    true
}
