//! Addresses and ports of a packet, read from the packet itself.

use crate::{
    judge,
    kernel::{get, put},
    scratch::{self, Entry, Held},
};
use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, macros::map, maps::PerCpuArray};
use core::mem::MaybeUninit;
use ringfence_abi::{Class, Counter};

pub const ICMP_V6: u8 = 58;
pub const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;

pub const ETHERNET: u32 = 14;
pub const IPV6_HEADER: u32 = 40;
/// Extension headers that are followed. A packet with more has no ports for us, and is nobody's exception.
const EXTENSIONS: usize = 8;

/// Where the bytes of a context begin.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Link {
    /// At the IP header: what `cgroup_skb` programs get.
    Ip,
    /// At the Ethernet header. User space arms Ethernet devices only.
    Ethernet,
}

pub struct Frame {
    pub skb: *mut __sk_buff,
    pub link: Link,
}

impl Frame {
    /// A `T` at a byte offset, also where the kernel keeps the packet in pieces.
    #[inline(always)]
    pub fn load<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of `value` or fails; every T here is an array of bytes.
        unsafe {
            let failed = bpf_skb_load_bytes(self.skb.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32);
            if failed == 0 { Some(value.assume_init()) } else { None }
        }
    }

    /// Length of the whole frame in bytes, from where its context begins.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        // SAFETY: the context is the kernel's.
        unsafe { (*self.skb).len }
    }

    /// EtherType and where its payload begins, behind up to two VLAN tags.
    #[inline(always)]
    pub fn ethertype(&self) -> Option<(u16, u32)> {
        let mut kind = u16::from_be_bytes(self.load(12)?);
        let mut offset = ETHERNET;
        if kind == VLAN || kind == QINQ {
            kind = u16::from_be_bytes(self.load(16)?);
            offset += 4;
            if kind == VLAN {
                kind = u16::from_be_bytes(self.load(20)?);
                offset += 4;
            }
        }
        Some((kind, offset))
    }
}

/// One run's packet in work.
#[repr(C)]
pub struct Packet {
    /// IPv4 as IPv4-mapped IPv6, network byte order.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// Offset of the header above IP.
    pub payload: u32,
    busy: u32,
    /// Host byte order; 0 where the protocol has none or a fragment does not carry them.
    pub source_port: u16,
    pub destination_port: u16,
    /// Address family.
    pub family: u8,
    /// Protocol above IP.
    pub protocol: u8,
    /// Flags of a TCP segment that has all of its header; else 0.
    pub tcp: u8,
    zero: u8,
}

/// Runs that may be under way on one CPU: a sender's, and those of the softirqs that interrupt it.
const RUNS: u32 = 4;

#[map]
static PACKETS: PerCpuArray<Packet> = PerCpuArray::with_max_entries(RUNS, 0);

impl Entry for Packet {
    #[inline(always)]
    fn busy(&mut self) -> *mut u32 {
        &raw mut self.busy
    }
}

impl Packet {
    /// A TCP segment that asks for a new connection.
    #[inline(always)]
    pub fn opens_connection(&self) -> bool {
        self.protocol == TCP && self.tcp & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
    }

    /// A TCP segment whose flags allow it within a connection that the other side opened.
    #[inline(always)]
    pub fn continues_connection(&self) -> bool {
        self.protocol == TCP && self.tcp & (TCP_SYN | TCP_ACK) != TCP_SYN && self.tcp != 0
    }

    /// A TCP segment that ends its connection at once.
    #[inline(always)]
    pub fn resets_connection(&self) -> bool {
        self.protocol == TCP && self.tcp & TCP_RST != 0
    }
}

/// None: not IP, or cut short. (Or more runs under way than there may be, which is counted: nothing is known of it, either.)
#[inline(always)]
pub fn parse(frame: &Frame) -> Option<Held<Packet>> {
    let Some((held, index)) = scratch::claim(&PACKETS, 0..RUNS) else {
        judge::count(Class::Network, Counter::Unreadable);
        return None;
    };
    (rf_parse(frame.skb, frame.link as u32, index) != 0).then_some(held)
}

