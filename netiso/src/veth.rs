//! From network namespaces to the interfaces of the node that they hang on.

use crate::{
    Error, Gap, Netns,
    link::{self, Link},
};
use rtnetlink::Handle;
use std::{collections::BTreeSet, fs::File, sync::Arc};

/// Other namespaces of one slot that are looked into: each is open meanwhile. More of them are a gap themselves.
const OTHERS: usize = 256;

/// How a slot reaches the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    /// Its namespace is the node's own.
    Host,
    /// It has its own interfaces.
    Own {
        /// The node's ends of its namespace's veths, verified from both sides.
        veths: Vec<Link>,
        /// Each way that has no end on the node where a program could see it.
        gaps: Vec<Gap>,
        /// The id by which the node's namespace knows it, as far as it has one.
        id: Option<i32>,
        /// The interfaces of the node.
        node: Vec<Link>,
    },
}

/// A namespace, seen from inside.
#[derive(Debug, Default)]
struct Inside {
    links: Vec<Link>,
    /// Ids by which it knows other namespaces of the same slot.
    own: BTreeSet<i32>,
}

/// Finds the ways of a slot that lives in `netns`, and has processes in `others`. `netlink` is a connection into the
/// node's namespace `host`.
pub(crate) async fn discover(
    netlink: &Handle,
    host: &Netns,
    netns: &Netns,
    others: &[Netns],
    armed: &BTreeSet<u32>,
) -> Result<Ways, Error> {
    if netns.is(host) {
        return Ok(Ways::Host);
    }
    let mut gaps = Vec::new();
    if others.len() > OTHERS {
        gaps.push(elsewhere("there are more of these than can be looked into", "too many namespaces"));
    }
    // Processes that have ended meanwhile are nowhere. In the node's own one is, for a moment, whoever the runtime brings in.
    let others = others.iter().take(OTHERS).filter(|other| !other.is(host));
    let others: Vec<(&Netns, File)> = others.filter_map(|other| Some((other, other.open().ok()?))).collect();
    let main = match netns.open() {
        Ok(main) => Some(main),
        // Nobody is there any more, and everybody is elsewhere.
        Err(Error::NetnsGone(_)) if !others.is_empty() => None,
        Err(error) => return Err(error),
    };
    let own = main.iter().chain(others.iter().map(|(_, file)| file)).map(File::try_clone);
    let own: Arc<Vec<File>> = Arc::new(own.filter_map(Result::ok).collect());

    let inside = match &main {
        Some(main) => look(netns, main, &own).await?,
        None => Inside::default(),
    };
    let mut insides = Vec::new();
    for (other, file) in others {
        let inside = look(other, &file, &own).await?;
        insides.push((file, inside));
    }
    // In this order: the kernel gives a namespace its id when an interface that names it is listed.
    let node = link::links(netlink).await?;
    let id = match &main {
        Some(main) => link::namespace_id(netlink, main).await?,
        None => None,
    };
    let (veths, of_main) = pair(&inside, &node, id);
    gaps.extend(of_main);
    for (file, inside) in insides {
        let id = link::namespace_id(netlink, &file).await?;
        let (veths, of_other) = pair(&inside, &node, id);
        gaps.extend(of_other.into_iter().map(|gap| Gap { leads_out: gap.leads_out, ..elsewhere(&gap.text, &gap.way) }));
        // One that was the slot's before still has its programs.
        let unknown = veths.into_iter().filter(|veth| !armed.contains(&veth.index));
        gaps.extend(unknown.map(|veth| {
            elsewhere(&format!("a veth's other end is the node's {}", veth.name), &format!("veth {}", veth.index))
        }));
    }
    Ok(Ways::Own { veths, gaps, id, node })
}

fn elsewhere(text: &str, way: &str) -> Gap {
    Gap {
        text: format!("in another network namespace of its processes: {text}"),
        way: format!("elsewhere: {way}"),
        leads_out: true,
    }
}

/// Looks into a namespace of a slot that has `own` ones.
async fn look(netns: &Netns, file: &File, own: &Arc<Vec<File>>) -> Result<Inside, Error> {
    let candidates = Arc::clone(own);
    netns
        .run(file.try_clone().map_err(Error::Socket)?, || async move {
            let netlink = link::connect()?;
            let links = link::links(&netlink).await?;
            let mut named: BTreeSet<i32> =
                links.iter().filter_map(|link| link.peer_namespace).filter(|id| *id >= 0).collect();
            let mut own = BTreeSet::new();
            for candidate in candidates.iter() {
                // One alone has no others.
                if named.is_empty() || candidates.len() == 1 {
                    break;
                }
                let id = link::namespace_id(&netlink, candidate).await?;
                own.extend(id.filter(|id| named.remove(id)));
            }
            Ok(Inside { links, own })
        })
        .await
}

