//! Puts a connected socket, or a file, on a standard stream: what a reverse shell does first.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
#[cfg(target_arch = "x86_64")]
use std::os::fd::AsFd as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{close, dup2_stderr, dup2_stdin, dup2_stdout, dup3};

/// How the descriptor gets there.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// dup2(2).
    Dup2,
    /// dup2(2) of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatDup2,
    /// dup3(2).
    Dup3,
    /// Closed, then fcntl(2) `F_DUPFD`.
    Fcntl,
    /// Closed, then the lowest free descriptor is what dup(2) gives.
    Dup,
    /// By starting a program with it, as inetd does.
    Inherited,
    /// Not on a standard stream: dup(2) to whatever is free.
    Elsewhere,
}

/// What is put there.
#[derive(Clone, Copy, ValueEnum)]
pub enum What {
    /// A TCP connection to the address.
    Tcp,
    /// A UDP socket connected to the address.
    Udp,
    /// A UDP socket that is not connected.
    UdpUnconnected,
    /// A TCP connection to a listener in this process, on the loopback.
    Loopback,
    /// A file.
    File,
    /// One end of a Unix socket pair.
    UnixPair,
}

/// What `actor stdio` takes.
#[derive(Args)]
pub struct Arguments {
    how: How,
    what: What,
    /// 0, 1 or 2.
    #[arg(long, default_value_t = 0)]
    stream: i32,
    /// Where to connect.
    #[arg(long)]
    to: Option<SocketAddr>,
}

impl Arguments {
    /// Connects and redirects. Says so on the error output, because the standard output may be gone.
    pub fn run(self) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let descriptor = self.open(&listener)?;
        ensure!(matches!(self.stream, 0..=2), "--stream is 0, 1 or 2, not {}", self.stream);
        match self.how {
            How::Dup2 => match self.stream {
                0 => dup2_stdin(&descriptor)?,
                1 => dup2_stdout(&descriptor)?,
                _ => dup2_stderr(&descriptor)?,
            },
            #[cfg(target_arch = "x86_64")]
            How::CompatDup2 => crate::compat::dup2(descriptor.as_fd(), self.stream.cast_unsigned())?,
            How::Dup3 => {
                let mut stream = self.freed(&File::open("/dev/null")?.into())?;
                dup3(&descriptor, &mut stream, OFlag::O_CLOEXEC)?;
            }
            How::Fcntl => {
                close(self.stream)?;
                let got = fcntl(&descriptor, FcntlArg::F_DUPFD(self.stream))?;
                ensure!(got == self.stream, "descriptor {got} instead of {}", self.stream);
            }
            How::Dup => {
                close(self.stream)?;
                let got = nix::unistd::dup(&descriptor)?;
                ensure!(got.as_raw_fd() == self.stream, "descriptor {} instead of {}", got.as_raw_fd(), self.stream);
            }
            How::Inherited => {
                let mut command = Command::new("/proc/self/exe");
                command.arg("nothing");
                match self.stream {
                    0 => command.stdin(Stdio::from(descriptor)),
                    1 => command.stdout(Stdio::from(descriptor)),
                    _ => command.stderr(Stdio::from(descriptor)),
                };
                ensure!(command.status()?.success(), "the program with the descriptor failed");
            }
            How::Elsewhere => drop(nix::unistd::dup(&descriptor)?),
        }
        if self.stream != 1 {
            println!("redirected {}", self.stream);
        }
        Ok(())
    }

    fn open(&self, listener: &TcpListener) -> Result<OwnedFd> {
        let to = || self.to.context("--to ADDRESS:PORT is missing");
        Ok(match self.what {
            What::Tcp => TcpStream::connect(to()?).with_context(|| format!("connect to {:?}", self.to))?.into(),
            What::Udp | What::UdpUnconnected => {
                let any = if to()?.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                if matches!(self.what, What::Udp) {
                    socket.connect(to()?)?;
                }
                socket.into()
            }
            What::Loopback => TcpStream::connect(listener.local_addr()?)?.into(),
            What::File => File::open("/etc/hostname").or_else(|_| File::open("/etc/passwd"))?.into(),
            What::UnixPair => std::os::unix::net::UnixStream::pair()?.0.into(),
        })
    }

    /// The stream's number as an owned descriptor, which dup3 wants to replace.
    fn freed(&self, null: &OwnedFd) -> Result<OwnedFd> {
        close(self.stream)?;
        let stream = nix::unistd::dup(null)?;
        ensure!(stream.as_raw_fd() == self.stream, "descriptor {} instead of {}", stream.as_raw_fd(), self.stream);
        Ok(stream)
    }
}