/// Reads the packet into [`PACKETS`]. 1: it was understood. Verified by itself: the many kinds of packets are one to the
/// caller.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_parse(skb: *mut __sk_buff, link: u32, index: u32) -> u32 {
    let link = if link == Link::Ethernet as u32 { Link::Ethernet } else { Link::Ip };
    let frame = Frame { skb, link };
    // SAFETY: from the map; the caller holds it.
    let Some(packet) = PACKETS.get_ptr_mut(index).map(|packet| unsafe { &mut *packet }) else { return 0 };
    packet.source_port = 0;
    packet.destination_port = 0;
    packet.tcp = 0;
    read(&frame, packet).is_some() as u32
}

#[inline(always)]
fn read(frame: &Frame, packet: &mut Packet) -> Option<()> {
    let (kind, offset) = match frame.link {
        Link::Ethernet => frame.ethertype()?,
        Link::Ip => {
            let [first] = frame.load::<[u8; 1]>(0)?;
            (if first >> 4 == 6 { IPV6 } else { IPV4 }, 0)
        }
    };
    match kind {
        IPV4 => read_v4(frame, offset, packet),
        IPV6 => read_v6(frame, offset, packet),
        _ => None,
    }
}

#[inline(always)]
fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

#[inline(always)]
fn read_v4(frame: &Frame, offset: u32, packet: &mut Packet) -> Option<()> {
    let head: [u8; 20] = frame.load(offset)?;
    let length = u32::from(head[0] & 0x0f) * 4;
    if head[0] >> 4 != 4 || length < 20 {
        return None;
    }
    packet.source = mapped([head[12], head[13], head[14], head[15]]);
    packet.destination = mapped([head[16], head[17], head[18], head[19]]);
    packet.family = FAMILY_V4;
    put(&raw mut packet.protocol, head[9]);
    put(&raw mut packet.payload, offset + length);
    let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x1fff;
    if fragment == 0 {
        read_ports(frame, packet);
    }
    Some(())
}

#[inline(always)]
fn read_v6(frame: &Frame, offset: u32, packet: &mut Packet) -> Option<()> {
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;

    let head: [u8; 8] = frame.load(offset)?;
    if head[0] >> 4 != 6 {
        return None;
    }
    packet.source = frame.load(offset + 8)?;
    packet.destination = frame.load(offset + 24)?;
    packet.family = FAMILY_V6;
    // From here on in memory alone: in registers, each header would be a state of its own.
    put(&raw mut packet.protocol, head[6]);
    put(&raw mut packet.payload, offset + IPV6_HEADER);
    for _ in 0..EXTENSIONS {
        let protocol = get(&raw const packet.protocol);
        if !is_extension(protocol) {
            read_ports(frame, packet);
            return Some(());
        }
        let payload = get(&raw const packet.payload);
        let Some(extension) = frame.load::<[u8; 4]>(payload) else { return Some(()) };
        put(&raw mut packet.protocol, extension[0]);
        let length = match protocol {
            FRAGMENT => {
                // What follows the header of a later fragment is not a header, whatever it claims to be.
                if u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0 {
                    return Some(());
                }
                8
            }
            AUTHENTICATION => (u32::from(extension[1]) + 2) * 4,
            _ => (u32::from(extension[1]) + 1) * 8,
        };
        put(&raw mut packet.payload, payload + length);
    }
    Some(())
}

/// Whether a header of this kind is followed by another: hop-by-hop options, routing, fragment, authentication,
/// destination options, mobility, host identity, shim6. By bits: each comparison would be a way of its own to the verifier.
#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    const BELOW_64: u64 = 1 | 1 << 43 | 1 << 44 | 1 << 51 | 1 << 60;
    const FROM_128: u64 = 1 << (135 - 128) | 1 << (139 - 128) | 1 << (140 - 128);
    let bits = match protocol >> 6 {
        0 => BELOW_64,
        2 => FROM_128,
        _ => 0,
    };
    bits >> (protocol & 63) & 1 != 0
}

/// Ports and flags. A header that is cut short leaves them 0, which no exception accepts.
#[inline(always)]
fn read_ports(frame: &Frame, packet: &mut Packet) {
    let (protocol, payload) = (get(&raw const packet.protocol), get(&raw const packet.payload));
    match protocol {
        TCP | UDP | DCCP | SCTP | UDP_LITE => {}
        _ => return,
    }
    if let Some([a, b, c, d]) = frame.load::<[u8; 4]>(payload) {
        packet.source_port = u16::from_be_bytes([a, b]);
        packet.destination_port = u16::from_be_bytes([c, d]);
    }
    if protocol == TCP
        && let Some([flags]) = frame.load::<[u8; 1]>(payload + 13)
    {
        packet.tcp = flags;
    }
}
