//! Changes of the node's interfaces and addresses, as the kernel announces them.

use crate::{Error, link::Link};
use futures_util::{Stream, StreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use std::pin::Pin;

/// Something changed on the node. Give it to [`crate::Datapaths::apply`].
#[derive(Clone, Debug)]
pub struct Change(pub(crate) What);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// An interface came, or was changed or moved.
    Link(Link),
    /// An interface went.
    LinkGone(u32),
    /// An address came or went.
    Addresses,
    /// Somebody put a filter to an interface, or took one or a queueing discipline off it.
    Filters(u32),
    /// Announcements were lost: look at everything anew.
    Lost,
}

/// The kernel's announcements to the network namespace that it was started in.
pub struct Watch {
    messages: Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send>>,
}

impl Watch {
    /// Starts to listen. Start it before [`crate::open`], and nothing that happens in between is missed. Needs a
    /// tokio runtime.
    pub fn start() -> Result<Self, Error> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr, MulticastGroup::Tc];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups).map_err(Error::Socket)?;
        tokio::spawn(connection);
        Ok(Self { messages: Box::pin(messages.map(|(message, _)| message)) })
    }

    /// The next change; none: the socket is broken, start a new watch and apply a [`Change::everything`].
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(what) = interpret(&self.messages.next().await?.payload) {
                return Some(Change(what));
            }
        }
    }
}

impl Change {
    /// Anything may have changed.
    pub fn everything() -> Self {
        Self(What::Lost)
    }

    /// Whether an interface came or went, or another one was put upon it, in whatever network namespace that is.
    pub fn is_of_interfaces(&self) -> bool {
        matches!(self.0, What::Link(_) | What::LinkGone(_) | What::Lost)
    }
}

fn interpret(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<What> {
    match payload {
        NetlinkPayload::InnerMessage(message) => match message {
            RouteNetlinkMessage::NewLink(link) => Some(What::Link(Link::from_message(link))),
            // A bridge announces so that an interface is no longer its port.
            RouteNetlinkMessage::DelLink(link) if link.header.interface_family == AddressFamily::Bridge => None,
            RouteNetlinkMessage::DelLink(link) => Some(What::LinkGone(link.header.index)),
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => Some(What::Addresses),
            // A new one may lie before ours.
            RouteNetlinkMessage::NewTrafficFilter(tc)
            | RouteNetlinkMessage::DelTrafficFilter(tc)
            | RouteNetlinkMessage::DelQueueDiscipline(tc) => Some(What::Filters(tc.header.index.cast_unsigned())),
            _ => None,
        },
        NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_) => Some(What::Lost),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::{link::LinkMessage, tc::TcMessage};

    #[test]
    fn lost_announcements_are_not_passed_over() {
        assert_eq!(interpret(&NetlinkPayload::Overrun(vec![])), Some(What::Lost));
    }

    #[test]
    fn a_removed_filter_names_its_interface() {
        let message = RouteNetlinkMessage::DelTrafficFilter(TcMessage::with_index(7));
        assert_eq!(interpret(&NetlinkPayload::InnerMessage(message)), Some(What::Filters(7)));
    }

    #[test]
    fn leaving_a_bridge_is_not_the_end_of_an_interface() {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        let gone = interpret(&NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link.clone())));
        assert_eq!(gone, Some(What::LinkGone(7)));
        link.header.interface_family = AddressFamily::Bridge;
        assert_eq!(interpret(&NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))), None);
    }

    #[test]
    fn what_we_ask_for_ourselves_is_no_change() {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        assert_eq!(interpret(&NetlinkPayload::InnerMessage(message)), None);
    }
}
