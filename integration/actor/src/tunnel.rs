//! A tunnel device: what is written to its file comes in by an interface, as if from a network behind it.

#![expect(unsafe_code, reason = "that a file is a device's queue is said by an ioctl")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::libc::{self, IFF_NO_PI, IFF_TUN, c_char, ifreq};

nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, ifreq);

/// Its interface.
const NAME: &str = "tun7";

/// Opens one and takes it up; packets from `from` are expected there.
pub fn open(from: &str) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("open /dev/net/tun")?;
    // SAFETY: it holds numbers alone, and zeros are fine for all of them.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    for (to, byte) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
        // Signed here and unsigned there.
        *to = c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(IFF_TUN | IFF_NO_PI)?;
    // SAFETY: the kernel reads a whole request, which lives until it has done so.
    unsafe { set_interface(file.as_raw_fd(), &raw const request) }.context("make a tunnel device")?;
    for words in [&["link", "set", NAME, "up"][..], &["route", "replace", &format!("{from}/32"), "dev", NAME]] {
        let status = Command::new("ip").args(words).status().context("run ip")?;
        ensure!(status.success(), "ip {}: {status}", words.join(" "));
    }
    Ok(file)
}
