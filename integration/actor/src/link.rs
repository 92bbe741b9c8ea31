//! Makes an interface upon one of another network namespace, by netlink: what `ip` of busybox can't say.

use std::io::Error;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// include/uapi/linux/rtnetlink.h, netlink.h and `if_link.h`.
mod number {
    pub const RTM_NEWLINK: u16 = 16;
    pub const NLMSG_ERROR: u16 = 2;
    /// Request, acknowledge, create, and only if there is none.
    pub const FLAGS: u16 = 0x1 | 0x4 | 0x400 | 0x200;
    pub const IFLA_IFNAME: u16 = 3;
    pub const IFLA_LINK: u16 = 5;
    pub const IFLA_LINKINFO: u16 = 18;
    pub const IFLA_LINK_NETNSID: u16 = 37;
    pub const IFLA_INFO_KIND: u16 = 1;
}

/// What `actor link` takes.
#[derive(Args)]
pub struct Arguments {
    /// Its name.
    name: String,
    /// Its kind, such as macvlan.
    #[arg(long)]
    kind: String,
    /// Number of the interface that it is put upon.
    #[arg(long)]
    on: u32,
    /// The id by which this network namespace knows the one of that interface: of the node's it is mostly 0, the first.
    #[arg(long, default_value_t = 0)]
    of: i32,
}

impl Arguments {
    /// Makes it.
    pub fn run(self) -> Result<()> {
        use number::{
            FLAGS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, NLMSG_ERROR, RTM_NEWLINK,
        };
        // struct ifinfomsg, which says nothing.
        let mut body = vec![0; 16];
        attribute(&mut body, IFLA_IFNAME, &zero_terminated(&self.name))?;
        attribute(&mut body, IFLA_LINK, &self.on.to_ne_bytes())?;
        attribute(&mut body, IFLA_LINK_NETNSID, &self.of.to_ne_bytes())?;
        let mut info = Vec::new();
        attribute(&mut info, IFLA_INFO_KIND, &zero_terminated(&self.kind))?;
        attribute(&mut body, IFLA_LINKINFO, &info)?;
        let mut message = u32::try_from(16 + body.len())?.to_ne_bytes().to_vec();
        message.extend(RTM_NEWLINK.to_ne_bytes());
        message.extend(FLAGS.to_ne_bytes());
        message.extend([1_u32.to_ne_bytes(), 0_u32.to_ne_bytes()].concat());
        message.extend(body);

        let family = AddressFamily::Netlink;
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
            .context("make a netlink socket")?;
        sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty()).context("ask by netlink")?;
        let mut answer = [0; 512];
        let size = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).context("netlink's answer")?;
        // A header, then the error as a number, which is 0 if there is none.
        let kind = answer.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
        let error = answer[..size].get(16..20).and_then(|error| error.try_into().ok()).map(i32::from_ne_bytes);
        match (kind, error) {
            (Some(NLMSG_ERROR), Some(0)) => println!("made {} on {} of namespace {}", self.name, self.on, self.of),
            (Some(NLMSG_ERROR), Some(error)) => {
                return Err(Error::from_raw_os_error(-error)).with_context(|| format!("make {}", self.name));
            }
            _ => bail!("netlink answered {kind:?} in {size} bytes"),
        }
        Ok(())
    }
}

fn zero_terminated(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

/// Appends an attribute, padded to four bytes.
fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) -> Result<()> {
    to.extend(u16::try_from(4 + value.len())?.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
    Ok(())
}
