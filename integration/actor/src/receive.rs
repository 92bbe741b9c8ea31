//! Receives stamped packets inside the container.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use ringfence_actor::{STAMP, Stamp};

/// What `actor receive` takes.
#[derive(Args)]
pub struct Arguments {
    /// Where to listen for UDP.
    #[arg(long)]
    on: SocketAddr,
    /// How long, in milliseconds.
    #[arg(long)]
    lasting: u64,
}

impl Arguments {
    /// Receives until the time is over.
    pub fn run(self) -> Result<()> {
        let socket = UdpSocket::bind(self.on).with_context(|| format!("listen on {}", self.on))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        println!("listening on {}", self.on);
        let until = Instant::now() + Duration::from_millis(self.lasting);
        let (mut count, mut last, mut packet) = (0_u64, 0, [0; STAMP]);
        while Instant::now() < until {
            if let Ok(size) = socket.recv(&mut packet)
                && let Some(stamp) = Stamp::from_bytes(&packet[..size])
            {
                count += 1;
                last = last.max(stamp.at);
            }
        }
        println!("received {count} last {last}");
        Ok(())
    }
}
