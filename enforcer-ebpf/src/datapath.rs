//! The isolated pod's packets: dropped at its sockets and at the host side of its veth.
//!
//! | program | where | what it sees |
//! |---|---|---|
//! | `cgroup_egress`, `cgroup_ingress` | a common parent cgroup (v2) | IP packets of the pods' sockets, host network too |
//! | `veth_ingress`, `veth_egress` | host side of a pod's veth | every frame from and to the pod: packet sockets too |
//!
//! The first question of each is whether anybody here is isolated; the answer is "no" nearly always, and costs one or
//! two look-ups. To pass is never a verdict: programs after ours (the CNI's) still decide.
//!
//! What they do not see, and user space says so in the pod's coverage: frames of packet sockets of a pod in the
//! node's own network namespace. Where only `cgroup_*` covers a pod whose network namespace was made outside of its
//! cgroup, the kernel's own answers (a TCP reset, an ICMP echo reply) go on too.

mod exception;
mod neighbour;
mod packet;

use crate::identity::{CGROUPS, SLOTS};
use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_sock},
    helpers::generated::{bpf_sk_fullsock, bpf_skb_cgroup_id},
    macros::{cgroup_skb, classifier, map},
    maps::{Array, HashMap},
    programs::{SkBuffContext, TcContext},
};
use packet::{Frame, Link, Packet, TCP};
use ringfence_abi::{Isolation, SLOTS as SLOT_COUNT, slot_flag};

/// Which pods are isolated. A mitigation sets `since`.
#[map]
pub static ISOLATED: Array<Isolation> = Array::with_max_entries(SLOT_COUNT, 0);

/// Host-side interface of a pod's veth, and the pod's slot.
#[map]
static VETHS: HashMap<u32, u32> = HashMap::with_max_entries(16_384, 0);

/// At 0, 1: [`cgroup_egress`] is attached, and so matches what governed sockets send.
#[map]
static ATTACHED: Array<u32> = Array::with_max_entries(1, 0);

/// Interface index of the loopback, in every network namespace.
const LOOPBACK: u32 = 1;
const SOCK_STREAM: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

const CGROUP_DROP: i32 = 0;
const CGROUP_PASS: i32 = 1;

/// Seen from the pod.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Out,
    In,
}

#[cgroup_skb(egress)]
pub fn cgroup_egress(ctx: SkBuffContext) -> i32 {
    at_socket(ctx.as_ptr().cast(), Direction::Out)
}

#[cgroup_skb(ingress)]
pub fn cgroup_ingress(ctx: SkBuffContext) -> i32 {
    at_socket(ctx.as_ptr().cast(), Direction::In)
}

/// What the pod sends comes in at the host's side.
#[classifier]
pub fn veth_ingress(ctx: TcContext) -> i32 {
    at_veth(ctx.as_ptr().cast(), Direction::Out)
}

#[classifier]
pub fn veth_egress(ctx: TcContext) -> i32 {
    at_veth(ctx.as_ptr().cast(), Direction::In)
}

#[inline(always)]
fn at_socket(skb: *mut __sk_buff, direction: Direction) -> i32 {
    let Some(slot) = slot_of_socket(skb) else { return CGROUP_PASS };
    let isolated = is_isolated(slot);
    if !isolated && (direction == Direction::In || is_connected_stream(skb)) {
        return CGROUP_PASS;
    }
    // The pod talks to itself. In the node's own namespace the loopback leads to everybody else on the node.
    if unsafe { (*skb).ifindex } == LOOPBACK && !has(slot, slot_flag::HOST_NETWORK) {
        return CGROUP_PASS;
    }
    let frame = Frame { skb, link: Link::Ip };
    let packet = packet::parse(&frame);
    let drop = if isolated {
        !passes(slot, &frame, packet.as_deref(), direction)
    } else {
        match &packet {
            Some(packet) => !is_midstream(skb, packet) && violates(slot, packet),
            None => false,
        }
    };
    if drop { dropped(slot, CGROUP_DROP) } else { CGROUP_PASS }
}

#[inline(always)]
fn at_veth(skb: *mut __sk_buff, direction: Direction) -> i32 {
    // The socket is the sender's. Outwards that is the pod itself; inwards it may be a governed pod in the node's
    // own namespace, or one whose frame the bridge brought here.
    let sender = slot_of_socket(skb).unwrap_or(0);
    let owner = slot_of_veth(skb).unwrap_or(0);
    let sender_isolated = sender != 0 && is_isolated(sender);
    let owner_isolated = owner != 0 && is_isolated(owner);
    let isolated = sender_isolated || owner_isolated;
    let slot = if sender != 0 { sender } else { owner };
    if !isolated && (slot == 0 || direction == Direction::In || (sender != 0 && matched_at_socket(skb))) {
        return TC_ACT_UNSPEC;
    }
    let frame = Frame { skb, link: Link::Ethernet };
    let packet = packet::parse(&frame);
    if !isolated {
        return match &packet {
            Some(packet) if !is_midstream(skb, packet) && violates(slot, packet) => dropped(slot, TC_ACT_SHOT),
            _ => TC_ACT_UNSPEC,
        };
    }
    if sender_isolated && !passes(sender, &frame, packet.as_deref(), Direction::Out) {
        return dropped(sender, TC_ACT_SHOT);
    }
    let asked = sender_isolated && owner == sender && direction == Direction::Out;
    if owner_isolated && !asked && !passes(owner, &frame, packet.as_deref(), direction) {
        return dropped(owner, TC_ACT_SHOT);
    }
    TC_ACT_UNSPEC
}

