//! What an isolated pod may still exchange: the node's own probes, and the addresses that the policy lists.
//!
//! A probe is a TCP connection that the node opens to the pod. Its first segment, inbound from one of the node's
//! addresses, is remembered as a flow; segments of a remembered flow pass both ways, except one that would open a
//! connection. So the pod can answer the node and cannot begin anything.
//!
//! - The node is every process in the node's own network namespace: the kubelet, but also a proxy that publishes the
//!   pod's ports, or another pod on the host network.
//! - At the veth, a probe's packets must have been made on this node. Those that only carry the node's address because
//!   they were forwarded and masqueraded (a node port), or because a neighbour on the bridge put it there, came in by
//!   some interface. At the socket this can't be told any more: where `cgroup_*` alone covers a pod, whoever reaches
//!   it by way of a masquerading node port counts as the node.
//! - At the veth, the answer must go to the hardware address that the probe came from: else a packet socket could
//!   send "answers" to an accomplice on the same bridge.
//! - A reset by the node forgets the flow. The node's kernel resets whatever belongs to no connection of its own, so
//!   a flow can't be kept alive by the pod.

use super::{
    Direction,
    packet::{Frame, Link, Packet},
};
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    macros::map,
    maps::{HashMap, LpmTrie, LruHashMap, lpm_trie::Key},
};
use ringfence_abi::{EXCEPTION_PORTS, ExceptionKey, ExceptionPorts, FlowKey, slot_flag};

/// All addresses of the node's own network namespace.
#[map]
static NODE_ADDRESSES: HashMap<[u8; 16], u8> = HashMap::with_max_entries(4_096, 0);

/// Networks that isolated pods may exchange packets with, both ways.
#[map]
static EXCEPTIONS: LpmTrie<ExceptionKey, ExceptionPorts> = LpmTrie::with_max_entries(1_024, 0);

/// Flows of probes, and the hardware address they come from (0: unknown, seen at the socket only).
#[map]
static PROBE_FLOWS: LruHashMap<FlowKey, u64> = LruHashMap::with_max_entries(65_536, 0);

/// Whether an isolated pod's packet may pass.
#[inline(always)]
pub fn allows(slot: u32, frame: &Frame, packet: &Packet, direction: Direction) -> bool {
    if super::has(slot, slot_flag::STRICT) {
        return false;
    }
    let (peer, peer_port, local_port) = match direction {
        Direction::Out => (packet.destination, packet.destination_port, packet.source_port),
        Direction::In => (packet.source, packet.source_port, packet.destination_port),
    };
    if let Some(ports) = listed(&peer)
        && (ports.count == 0 || names(ports, packet.protocol, peer_port))
    {
        return true;
    }
    if !is_node(&peer) || packet.tcp == 0 || (direction == Direction::In && !made_here(frame)) {
        return false;
    }
    let flow = FlowKey { peer, slot, peer_port, local_port };
    match direction {
        Direction::Out => packet.continues_connection() && answers(frame, &flow),
        Direction::In if packet.opens_connection() => begin(frame, &flow),
        Direction::In => {
            // SAFETY: only asked for presence.
            let known = unsafe { PROBE_FLOWS.get(&flow) }.is_some();
            if known && packet.resets_connection() {
                let _ = PROBE_FLOWS.remove(&flow);
            }
            known
        }
    }
}

#[inline(always)]
pub fn is_node(address: &[u8; 16]) -> bool {
    // SAFETY: only asked for presence.
    unsafe { NODE_ADDRESSES.get(address) }.is_some()
}

#[inline(always)]
pub fn is_listed(address: &[u8; 16]) -> bool {
    listed(address).is_some()
}

#[inline(always)]
fn listed(address: &[u8; 16]) -> Option<&'static ExceptionPorts> {
    EXCEPTIONS.get(Key::new(128, ExceptionKey { address: *address }))
}

/// Whether a port is among an exception's. A packet without ports (a later fragment, another protocol) has port 0, and
/// is in no range.
#[inline(always)]
fn names(ports: &ExceptionPorts, protocol: u8, port: u16) -> bool {
    for i in 0..EXCEPTION_PORTS {
        let range = &ports.ranges[i];
        if range.protocol == u16::from(protocol) && range.first <= port && port <= range.last {
            return true;
        }
    }
    false
}

/// Remembers the flow of a connection that the node opens.
#[inline(always)]
fn begin(frame: &Frame, flow: &FlowKey) -> bool {
    match frame.link {
        Link::Ethernet => {
            let Some(source) = frame.load::<[u8; 6]>(6) else { return false };
            PROBE_FLOWS.insert(flow, &hardware(source), BPF_ANY.into()).is_ok()
        }
        Link::Ip => {
            // Already there: the veth saw it first, and knows the hardware address.
            let _ = PROBE_FLOWS.insert(flow, &0, BPF_NOEXIST.into());
            true
        }
    }
}

/// Whether an outbound segment belongs to a flow and goes where the flow came from.
#[inline(always)]
fn answers(frame: &Frame, flow: &FlowKey) -> bool {
    // SAFETY: copied at once.
    let Some(hardware_address) = (unsafe { PROBE_FLOWS.get(flow) }).copied() else { return false };
    match frame.link {
        Link::Ip => true,
        Link::Ethernet => match frame.load::<[u8; 6]>(0) {
            Some(destination) => hardware_address == 0 || hardware_address == hardware(destination),
            None => false,
        },
    }
}

/// The packet was not received by any interface before, so this node made it. The pod's own interface has received
/// what reaches a socket.
#[inline(always)]
fn made_here(frame: &Frame) -> bool {
    // SAFETY: the context is the kernel's.
    frame.link == Link::Ip || unsafe { (*frame.skb).ingress_ifindex == 0 }
}

#[inline(always)]
fn hardware(address: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = address;
    // The lowest bit of the result keeps an all-zero address apart from "unknown".
    u64::from_be_bytes([a, b, c, d, e, f, 0, 1])
}
