//! Whole packets, for the sockets that take them: raw ones and packet ones.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use etherparse::{PacketBuilder, PacketBuilderStep, UdpHeader};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, bind, send, sendto,
    socket,
};

use crate::{tunnel, xdp};

/// Hops that a packet may make.
const HOPS: u8 = 64;

/// Where packets go.
enum Out {
    Socket(OwnedFd),
    /// The file of a tunnel device.
    Device(File),
    Frames(xdp::Socket),
}

/// The port that packets of a tunnel say they are from.
const PORT: u16 = 40_000;

/// Something that takes whole IP or Ethernet packets.
pub struct Forge {
    out: Out,
    from: SocketAddr,
    to: SocketAddr,
    /// Own and next hop's hardware address; `None`: IP packets.
    link: Option<([u8; 6], [u8; 6])>,
}

impl Forge {
    /// A raw socket for UDP packets to `to`, IP header included.
    pub fn raw(to: SocketAddr) -> Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket =
            socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).context("make a raw socket")?;
        Ok(Self { out: Out::Socket(socket), from: own_address(to)?, to, link: None })
    }

    /// A packet socket on `interface`, for Ethernet frames to the neighbour with the hardware address `next`.
    pub fn packet(to: SocketAddr, interface: &str, next: [u8; 6]) -> Result<Self> {
        let own = link_address(interface)?;
        let family = AddressFamily::Packet;
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .context("make a packet socket")?;
        bind(socket.as_raw_fd(), &own).with_context(|| format!("bind to {interface}"))?;
        let hardware = hardware_of(&own, interface)?;
        Ok(Self { out: Out::Socket(socket), from: own_address(to)?, to, link: Some((hardware, next)) })
    }

    /// The same by an XDP socket.
    pub fn frames(to: SocketAddr, interface: &str, next: [u8; 6]) -> Result<Self> {
        let hardware = hardware_of(&link_address(interface)?, interface)?;
        let socket = xdp::Socket::open(interface)?;
        Ok(Self { out: Out::Frames(socket), from: own_address(to)?, to, link: Some((hardware, next)) })
    }

    /// A tunnel device, for UDP packets from an address behind it.
    pub fn tunnel(from: Ipv4Addr, to: SocketAddr) -> Result<Self> {
        let device = tunnel::open(&from.to_string())?;
        Ok(Self { out: Out::Device(device), from: SocketAddr::from((from, PORT)), to, link: None })
    }

    /// Sends `payload` as one UDP packet.
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        let packet = self.build(payload)?;
        let socket = match &self.out {
            Out::Socket(socket) => socket.as_raw_fd(),
            Out::Frames(socket) => return socket.send(&packet),
            Out::Device(device) => return Ok((&*device).write_all(&packet)?),
        };
        let none = MsgFlags::empty();
        match self.to {
            _ if self.link.is_some() => send(socket, &packet, none)?,
            SocketAddr::V4(to) => sendto(socket, &packet, &SockaddrIn::from(to), none)?,
            SocketAddr::V6(mut to) => {
                // For a raw socket the port is a protocol number; 0 is the socket's own.
                to.set_port(0);
                sendto(socket, &packet, &SockaddrIn6::from(to), none)?
            }
        };
        Ok(())
    }

    fn build(&self, payload: &[u8]) -> Result<Vec<u8>> {
        let udp: PacketBuilderStep<UdpHeader> = match (self.link, self.from.ip(), self.to.ip()) {
            (Some((own, next)), IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ethernet2(own, next)
                .ipv4(from.octets(), to.octets(), HOPS)
                .udp(self.from.port(), self.to.port()),
            (Some((own, next)), IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ethernet2(own, next)
                .ipv6(from.octets(), to.octets(), HOPS)
                .udp(self.from.port(), self.to.port()),
            (None, IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), HOPS).udp(self.from.port(), self.to.port())
            }
            (None, IpAddr::V6(from), IpAddr::V6(to)) => {
                PacketBuilder::ipv6(from.octets(), to.octets(), HOPS).udp(self.from.port(), self.to.port())
            }
            _ => bail!("{} and {} are of different families", self.from, self.to),
        };
        let mut packet = Vec::with_capacity(udp.size(payload.len()));
        udp.write(&mut packet, payload)?;
        Ok(packet)
    }
}

/// The address that the kernel would send from. Nothing is sent.
fn own_address(to: SocketAddr) -> Result<SocketAddr> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to).with_context(|| format!("find the way to {to}"))?;
    Ok(socket.local_addr()?)
}

fn hardware_of(address: &LinkAddr, interface: &str) -> Result<[u8; 6]> {
    address.addr().with_context(|| format!("{interface} has no hardware address"))
}

fn link_address(interface: &str) -> Result<LinkAddr> {
    getifaddrs()?
        .filter(|found| found.interface_name == interface)
        .find_map(|found| found.address?.as_link_addr().copied())
        .with_context(|| format!("there is no interface {interface}"))
}
