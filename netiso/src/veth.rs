//! From a network namespace to the interfaces of the node that it hangs on.

use crate::{
    Error, Netns,
    link::{self, Link},
};
use rtnetlink::Handle;

/// How a namespace reaches the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    /// It is the node's own.
    Host,
    /// It has its own interfaces.
    Own {
        /// The node's ends of its veths, verified from both sides.
        veths: Vec<Link>,
        /// Each way that has no end on the node where a program could see it, as a sentence.
        gaps: Vec<String>,
        /// The id by which the node's namespace knows it, as far as it has one.
        id: Option<i32>,
    },
}

/// Finds the ways of `netns`. `netlink` is a connection into the node's namespace `host`.
pub(crate) async fn discover(netlink: &Handle, host: &Netns, netns: &Netns) -> Result<Ways, Error> {
    if netns.is(host) {
        return Ok(Ways::Host);
    }
    let inside = netns.run(|| async { link::links(&link::connect()?).await }).await?;
    // In this order: the kernel gives a namespace its id when an interface that names it is listed.
    let outside = link::links(netlink).await?;
    let id = link::namespace_id(netlink, &netns.open()?).await?;
    let (veths, gaps) = pair(&inside, &outside, id);
    Ok(Ways::Own { veths, gaps, id })
}

/// Pairs the interfaces inside with those of the node. Interface numbers are only unique within a namespace, so that
/// a pair counts only if each end names the other, and the node's end names this very namespace.
fn pair(inside: &[Link], outside: &[Link], id: Option<i32>) -> (Vec<Link>, Vec<String>) {
    let mut veths = Vec::new();
    let mut gaps = Vec::new();
    for link in inside.iter().filter(|link| link.index != Link::LOOPBACK) {
        let name = &link.name;
        match link.kind.as_str() {
            // Its other end is in the pod as well.
            "veth" | "netkit" if link.peer_namespace.is_none() => {}
            "veth" => {
                let other_end = outside.iter().find(|other| {
                    Some(other.index) == link.peer
                        && other.kind == "veth"
                        && other.peer == Some(link.index)
                        && other.peer_namespace.is_some()
                        && other.peer_namespace == id
                });
                match other_end {
                    Some(other_end) => veths.push(other_end.clone()),
                    None => gaps.push(format!("the other end of {name} is not in the node's network namespace")),
                }
            }
            // A program at its own hook (Cilium's) decides before ours would see the packet.
            "netkit" => gaps.push(format!("{name} is a netkit device, whose own programs come before tc")),
            // What it is made of lies in the pod: its frames pass one of the other interfaces, or go nowhere.
            kind if THROUGH_ANOTHER.contains(&kind) && link.peer_namespace.is_none() => {}
            "" => gaps.push(format!("{name} is hardware given to the pod: it has no host side")),
            // Also tun and wireguard: what carries them may be in any namespace, and netlink does not say.
            kind => gaps.push(format!("{name} is a {kind} device: it has no host side to be seen")),
        }
    }
    (veths, gaps)
}

/// Kinds whose frames leave the namespace through another of its interfaces, or not at all, as long as they name no
/// interface of another namespace.
const THROUGH_ANOTHER: [&str; 22] = [
    "bond",
    "bridge",
    "dummy",
    "erspan",
    "geneve",
    "gre",
    "gretap",
    "ifb",
    "ip6erspan",
    "ip6gre",
    "ip6gretap",
    "ip6tnl",
    "ipip",
    "macsec",
    "nlmon",
    "sit",
    "team",
    "vlan",
    "vrf",
    "vti",
    "vti6",
    "vxlan",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: &str, peer: Option<u32>, peer_namespace: Option<i32>) -> Link {
        Link { index, name: format!("i{index}"), kind: kind.to_owned(), peer, peer_namespace }
    }

    #[test]
    fn a_veth_needs_both_ends_to_name_each_other() {
        let inside = [link(1, "", None, None), link(2, "veth", Some(9), Some(0))];
        let right = link(9, "veth", Some(2), Some(5));
        assert_eq!(pair(&inside, std::slice::from_ref(&right), Some(5)), (vec![right], vec![]));
        for wrong in [
            link(9, "veth", Some(3), Some(5)),
            link(9, "veth", Some(2), Some(4)),
            link(9, "veth", Some(2), None),
            link(9, "bridge", Some(2), Some(5)),
            link(8, "veth", Some(2), Some(5)),
        ] {
            let (veths, gaps) = pair(&inside, &[wrong], Some(5));
            assert!(veths.is_empty());
            assert_eq!(gaps, ["the other end of i2 is not in the node's network namespace"]);
        }
    }

    #[test]
    fn a_namespace_without_an_id_is_never_taken_for_one_without_a_peer() {
        let inside = [link(2, "veth", Some(9), Some(0))];
        assert!(pair(&inside, &[link(9, "veth", Some(2), None)], None).0.is_empty());
    }

    #[test]
    fn ways_without_a_host_side_are_gaps() {
        let inside =
            [link(2, "macvlan", Some(9), Some(0)), link(3, "", None, None), link(4, "netkit", Some(8), Some(0))];
        let (veths, gaps) = pair(&inside, &[], Some(1));
        assert!(veths.is_empty());
        assert_eq!(gaps.len(), 3);
        assert_eq!(gaps[0], "i2 is a macvlan device: it has no host side to be seen");
    }

    #[test]
    fn what_leads_nowhere_is_no_gap() {
        let inside = [
            link(1, "", None, None),
            link(2, "dummy", None, None),
            link(3, "veth", Some(4), None),
            link(4, "veth", Some(3), None),
            link(5, "vxlan", None, None),
        ];
        assert_eq!(pair(&inside, &[], None), (vec![], vec![]));
    }
}
