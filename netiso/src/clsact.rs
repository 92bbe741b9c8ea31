//! Filters of the clsact queueing discipline, which we share with everybody else.
//!
//! A filter outlives us by itself. It is known as ours by its handle and its program's name; the handle also says
//! whether the discipline was ours to add, so that the last of our filters takes it away again, if it is empty then.

use crate::{
    Error,
    classifier::{Interface, Place},
    link::failed,
};
use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};
use futures_util::TryStreamExt;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle as Handle32, TcMessage, TcOption};
use rtnetlink::Handle;

/// First half of our filters' handles: "RF".
const OURS: u16 = 0x5246;
/// Second half: the discipline was there already.
const THEIR_CLSACT: u16 = 1;
/// Second half: we added the discipline.
const OUR_CLSACT: u16 = 2;
/// The lowest there is: first in the chain. Among filters of one priority the one attached last comes first.
const PRIORITY: u16 = 1;

/// A filter of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    priority: u16,
    handle: TcHandle,
    our_clsact: bool,
}

/// Attaches `program`, or puts it in the place of the one that an earlier enforcer left, in one step.
pub(crate) async fn attach(
    netlink: &Handle,
    program: &mut SchedClassifier,
    name: &'static str,
    direction: TcAttachType,
    interface: Interface<'_>,
) -> Result<(), Error> {
    let attaching = |source: ProgramError| Error::Attach { program: name, to: interface.name.to_owned(), source };
    let id = if let Some(filter) = find(netlink, interface.index, direction, name).await? {
        let link = SchedClassifierLink::attached(interface.name, direction, filter.priority, filter.handle, None)
            .map_err(|error| attaching(error.into()))?;
        program.attach_to_link(link).map_err(attaching)?
    } else {
        let minor = match discipline(netlink, interface.index).await? {
            Some(true) => OUR_CLSACT,
            Some(false) => THEIR_CLSACT,
            None => {
                qdisc_add_clsact(interface.name).map_err(|error| attaching(error.into()))?;
                OUR_CLSACT
            }
        };
        let options = NlOptions { priority: PRIORITY, handle: TcHandle::new(OURS, minor), classid: None };
        program.attach_with_options(interface.name, direction, TcAttachOptions::Netlink(options)).map_err(attaching)?
    };
    // Dropping such a link detaches it; it has to stay.
    std::mem::forget(program.take_link(id).map_err(attaching)?);
    Ok(())
}

/// Our filter of that name.
pub(crate) async fn find(
    netlink: &Handle,
    index: u32,
    direction: TcAttachType,
    name: &str,
) -> Result<Option<Filter>, Error> {
    Ok(filters(netlink, index, direction).await?.iter().find_map(|message| ours(message, name)))
}

/// Where that lies. Filters are listed in the order in which the kernel asks them.
pub(crate) async fn place(netlink: &Handle, index: u32, direction: TcAttachType, name: &str) -> Result<Place, Error> {
    let filters = filters(netlink, index, direction).await?;
    Ok(Place::of(filters.iter().position(|message| ours(message, name).is_some())))
}

/// Detaches our filter, and the discipline if it was ours and nobody uses it any more.
pub(crate) async fn detach(
    netlink: &Handle,
    name: &'static str,
    direction: TcAttachType,
    interface: Interface<'_>,
) -> Result<(), Error> {
    let Some(filter) = find(netlink, interface.index, direction, name).await? else { return Ok(()) };
    let detaching = |source: ProgramError| Error::Attach { program: name, to: interface.name.to_owned(), source };
    let link = SchedClassifierLink::attached(interface.name, direction, filter.priority, filter.handle, None)
        .map_err(|error| detaching(error.into()))?;
    aya::programs::links::Link::detach(link).map_err(detaching)?;
    if filter.our_clsact && is_empty(netlink, interface.index).await? {
        let mut request = netlink.qdisc().del(interface.index.cast_signed());
        let header = &mut request.message_mut().header;
        header.parent = Handle32::CLSACT;
        header.handle = Handle32 { major: u16::MAX, minor: 0 };
        request.execute().await.map_err(failed("removing our clsact"))?;
    }
    Ok(())
}

