//! Interfaces and addresses, as netlink tells them.

use crate::Error;
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressAttribute,
    link::{LinkAttribute, LinkInfo, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
};
use rtnetlink::Handle;
use std::{collections::BTreeSet, fs::File, net::IpAddr, os::fd::AsRawFd};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    /// `veth`, `macvlan` ...; empty for hardware.
    pub kind: String,
    /// Index of the other end, or of the interface below.
    pub peer: Option<u32>,
    /// Id, within the namespace asked, of the namespace that `peer` is in; none: the same one.
    pub peer_namespace: Option<i32>,
}

impl Link {
    /// Index of the loopback in every network namespace.
    pub const LOOPBACK: u32 = 1;

    pub fn from_message(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: String::new(),
            peer: None,
            peer_namespace: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Link(peer) => link.peer = Some(*peer),
                LinkAttribute::LinkNetNsId(id) => link.peer_namespace = Some(*id),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            link.kind = kind.to_string();
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }
}

/// A netlink connection into the calling thread's network namespace.
pub(crate) fn connect() -> Result<Handle, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
    tokio::spawn(connection);
    Ok(handle)
}

pub(crate) fn failed(doing: &'static str) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |source| Error::Netlink { doing, source }
}

/// All interfaces.
pub(crate) async fn links(netlink: &Handle) -> Result<Vec<Link>, Error> {
    let messages: Vec<LinkMessage> =
        netlink.link().get().execute().try_collect().await.map_err(failed("listing interfaces"))?;
    Ok(messages.iter().map(Link::from_message).collect())
}

/// All addresses, the loopback's included.
pub(crate) async fn addresses(netlink: &Handle) -> Result<BTreeSet<IpAddr>, Error> {
    let mut addresses = BTreeSet::new();
    let mut messages = netlink.address().get().execute();
    while let Some(message) = messages.try_next().await.map_err(failed("listing addresses"))? {
        // Of a point-to-point interface `Address` is the other side and `Local` is ours.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        addresses.extend(local.or(address));
    }
    Ok(addresses)
}

/// The id by which the asking namespace knows another one; none: it has never given it one.
pub(crate) async fn namespace_id(netlink: &Handle, namespace: &File) -> Result<Option<i32>, Error> {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(message));
    request.header.flags = NLM_F_REQUEST;
    let doing = "asking for a namespace's id";
    let mut replies = netlink.clone().request(request).map_err(failed(doing))?;
    while let Some(reply) = replies.next().await {
        match reply.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(reply)) => {
                return Ok(reply.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                    _ => None,
                }));
            }
            NetlinkPayload::Error(error) => return Err(failed(doing)(rtnetlink::Error::NetlinkError(error))),
            _ => {}
        }
    }
    Ok(None)
}
