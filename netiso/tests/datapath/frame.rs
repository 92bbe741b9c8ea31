//! Frames written by hand, for packet sockets.

use std::{fmt::Write, net::Ipv4Addr};

/// A hardware address.
pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];

/// Flags of a TCP segment.
pub mod tcp {
    pub const SYN: u8 = 0x02;
    pub const ACK: u8 = 0x10;
}

/// An address and a port.
pub type End = (Ipv4Addr, u16);

pub fn udp(from: (Mac, End), to: (Mac, End), text: &str) -> Vec<u8> {
    ipv4(from, to, 17, &udp_payload(from.1.1, to.1.1, text))
}

/// A UDP header and its payload; no checksum, which IPv4 allows.
pub fn udp_payload(from: u16, to: u16, text: &str) -> Vec<u8> {
    let length = u16::try_from(8 + text.len()).expect("a short text");
    let mut datagram = Vec::new();
    for field in [from, to, length, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(text.as_bytes());
    datagram
}

/// A TCP segment without a valid checksum: whoever sniffs it does not mind.
pub fn tcp(from: (Mac, End), to: (Mac, End), flags: u8, text: &str) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.1.1.to_be_bytes());
    segment.extend(to.1.1.to_be_bytes());
    segment.extend([0; 8]);
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(text.as_bytes());
    ipv4(from, to, 6, &segment)
}

/// A request for the hardware address of `target`, with `text` behind it.
pub fn arp(from: (Mac, Ipv4Addr), target: Ipv4Addr, text: &str) -> Vec<u8> {
    let mut request = vec![0, 1, 0x08, 0, 6, 4, 0, 1];
    request.extend(from.0);
    request.extend(from.1.octets());
    request.extend([0; 6]);
    request.extend(target.octets());
    request.extend(text.as_bytes());
    ethernet(from.0, BROADCAST, 0x0806, &request)
}

fn ipv4(from: (Mac, End), to: (Mac, End), protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("a short packet");
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend(from.1.0.octets());
    packet.extend(to.1.0.octets());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice");
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    ethernet(from.0, to.0, 0x0800, &packet)
}

fn ethernet(from: Mac, to: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to);
    frame.extend(from);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string");
        text
    })
}

pub fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hexadecimal")).collect()
}