async fn is_empty(netlink: &Handle, index: u32) -> Result<bool, Error> {
    Ok(filters(netlink, index, TcAttachType::Ingress).await?.is_empty()
        && filters(netlink, index, TcAttachType::Egress).await?.is_empty())
}

/// Whether the interface has a clsact, and whether it is ours: a filter of ours in the other direction says so.
async fn discipline(netlink: &Handle, index: u32) -> Result<Option<bool>, Error> {
    let disciplines: Vec<TcMessage> = netlink
        .qdisc()
        .get()
        .index(index.cast_signed())
        .execute()
        .try_collect()
        .await
        .map_err(failed("listing queueing disciplines"))?;
    // An older kernel ignores the index and lists all.
    let has = disciplines.iter().any(|d| d.header.index == index.cast_signed() && kind(d) == Some("clsact"));
    if !has {
        return Ok(None);
    }
    for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
        for message in filters(netlink, index, direction).await? {
            if is_our_handle(&message) && message.header.handle.minor == OUR_CLSACT {
                return Ok(Some(true));
            }
        }
    }
    Ok(Some(false))
}

/// All filters in one direction. An interface without clsact has none.
pub(crate) async fn filters(netlink: &Handle, index: u32, direction: TcAttachType) -> Result<Vec<TcMessage>, Error> {
    let mut handle = netlink.traffic_filter(index.cast_signed());
    let request = match direction {
        TcAttachType::Egress => handle.get().egress(),
        _ => handle.get().ingress(),
    };
    let listed: Result<Vec<TcMessage>, _> = request.execute().try_collect().await;
    match listed {
        // Every priority is listed once more by a message without a filter.
        Ok(messages) => Ok(messages.into_iter().filter(|m| m.header.handle != Handle32::UNSPEC).collect()),
        Err(rtnetlink::Error::NetlinkError(error))
            if matches!(
                error.code.map(|code| nix::errno::Errno::from_raw(-code.get())),
                Some(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT | nix::errno::Errno::ENODEV)
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(failed("listing filters")(error)),
    }
}

fn ours(message: &TcMessage, name: &str) -> Option<Filter> {
    (is_our_handle(message) && program_name(message) == Some(name)).then(|| {
        let Handle32 { major, minor } = message.header.handle;
        // The upper half of `info` is the priority, the lower one the protocol.
        let priority = (message.header.info >> 16) as u16;
        Filter { priority, handle: TcHandle::new(major, minor), our_clsact: minor == OUR_CLSACT }
    })
}

/// Our handle, on a filter that runs a program.
pub(crate) fn is_our_handle(message: &TcMessage) -> bool {
    kind(message) == Some("bpf") && message.header.handle.major == OURS
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

pub(crate) fn program_name(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.as_str()),
            _ => None,
        }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(kind: &str, handle: Handle32, name: &str) -> TcMessage {
        let mut message = TcMessage::with_index(7);
        message.header.handle = handle;
        message.header.info = (1 << 16) | 0x0300;
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        let name = TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned()));
        message.attributes.push(TcAttribute::Options(vec![name]));
        message
    }

    #[test]
    fn only_handle_kind_and_name_together_are_ours() {
        let handle = Handle32 { major: OURS, minor: OUR_CLSACT };
        let expected = Filter { priority: 1, handle: TcHandle::new(OURS, OUR_CLSACT), our_clsact: true };
        assert_eq!(ours(&filter("bpf", handle, "veth_ingress"), "veth_ingress"), Some(expected));
        assert_eq!(ours(&filter("bpf", handle, "veth_egress"), "veth_ingress"), None);
        assert_eq!(ours(&filter("matchall", handle, "veth_ingress"), "veth_ingress"), None);
        let theirs = Handle32 { major: 0, minor: 1 };
        assert_eq!(ours(&filter("bpf", theirs, "veth_ingress"), "veth_ingress"), None);
    }
}
