//! Talks to a Unix socket that this process itself serves, or is one side of that alone.

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

#[cfg(target_arch = "x86_64")]
use {
    crate::compat,
    nix::sys::socket::{AddressFamily, SockType, UnixAddr},
    std::os::fd::AsFd as _,
};

use crate::read::parent;

/// What is done with the socket.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// connect(2).
    Connect,
    /// connect(2) by its name alone, from its directory.
    ConnectRelative,
    /// connect(2) through a symbolic link of another name.
    ConnectSymlink,
    /// connect(2) by the socketcall(2) of 32-bit programs.
    #[cfg(target_arch = "x86_64")]
    CompatConnect,
    /// A datagram is sent to it.
    Datagram,
    /// open(2) with `O_PATH`.
    OpenPath,
    /// Its attributes are read.
    Stat,
    /// Listens, until somebody takes leave, and says how many came before.
    Serve,
    /// connect(2) to what another process serves.
    Visit,
    /// connect(2) to what another process serves, which ends with that.
    TakeLeave,
}

/// What `actor unix` takes.
#[derive(Args)]
pub struct Arguments {
    how: How,
    path: PathBuf,
}

impl Arguments {
    /// Listens at the path under another name, renames that to the path, and does what `how` says.
    ///
    /// A daemon on the node would have made the socket; so the bind itself must not look like the behaviour.
    pub fn run(self) -> Result<()> {
        match self.how {
            How::Serve => return serve(&self.path),
            How::Visit => return visit(&self.path, b""),
            How::TakeLeave => return visit(&self.path, LEAVE),
            _ => {}
        }
        let parent = parent(&self.path)?;
        fs::create_dir_all(parent)?;
        let place = parent.join("place");
        drop(fs::remove_file(&place));
        let datagram = matches!(self.how, How::Datagram);
        let listener = if datagram { None } else { Some(UnixListener::bind(&place)?) };
        let receiver = if datagram { Some(UnixDatagram::bind(&place)?) } else { None };
        fs::rename(&place, &self.path)?;
        let result = self.talk();
        drop((listener, receiver));
        fs::remove_file(&self.path)?;
        result.with_context(|| format!("talk to {}", self.path.display()))?;
        println!("talked to {}", self.path.display());
        Ok(())
    }

    fn talk(&self) -> Result<()> {
        match self.how {
            How::Connect => drop(UnixStream::connect(&self.path)?),
            How::ConnectRelative => {
                env::set_current_dir(parent(&self.path)?)?;
                drop(UnixStream::connect(self.path.file_name().context("the path has no name")?)?);
            }
            How::ConnectSymlink => {
                let link = crate::scratch::path()?;
                std::os::unix::fs::symlink(&self.path, &link)?;
                drop(UnixStream::connect(link)?);
            }
            #[cfg(target_arch = "x86_64")]
            How::CompatConnect => {
                let socket = compat::socket(AddressFamily::Unix, SockType::Stream, 0)?;
                compat::connect(socket.as_fd(), &UnixAddr::new(&self.path)?)?;
            }
            How::Datagram => drop(UnixDatagram::unbound()?.send_to(b"hello", &self.path)?),
            How::OpenPath => {
                open(&self.path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            }
            How::Stat => {
                fs::metadata(&self.path)?;
            }
            How::Serve | How::Visit | How::TakeLeave => unreachable!("the other side is another process"),
        }
        Ok(())
    }
}

/// What the last one says.
const LEAVE: &[u8] = b"bye";

fn serve(path: &Path) -> Result<()> {
    let listener = UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?;
    let mut came = 0;
    loop {
        let mut said = Vec::new();
        // Who was killed may have left nothing but an error.
        let _ = listener.accept()?.0.read_to_end(&mut said);
        if said == LEAVE {
            println!("{came} came");
            return Ok(());
        }
        came += 1;
    }
}

fn visit(path: &Path, say: &[u8]) -> Result<()> {
    let mut stream = UnixStream::connect(path).with_context(|| format!("connect to {}", path.display()))?;
    stream.write_all(say)?;
    println!("visited {}", path.display());
    Ok(())
}
