//! Sockets that go from one process to another.

#![expect(unsafe_code, reason = "a descriptor that arrives is a number, until somebody owns it")]

use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Makes a UDP socket, and hands it to whoever connects to `path`; lives on.
pub fn hand(path: &Path) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let listener = UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?;
    println!("waiting");
    loop {
        let (taker, _) = listener.accept()?;
        let rights = [socket.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&rights)];
        sendmsg::<()>(taker.as_raw_fd(), &[IoSlice::new(b"s")], &message, MsgFlags::empty(), None)?;
    }
}

/// The socket that is handed out at `path`.
pub fn take(path: &Path) -> Result<UdpSocket> {
    let giver = UnixStream::connect(path).with_context(|| format!("connect to {}", path.display()))?;
    let (mut byte, mut space) = ([0], nix::cmsg_space!([i32; 1]));
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(giver.as_raw_fd(), &mut bytes, Some(&mut space), MsgFlags::empty())?;
    let passed = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(rights) => rights.first().copied(),
        _ => None,
    });
    let descriptor = passed.context("no socket came")?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { UdpSocket::from_raw_fd(descriptor) })
}