/// Pairs the interfaces inside with those of the node. Interface numbers are only unique within a namespace, so that
/// a pair counts only if each end names the other, and the node's end names this very namespace.
fn pair(inside: &Inside, node: &[Link], id: Option<i32>) -> (Vec<Link>, Vec<Gap>) {
    let mut veths = Vec::new();
    let mut gaps = Vec::new();
    for link in inside.links.iter().filter(|link| link.index != Link::LOOPBACK) {
        let name = &link.name;
        let stays = link.peer_namespace.is_none_or(|peer| inside.own.contains(&peer));
        let gap = |text: String, leads_out: bool| Gap { text, way: way(link), leads_out };
        match link.kind.as_str() {
            // Its other end is in the pod as well.
            "veth" | "netkit" if stays => {}
            "veth" => {
                let other_end = node.iter().find(|other| {
                    Some(other.index) == link.peer
                        && other.kind == "veth"
                        && other.peer == Some(link.index)
                        && other.peer_namespace.is_some()
                        && other.peer_namespace == id
                });
                if let Some(other_end) = other_end {
                    veths.push(other_end.clone());
                } else {
                    let text = format!("the other end of {name} is not in the node's network namespace");
                    gaps.push(gap(text, false));
                }
            }
            // A program at its own hook (Cilium's) decides before ours would see the packet.
            "netkit" => gaps.push(gap(format!("{name} is a netkit device, whose own programs come before tc"), true)),
            // What it is made of lies in the pod: its frames pass one of the other interfaces, or go nowhere.
            kind if THROUGH_ANOTHER.contains(&kind) && stays => {}
            "" => gaps.push(gap(format!("{name} is hardware given to the pod: it has no host side"), true)),
            // What carries it is whoever holds its descriptor: a process of the pod, whose own packets are dropped, or
            // somebody else. Netlink does not say.
            "tun" => gaps.push(gap(format!("{name} is a tun device: it has no host side to be seen"), false)),
            // Also wireguard: what carries it may be in any namespace, and netlink does not say.
            kind => gaps.push(gap(format!("{name} is a {kind} device: it has no host side to be seen"), true)),
        }
    }
    (veths, gaps)
}

/// What leads there. The number of another interface says which one where that one stays as it is; the other end of a
/// pair is made anew with it.
fn way(link: &Link) -> String {
    let kind = if link.kind.is_empty() { "hardware" } else { &link.kind };
    match (link.peer, link.peer_namespace) {
        (Some(peer), Some(namespace)) if !matches!(kind, "veth" | "netkit") => {
            format!("{kind} on {peer} of {namespace}")
        }
        _ => kind.to_owned(),
    }
}

/// Kinds whose frames leave the namespace through another of its interfaces, or not at all, as long as they name no
/// interface of another namespace.
const THROUGH_ANOTHER: [&str; 24] = [
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
    "macvlan",
    "macvtap",
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

    fn inside(links: impl Into<Vec<Link>>) -> Inside {
        Inside { links: links.into(), own: BTreeSet::new() }
    }

    #[test]
    fn a_veth_needs_both_ends_to_name_each_other() {
        let inside = inside([link(1, "", None, None), link(2, "veth", Some(9), Some(0))]);
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
            assert_eq!(gaps[0].text, "the other end of i2 is not in the node's network namespace");
            assert_eq!((gaps.len(), gaps[0].leads_out), (1, false));
        }
    }

    #[test]
    fn a_namespace_without_an_id_is_never_taken_for_one_without_a_peer() {
        let inside = inside([link(2, "veth", Some(9), Some(0))]);
        assert!(pair(&inside, &[link(9, "veth", Some(2), None)], None).0.is_empty());
    }

    #[test]
    fn ways_without_a_host_side_are_gaps() {
        let inside = inside([
            link(2, "macvlan", Some(9), Some(0)),
            link(3, "", None, None),
            link(4, "netkit", Some(8), Some(0)),
            link(5, "wireguard", None, None),
            link(6, "tun", None, None),
        ]);
        let (veths, gaps) = pair(&inside, &[], Some(1));
        assert!(veths.is_empty());
        assert_eq!(gaps[0].text, "i2 is a macvlan device: it has no host side to be seen");
        let found: Vec<_> = gaps.iter().map(|gap| (gap.way.as_str(), gap.leads_out)).collect();
        let expected =
            [("macvlan on 9 of 0", true), ("hardware", true), ("netkit", true), ("wireguard", true), ("tun", false)];
        assert_eq!(found, expected);
    }

    #[test]
    fn another_name_is_no_other_way_and_another_device_below_is_one() {
        let named = |name: &str, peer| Link { name: name.to_owned(), ..link(2, "macvlan", Some(peer), Some(0)) };
        assert_eq!(way(&named("net1", 9)), way(&named("changed", 9)));
        assert_ne!(way(&named("net1", 9)), way(&named("net1", 8)));
    }

    #[test]
    fn what_leads_nowhere_is_no_gap() {
        let inside = inside([
            link(1, "", None, None),
            link(2, "dummy", None, None),
            link(3, "veth", Some(4), None),
            link(4, "veth", Some(3), None),
            link(5, "vxlan", None, None),
            link(6, "macvlan", Some(7), None),
        ]);
        assert_eq!(pair(&inside, &[], None), (vec![], vec![]));
    }

    #[test]
    fn what_leads_to_another_namespace_of_the_same_pod_is_no_gap() {
        let links = [link(2, "macvlan", Some(9), Some(3)), link(4, "veth", Some(8), Some(3))];
        let inside = Inside { links: links.into(), own: BTreeSet::from([3]) };
        assert_eq!(pair(&inside, &[], None), (vec![], vec![]));
    }
}
