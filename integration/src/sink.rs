//! The node's end of the traffic: takes stamped packets and streams, and remembers per sender the latest stamp.

use std::collections::HashMap;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringfence_actor::{STAMP, Stamp};

use crate::cluster::Cluster;
use crate::harness::Node;

/// How long a thread of the sink waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// What came from one sender.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrivals {
    /// Stamped packets, or records of a stream.
    pub count: u64,
    /// Latest stamp, `CLOCK_MONOTONIC` in ns.
    pub last: u64,
}

#[derive(Default)]
struct Shared {
    arrivals: Mutex<HashMap<IpAddr, Arrivals>>,
    changed: Condvar,
    stop: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Arrivals>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, from: SocketAddr, stamp: Stamp) {
        let mut arrivals = self.lock();
        let one = arrivals.entry(from.ip().to_canonical()).or_default();
        one.count += 1;
        one.last = one.last.max(stamp.at);
        self.changed.notify_all();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Listens on one port, UDP and TCP, IPv4 and IPv6, and on the port of the domain name service for UDP.
pub struct Sink {
    shared: Arc<Shared>,
    port: u16,
    threads: Vec<thread::JoinHandle<()>>,
}

/// The port of the domain name service.
pub const DNS: u16 = 53;

/// Sockets that listen, and their port.
struct Sockets {
    port: u16,
    tcp: TcpListener,
    udp: [UdpSocket; 2],
}

impl Sockets {
    fn open() -> Result<Self> {
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let tcp = TcpListener::bind(any(0)).context("listen for TCP")?;
        let port = tcp.local_addr()?.port();
        let udp = [
            UdpSocket::bind(any(port)).context("listen for UDP")?,
            UdpSocket::bind(any(DNS)).context("listen on port 53")?,
        ];
        Ok(Self { port, tcp, udp })
    }
}

impl Sink {
    /// Listens in the node's network namespace.
    pub fn start(node: &Node) -> Result<Self> {
        Self::serve(node.within(Sockets::open)?)
    }

    /// The same in that of a cluster's node.
    pub fn on_node_of(cluster: &Cluster) -> Result<Self> {
        Self::serve(cluster.within(Sockets::open)?)
    }

    fn serve(Sockets { port, tcp, udp }: Sockets) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for socket in udp {
            socket.set_read_timeout(Some(LOOK))?;
            let shared = shared.clone();
            threads.push(thread::spawn(move || receive(&socket, &shared)));
        }
        let accepting = shared.clone();
        tcp.set_nonblocking(true)?;
        threads.push(thread::spawn(move || accept(&tcp, &accepting)));
        Ok(Self { shared, port, threads })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What came from an address so far.
    pub fn from(&self, address: IpAddr) -> Arrivals {
        self.shared.lock().get(&address.to_canonical()).copied().unwrap_or_default()
    }

    /// Forgets what came from an address: the next container may get the same one.
    pub fn forget(&self, address: IpAddr) {
        self.shared.lock().remove(&address.to_canonical());
    }

    /// Waits until `more` packets than now have come from an address.
    pub fn wait_for_more(&self, address: IpAddr, more: u64) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(30);
        let mut arrivals = self.shared.lock();
        let count =
            |arrivals: &HashMap<IpAddr, Arrivals>| arrivals.get(&address.to_canonical()).map_or(0, |one| one.count);
        let start = count(&arrivals);
        while count(&arrivals) < start + more {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} packets came from {address} instead of {more} within 30 s", count(&arrivals) - start);
            }
            arrivals = self.shared.changed.wait_timeout(arrivals, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn receive(socket: &UdpSocket, shared: &Shared) {
    let mut packet = [0; 2048];
    while !shared.stopped() {
        if let Ok((size, from)) = socket.recv_from(&mut packet)
            && let Some(stamp) = Stamp::from_bytes(&packet[..size])
        {
            shared.add(from, stamp);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stopped() {
        match listener.accept() {
            Ok((stream, from)) => {
                let shared = shared.clone();
                // Ends with its connection, or when the sink does.
                thread::spawn(move || drop(read(stream, from, &shared)));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn read(mut stream: TcpStream, from: SocketAddr, shared: &Shared) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LOOK))?;
    let mut record = [0; STAMP];
    let mut filled = 0;
    while !shared.stopped() {
        match stream.read(&mut record[filled..]) {
            Ok(0) => break,
            Ok(size) => filled += size,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        if filled == STAMP {
            filled = 0;
            if let Some(stamp) = Stamp::from_bytes(&record) {
                shared.add(from, stamp);
            }
        }
    }
    Ok(())
}
