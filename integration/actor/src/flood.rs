//! Sends stamped packets, violates a rule in between, goes on sending.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use ringfence_actor::{Stamp, now};

use crate::forge::Forge;
use crate::{passed, uring};

/// How the packets are sent.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Proto {
    /// sendto of a UDP socket.
    Udp,
    /// write to one established TCP connection.
    Tcp,
    /// UDP packets with an IP header of our own, from a raw socket.
    Raw,
    /// Ethernet frames of our own, from a packet socket.
    Packet,
    /// The same from an XDP socket.
    Xdp,
    /// UDP packets sent by `io_uring`.
    Uring,
    /// UDP packets that come out of a tunnel device and are forwarded.
    Tunnel,
    /// sendto of a UDP socket that another process hands out.
    Passed,
}

/// Who violates.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Who {
    /// The sending thread itself.
    Sender,
    /// Another thread, while the sender sends.
    Thread,
}

/// What `actor flood` takes.
#[derive(Args)]
pub struct Arguments {
    #[arg(long)]
    proto: Proto,
    #[arg(long)]
    to: SocketAddr,
    /// The next hop's hardware address, for packet and XDP sockets.
    #[arg(long, value_parser = hardware_address)]
    mac: Option<[u8; 6]>,
    /// The interface, for packet and XDP sockets.
    #[arg(long, default_value = "eth0")]
    interface: String,
    /// Where packets out of a tunnel device say that they are from.
    #[arg(long)]
    from: Option<Ipv4Addr>,
    /// The Unix socket at which a socket is handed out.
    #[arg(long)]
    through: Option<PathBuf>,
    /// How long to send, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    lasting: u64,
    /// Pause after each packet, in microseconds.
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Violate after so many packets.
    #[arg(long)]
    violate_after: Option<u64>,
    /// The violation: this file is read.
    #[arg(long, default_value = "/etc/shadow")]
    violate: PathBuf,
    #[arg(long, default_value = "sender")]
    who: Who,
}

fn hardware_address(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    bytes.ok_or_else(|| format!("{text} is not a hardware address such as 02:00:00:00:00:01"))
}

/// What is sent at least after a violation.
const AFTER: Duration = Duration::from_millis(100);

/// What was sent so far, and when to stop.
struct Course {
    until: Instant,
    pause: Duration,
    violate_after: Option<u64>,
    violate: PathBuf,
    who: Who,
    /// The other thread that violates.
    violating: Option<JoinHandle<()>>,
    number: u64,
    sent: u64,
    failed: u64,
}

impl Course {
    /// The next packet's stamp; `None`: it is time to stop.
    fn next(&mut self) -> Option<Stamp> {
        if self.violate_after == Some(self.number) {
            let path = self.violate.clone();
            match self.who {
                Who::Sender => violate(&path),
                Who::Thread => self.violating = Some(thread::spawn(move || violate(&path))),
            }
        }
        if !self.pause.is_zero() {
            thread::sleep(self.pause);
        }
        if self.is_over() {
            return None;
        }
        let stamp = Stamp::now(self.number);
        self.number += 1;
        Some(stamp)
    }

    /// Not before the violation and what is sent after it, however long a busy machine keeps these waiting.
    fn is_over(&mut self) -> bool {
        let now = Instant::now();
        if now < self.until {
            return false;
        }
        let is_to_come = self.violate_after.is_some_and(|after| self.number <= after)
            || self.violating.as_ref().is_some_and(|thread| !thread.is_finished());
        if is_to_come {
            self.until = now + AFTER;
        }
        !is_to_come
    }

    fn count(&mut self, sent: bool) {
        if sent {
            self.sent += 1;
        } else {
            self.failed += 1;
        }
    }
}

fn violate(path: &Path) {
    let before = now();
    let result = fs::read(path);
    println!(
        "violated between {before} and {}: {}",
        now(),
        result.map_or_else(|error| error.to_string(), |_| "read".into())
    );
}

impl Arguments {
    /// Sends. A packet that the kernel refuses is counted, not a failure.
    pub fn run(self) -> Result<()> {
        let mut course = Course {
            until: Instant::now() + Duration::from_millis(self.lasting),
            pause: Duration::from_micros(self.pause),
            violate_after: self.violate_after,
            violate: self.violate.clone(),
            who: self.who,
            violating: None,
            number: 0,
            sent: 0,
            failed: 0,
        };
        match self.proto {
            Proto::Udp => {
                let socket = UdpSocket::bind(if self.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                datagrams(&socket, self.to, &mut course);
            }
            Proto::Passed => {
                let path = self.through.as_ref().context("--proto passed needs --through")?;
                datagrams(&passed::take(path)?, self.to, &mut course);
            }
            Proto::Tunnel => {
                let from = self.from.context("--proto tunnel needs --from")?;
                forged(&Forge::tunnel(from, self.to)?, &mut course);
            }
            Proto::Tcp => self.stream(&mut course)?,
            Proto::Raw => forged(&Forge::raw(self.to)?, &mut course),
            Proto::Packet | Proto::Xdp => {
                let mac = self.mac.context("--proto packet and xdp need --mac")?;
                let forge = if self.proto == Proto::Packet { Forge::packet } else { Forge::frames };
                forged(&forge(self.to, &self.interface, mac)?, &mut course);
            }
            Proto::Uring => {
                let course = std::cell::RefCell::new(&mut course);
                let next = || course.borrow_mut().next().map(Stamp::to_bytes);
                uring::flood(self.to, next, |sent| course.borrow_mut().count(sent))?;
            }
        }
        println!("sent {} failed {} last {}", course.sent, course.failed, now());
        Ok(())
    }

    /// One record after the other. When the connection is cut off the buffer fills and a write would block: then
    /// the rest of the record is tried again until the time is over.
    fn stream(&self, course: &mut Course) -> Result<()> {
        let mut stream = TcpStream::connect(self.to).with_context(|| format!("connect to {}", self.to))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_millis(20)))?;
        while let Some(stamp) = course.next() {
            let record = stamp.to_bytes();
            let mut rest = &record[..];
            while !rest.is_empty() {
                match stream.write(rest) {
                    Ok(size) => rest = &rest[size..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::TimedOut => {
                        course.count(false);
                        if course.is_over() {
                            return Ok(());
                        }
                    }
                    Err(error) => bail!("after {} records the connection broke: {error}", course.sent),
                }
            }
            course.count(true);
        }
        Ok(())
    }
}

fn datagrams(socket: &UdpSocket, to: SocketAddr, course: &mut Course) {
    while let Some(stamp) = course.next() {
        course.count(socket.send_to(&stamp.to_bytes(), to).is_ok());
    }
}

fn forged(forge: &Forge, course: &mut Course) {
    while let Some(stamp) = course.next() {
        course.count(forge.send(&stamp.to_bytes()).is_ok());
    }
}
