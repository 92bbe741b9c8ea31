//! Connects sockets and makes unusual ones.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
#[cfg(target_arch = "x86_64")]
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

#[cfg(target_arch = "x86_64")]
use crate::compat;
use crate::uring;

/// `ETH_P_ALL`
#[cfg(target_arch = "x86_64")]
const ALL_FRAMES: u16 = 3;

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_millis(200);

/// What is done.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// TCP, whether or not anybody answers.
    Tcp,
    /// TCP by `io_uring`.
    TcpUring,
    /// TCP by sendto(2) with `MSG_FASTOPEN`, without connect(2); IPv4.
    TcpFastOpen,
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
    /// An `AF_PACKET` socket of type raw, by the socketcall(2) of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatPacket,
    /// A UDP socket and its connect(2), both by the same; IPv4.
    #[cfg(target_arch = "x86_64")]
    CompatUdpConnect,
    /// A ring for `io_uring`, by the call of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatRing,
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
            How::Tcp => drop(TcpStream::connect_timeout(&self.to, ANSWER)),
            How::TcpUring => drop(uring::connect(self.to)),
            How::TcpFastOpen => {
                let socket = socket(inet, SockType::Stream, none, SockProtocol::Tcp)?;
                setsockopt(&socket, sockopt::SendTimeout, &TimeVal::milliseconds(ANSWER.as_millis().try_into()?))?;
                let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
                match sendto(socket.as_raw_fd(), b"hello", &self.ipv4()?, flags) {
                    // Nobody is there, or nobody answers.
                    Ok(_) | Err(Errno::ECONNREFUSED | Errno::EINPROGRESS) => {}
                    Err(error) => return Err(error).context("sendto with MSG_FASTOPEN"),
                }
            }
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
            #[cfg(target_arch = "x86_64")]
            How::CompatPacket => drop(compat::socket(packet, SockType::Raw, ALL_FRAMES.to_be())?),
            #[cfg(target_arch = "x86_64")]
            How::CompatUdpConnect => {
                let socket = compat::socket(inet, SockType::Datagram, 0)?;
                compat::connect(socket.as_fd(), &self.ipv4()?)?;
            }
            #[cfg(target_arch = "x86_64")]
            How::CompatRing => compat::ring()?,
        }
        println!("done, to {}", self.to);
        Ok(())
    }

    fn ipv4(&self) -> Result<SockaddrIn> {
        match self.to {
            SocketAddr::V4(to) => Ok(to.into()),
            SocketAddr::V6(to) => bail!("{to} is no IPv4 address"),
        }
    }

    fn udp(&self) -> Result<UdpSocket> {
        let any = if self.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        UdpSocket::bind(any).context("make a UDP socket")
    }
}