/// Whether an isolated pod's frame is one of the exceptions. `packet` is what of it was understood as IP.
#[inline(never)]
fn passes(slot: u32, frame: &Frame, packet: Option<&Packet>, direction: Direction) -> bool {
    match packet {
        Some(packet) => {
            exception::allows(slot, frame, packet, direction)
                || neighbour::allows_discovery(slot, frame, packet, direction)
        }
        None => neighbour::allows_arp(slot, frame, direction),
    }
}

#[inline(always)]
fn violates(slot: u32, packet: &Packet) -> bool {
    crate::network::packet_out(slot, &packet.destination, packet.destination_port, packet.protocol, packet.family)
}

/// A segment of an ordinary TCP connection that is established: its destination was matched when it was begun.
#[inline(always)]
fn is_midstream(skb: *mut __sk_buff, packet: &Packet) -> bool {
    if packet.protocol != TCP || packet.opens_connection() {
        return false;
    }
    match full_socket(skb) {
        // SAFETY: the verifier checks the access.
        Some(sk) => unsafe { (*sk).type_ == SOCK_STREAM },
        None => false,
    }
}

/// Whether the sender is a TCP socket that is past its handshake: it begins nothing any more. What
/// [`is_midstream`] would find out, without looking at the packet.
#[inline(always)]
fn is_connected_stream(skb: *mut __sk_buff) -> bool {
    const SYN_SENT: u32 = 2;
    const SYN_RECV: u32 = 3;
    match full_socket(skb) {
        // SAFETY: the verifier checks the accesses.
        Some(sk) => unsafe {
            (*sk).type_ == SOCK_STREAM
                && (*sk).protocol == TCP as u32
                && (*sk).state != SYN_SENT
                && (*sk).state != SYN_RECV
        },
        None => false,
    }
}

/// Whether [`cgroup_egress`] has seen this packet already. It sees what sockets of the internet families send; frames
/// of packet sockets only appear here.
#[inline(always)]
fn matched_at_socket(skb: *mut __sk_buff) -> bool {
    if ATTACHED.get(0).copied().unwrap_or(0) == 0 {
        return false;
    }
    match full_socket(skb) {
        // SAFETY: the verifier checks the access.
        Some(sk) => {
            let family = unsafe { (*sk).family };
            family == AF_INET || family == AF_INET6
        }
        None => false,
    }
}

#[inline(always)]
fn full_socket(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the verifier knows the context's `sk`, and wants both null checks.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let full = bpf_sk_fullsock(sk);
        if full.is_null() { None } else { Some(full) }
    }
}

/// The pod whose socket it is. Sockets keep the cgroup they were made in, and accepted ones their listener's.
#[inline(always)]
fn slot_of_socket(skb: *mut __sk_buff) -> Option<u32> {
    // SAFETY: the context is the kernel's; the value is copied at once.
    unsafe {
        let cgroup = bpf_skb_cgroup_id(skb);
        if cgroup == 0 {
            return None;
        }
        CGROUPS.get(&cgroup).copied()
    }
}

#[inline(always)]
fn slot_of_veth(skb: *mut __sk_buff) -> Option<u32> {
    // SAFETY: as above.
    unsafe {
        // A copy: a key must not lie in the context.
        let index = (*skb).ifindex;
        VETHS.get(&index).copied()
    }
}

#[inline(always)]
pub fn is_isolated(slot: u32) -> bool {
    match ISOLATED.get_ptr(slot) {
        // SAFETY: points into the map. Volatile: another CPU's mitigation sets it.
        Some(isolation) => unsafe { (&raw const (*isolation).since).read_volatile() != 0 },
        None => false,
    }
}

#[inline(always)]
fn has(slot: u32, flag: u32) -> bool {
    SLOTS.get(slot).is_some_and(|s| s.flags & flag != 0)
}

/// Counts a dropped packet and returns the verdict. Without a lock or an atomic: a lower bound will do.
#[inline(always)]
fn dropped(slot: u32, verdict: i32) -> i32 {
    if let Some(isolation) = ISOLATED.get_ptr_mut(slot) {
        // SAFETY: points into the map.
        unsafe {
            let counter = &raw mut (*isolation).dropped;
            counter.write_volatile(counter.read_volatile().wrapping_add(1));
        }
    }
    verdict
}
