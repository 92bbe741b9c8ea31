//! What lies on a slot's way to the network, known before any violation.

use crate::Hook;
use std::fmt;

/// The host side of one of a slot's veths, with programs in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Armed {
    /// Name of the interface on the node.
    pub interface: String,
    /// Its number.
    pub index: u32,
    /// How the programs are attached.
    pub hook: Hook,
    /// Another slot in the same network namespace is the one by which this interface's frames are judged. Frames
    /// that carry a socket of this slot are judged by this slot as well.
    pub judged_by: Option<u32>,
}

/// A way past the host sides of a slot's veths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What it is, as a sentence. It has names that the pod may have chosen.
    pub text: String,
    /// Which way it is: the same whatever name its interface gets.
    pub way: String,
    /// Whether the pod's own frames leave it there. If not, somebody outside of the pod has a hand in it: who holds a
    /// tunnel's descriptor or the other end of a veth, or who keeps our programs from an interface.
    pub leads_out: bool,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The datapaths that cover one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Programs at the sockets of a common parent cgroup.
    pub cgroup: bool,
    /// The slot is in the node's own network namespace: its sockets can be covered, its frames can't.
    pub host_network: bool,
    /// Programs at the host side of its veths.
    pub veths: Vec<Armed>,
    /// Ways past the veths.
    pub gaps: Vec<Gap>,
}

impl Coverage {
    /// Whether isolation stops at least everything that the slot's internet sockets send and receive. If not,
    /// isolating does nothing and the pod has to be ended instead.
    pub fn is_covered(&self) -> bool {
        self.cgroup || self.is_complete()
    }

    /// Whether isolation stops every frame, packet sockets' included.
    pub fn is_complete(&self) -> bool {
        !self.host_network && self.gaps.is_empty()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.cgroup {
            parts.push("cgroup_skb".to_owned());
        }
        for veth in &self.veths {
            parts.push(match veth.judged_by {
                None => format!("{} on {}", veth.hook, veth.interface),
                Some(slot) => format!("{} on {} (shared with slot {slot})", veth.hook, veth.interface),
            });
        }
        if self.host_network {
            parts.push("packet sockets not covered: the node's own network namespace".to_owned());
        } else if self.veths.is_empty() && self.gaps.is_empty() {
            parts.push("no interface besides the loopback".to_owned());
        }
        parts.extend(self.gaps.iter().map(|gap| format!("packet sockets not covered: {gap}")));
        if !self.is_covered() {
            parts.insert(0, "none".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed() -> Armed {
        Armed { interface: "veth0".to_owned(), index: 5, hook: Hook::Tcx, judged_by: None }
    }

    #[test]
    fn a_veth_alone_covers_everything() {
        let coverage = Coverage { veths: vec![armed()], ..Coverage::default() };
        assert!(coverage.is_covered() && coverage.is_complete());
        assert_eq!(coverage.to_string(), "tcx on veth0");
    }

    #[test]
    fn the_nodes_namespace_is_covered_by_cgroup_alone() {
        let mut coverage = Coverage { host_network: true, ..Coverage::default() };
        assert!(!coverage.is_covered());
        coverage.cgroup = true;
        assert!(coverage.is_covered() && !coverage.is_complete());
        assert_eq!(coverage.to_string(), "cgroup_skb, packet sockets not covered: the node's own network namespace");
    }

    #[test]
    fn a_way_past_the_veth_is_not_covered_by_it() {
        let text = "net1 is a macvlan device: it has no host side to be seen".to_owned();
        let gap = Gap { text, way: "macvlan".to_owned(), leads_out: true };
        let mut coverage = Coverage { veths: vec![armed()], gaps: vec![gap], ..Coverage::default() };
        assert!(!coverage.is_covered());
        assert!(coverage.to_string().starts_with("none, tcx on veth0, packet sockets not covered: net1"));
        coverage.cgroup = true;
        assert!(coverage.is_covered());
    }
}
