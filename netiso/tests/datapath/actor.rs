//! A process in a pod: does on its own sockets what it is told on standard input, one line each, and answers with one
//! line on standard output.

use crate::frame::{from_hex, udp_payload};
use nix::{
    ifaddrs::getifaddrs,
    sched::{CloneFlags, unshare},
    sys::{
        socket::{
            AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt,
            socket, sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike},
    },
};
use std::{
    error::Error,
    fs,
    io::{self, BufRead, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

/// How long a socket waits for what has to come: neighbour and TCP timers may have to expire first.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a socket waits for what must not come.
const SILENCE: Duration = Duration::from_millis(400);

type Answer = Result<String, Box<dyn Error>>;

#[derive(Default)]
struct Actor {
    listener: Option<TcpListener>,
    stream: Option<TcpStream>,
    udp: Option<UdpSocket>,
    sniffer: Option<OwnedFd>,
}

/// `actor CGROUP|- NAMESPACE`: joins the cgroup, makes (`new`) or keeps (`-`) a network namespace, then obeys.
pub fn run() {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let [cgroup, namespace] = arguments.as_slice() else { panic!("actor CGROUP NAMESPACE") };
    if cgroup != "-" {
        fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("joining the cgroup");
    }
    if namespace == "new" {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    }
    println!("ok ready");
    let mut actor = Actor::default();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let words: Vec<&str> = line.split(' ').collect();
        match actor.act(&words) {
            Ok(text) => println!("ok {text}"),
            Err(error) => println!("error {error}"),
        }
    }
}

impl Actor {
    fn act(&mut self, words: &[&str]) -> Answer {
        let done = Ok(String::new());
        match *words {
            ["listen", address] => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let local = listener.local_addr()?;
                self.listener = Some(listener);
                Ok(local.to_string())
            }
            ["accept"] => {
                let listener = self.listener.as_ref().ok_or("not listening")?;
                // The handshake is over when the other side's connect returns; the queue may lag behind.
                for _ in 0..400 {
                    match listener.accept() {
                        Ok((stream, peer)) => {
                            stream.set_nonblocking(false)?;
                            stream.set_read_timeout(Some(PATIENCE))?;
                            self.stream = Some(stream);
                            return Ok(peer.to_string());
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            std::thread::sleep(PATIENCE / 400);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                Err("nobody connected".into())
            }
            ["connect", address] => {
                let stream = TcpStream::connect_timeout(&address.parse()?, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                self.stream = Some(stream);
                done
            }
            ["write", text] => {
                self.stream.as_mut().ok_or("no connection")?.write_all(text.as_bytes())?;
                done
            }
            ["read"] => {
                let mut buffer = [0; 256];
                let n = self.stream.as_mut().ok_or("no connection")?.read(&mut buffer)?;
                Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
            }
            ["connect-in-vain", address] => match TcpStream::connect_timeout(&address.parse()?, SILENCE) {
                Ok(_) => Err("connected".into()),
                Err(error) => Ok(error.to_string()),
            },
            ["silence"] => {
                let stream = self.stream.as_mut().ok_or("no connection")?;
                stream.set_read_timeout(Some(SILENCE))?;
                let heard = stream.read(&mut [0; 256]);
                stream.set_read_timeout(Some(PATIENCE))?;
                match heard {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => done,
                    other => Err(format!("{other:?}").into()),
                }
            }
            ["bind", address] => {
                let udp = UdpSocket::bind(address)?;
                udp.set_read_timeout(Some(PATIENCE))?;
                let local = udp.local_addr()?;
                self.udp = Some(udp);
                Ok(local.to_string())
            }
            ["send", address, text] => send(None, address.parse()?, text),
            ["send-bound", address, text] => send(self.udp.as_ref(), address.parse()?, text),
            ["receive"] => {
                let mut buffer = [0; 256];
                let (n, _) = self.udp.as_ref().ok_or("not bound")?.recv_from(&mut buffer)?;
                Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
            }
            ["raw", to, port, text] => raw(to.parse()?, port.parse()?, text),
            ["frame", interface, frame] => send_frame(interface, frame),
            ["sniff"] => {
                let sniffer = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll)?;
                self.sniffer = Some(sniffer);
                done
            }
            ["sniffed", text] => {
                let sniffer = self.sniffer.as_ref().ok_or("not sniffing")?;
                setsockopt(sniffer, ReceiveTimeout, &TimeVal::milliseconds(PATIENCE.as_millis().try_into()?))?;
                let mut seen = Vec::new();
                let mut buffer = [0; 2048];
                loop {
                    let n = recv(sniffer.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
                    let frame = String::from_utf8_lossy(&buffer[..n]).into_owned();
                    seen.extend(frame.find("mark-").map(|at| frame[at..].trim_end_matches('\0').to_owned()));
                    if seen.last().is_some_and(|mark| mark == text) {
                        return Ok(seen.join(" "));
                    }
                }
            }
            ["loopback", address] => loopback(address),
            _ => Err(format!("unknown: {words:?}").into()),
        }
    }
}

/// A datagram by a raw socket that writes its own UDP header.
/// Sends from a socket, or from a new one.
fn send(from: Option<&UdpSocket>, to: SocketAddr, text: &str) -> Answer {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    match from {
        Some(bound) => bound.send_to(text.as_bytes(), to)?,
        None => UdpSocket::bind(any)?.send_to(text.as_bytes(), to)?,
    };
    Ok(String::new())
}

fn raw(to: Ipv4Addr, port: u16, text: &str) -> Answer {
    let fd = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Udp)?;
    let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
    sendto(fd.as_raw_fd(), &udp_payload(4242, port, text), &to, MsgFlags::empty())?;
    Ok(String::new())
}

/// A frame by a packet socket.
fn send_frame(interface: &str, frame: &str) -> Answer {
    let own: LinkAddr = getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .ok_or("no such interface")?;
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)?;
    sendto(fd.as_raw_fd(), &from_hex(frame), &own, MsgFlags::empty())?;
    Ok(String::new())
}

/// A datagram and a connection to itself.
fn loopback(address: &str) -> Answer {
    let udp = UdpSocket::bind((address, 0))?;
    udp.set_read_timeout(Some(PATIENCE))?;
    udp.send_to(b"x", udp.local_addr()?)?;
    udp.recv_from(&mut [0; 1])?;
    let listener = TcpListener::bind((address, 0))?;
    let mut stream = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    let (mut other, _) = listener.accept()?;
    other.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"x")?;
    other.read_exact(&mut [0; 1])?;
    Ok(String::new())
}
