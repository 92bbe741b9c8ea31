//! Connects sockets and makes unusual ones.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::uring;

/// What is done.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// TCP, whether or not anybody answers.
    Tcp,
    /// TCP by `io_uring`.
    TcpUring,
    /// One UDP packet by sendto.
    Sendto,
    /// One UDP packet by `io_uring`.
    SendtoUring,
    /// connect(2) of a UDP socket, without a packet.
    UdpConnect,
    /// connect(2) of a UDP socket, then a packet.
    UdpConnectSend,
    /// An `AF_PACKET` socket of type raw.
    PacketRaw,
    /// An `AF_PACKET` socket of type datagram.
    PacketDatagram,
    /// An `AF_INET` raw socket for ICMP, as ping makes it.
    Icmp,
    /// An ordinary UDP socket.
    Udp,
    /// A netlink socket for routes.
    Netlink,
}

/// What `actor connect` takes.
#[derive(Args)]
pub struct Arguments {
    how: How,
    #[arg(default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 9)))]
    to: SocketAddr,
}

impl Arguments {
    /// Connects. That nobody is there is no failure: it was tried.
    pub fn run(self) -> Result<()> {
        let (inet, packet) = (AddressFamily::Inet, AddressFamily::Packet);
        let none = SockFlag::SOCK_CLOEXEC;
        match self.how {
            How::Tcp => drop(TcpStream::connect_timeout(&self.to, Duration::from_millis(200))),
            How::TcpUring => drop(uring::connect(self.to)),
            How::Sendto => drop(self.udp()?.send_to(b"hello", self.to)),
            How::SendtoUring => uring::send_once(self.to)?,
            How::UdpConnect => self.udp()?.connect(self.to)?,
            How::UdpConnectSend => {
                let socket = self.udp()?;
                socket.connect(self.to)?;
                drop(socket.send(b"hello"));
            }
            How::PacketRaw => drop(socket(packet, SockType::Raw, none, SockProtocol::EthAll)?),
            How::PacketDatagram => drop(socket(packet, SockType::Datagram, none, SockProtocol::EthAll)?),
            How::Icmp => drop(socket(inet, SockType::Raw, none, SockProtocol::Icmp)?),
            How::Udp => drop(self.udp()?),
            How::Netlink => drop(socket(AddressFamily::Netlink, SockType::Raw, none, SockProtocol::NetlinkRoute)?),
        }
        println!("done, to {}", self.to);
        Ok(())
    }

    fn udp(&self) -> Result<UdpSocket> {
        let any = if self.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        UdpSocket::bind(any).context("make a UDP socket")
    }
}
