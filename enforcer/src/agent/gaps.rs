//! Which ways past its isolation a container had before it was isolated, and which it has got since.
//!
//! What was seen while a container was not isolated, or the first time that it was seen at all, is how its network was
//! made. It is kept in a file: a container must not get a way while no enforcer looks.

use crate::state::{GAPS, Writer};
use ringfence_containers::ContainerKey;
use ringfence_netiso::Gap;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// What is kept of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Noted {
    /// Ways that it had.
    ways: BTreeSet<String>,
    /// It is isolated because somebody asked for that, and no violation has since.
    #[serde(default)]
    by_hand: bool,
}

/// By container. Outlives the enforcer, not the node.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    of: BTreeMap<String, Noted>,
    changed: bool,
}

impl Gaps {
    /// What an earlier enforcer had seen.
    pub fn restore(dir: &Path) -> Self {
        let of = fs::read_to_string(dir.join(GAPS)).ok().and_then(|text| serde_json::from_str(&text).ok());
        Self { of: of.unwrap_or_default(), changed: false }
    }

    /// For the next one, if there is anything new.
    pub fn save(&mut self, writer: &Writer) -> serde_json::Result<()> {
        if std::mem::take(&mut self.changed) {
            writer.replace(GAPS, serde_json::to_string(&self.of)?);
        }
        Ok(())
    }

    /// These are the container's ways now. Returns those by which its frames leave although it is isolated, and which it
    /// did not have before.
    ///
    /// `isolated` must have been asked for after the ways: what was seen before the container was cut off is how it was.
    pub fn see<'a>(&mut self, key: &ContainerKey, isolated: bool, now: &'a [Gap]) -> Vec<&'a Gap> {
        let name = name(key);
        let ways = || now.iter().map(|gap| gap.way.clone()).collect();
        match self.of.get_mut(&name) {
            Some(noted) if isolated => {
                now.iter().filter(|gap| gap.leads_out && !noted.ways.contains(&gap.way)).collect()
            }
            Some(noted) => {
                let seen = Noted { ways: ways(), by_hand: false };
                self.changed |= *noted != seen;
                *noted = seen;
                Vec::new()
            }
            None => {
                self.of.insert(name, Noted { ways: ways(), by_hand: false });
                self.changed = true;
                Vec::new()
            }
        }
    }

    /// Somebody has asked for its isolation, or a violation has.
    pub fn isolated(&mut self, key: &ContainerKey, by_hand: bool) {
        if let Some(noted) = self.of.get_mut(&name(key)) {
            self.changed |= noted.by_hand != by_hand;
            noted.by_hand = by_hand;
        }
    }

    /// Whether nothing but somebody's wish isolates it.
    pub fn is_by_hand(&self, key: &ContainerKey) -> bool {
        self.of.get(&name(key)).is_some_and(|noted| noted.by_hand)
    }

    /// The container is no more.
    pub fn forget(&mut self, key: &ContainerKey) {
        self.changed |= self.of.remove(&name(key)).is_some();
    }

    /// All that exist are known: the others are no more.
    pub fn keep<'a>(&mut self, keys: impl Iterator<Item = &'a ContainerKey>) {
        let names: BTreeSet<String> = keys.map(name).collect();
        let before = self.of.len();
        self.of.retain(|name, _| names.contains(name));
        self.changed |= self.of.len() != before;
    }
}

fn name(key: &ContainerKey) -> String {
    format!("{}/{}", key.namespace, key.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(way: &str, leads_out: bool) -> Gap {
        Gap { text: format!("net1 is a {way}"), way: way.to_owned(), leads_out }
    }

    fn key() -> ContainerKey {
        ContainerKey::new("k8s.io", "web")
    }

    fn ways(found: &[&Gap]) -> Vec<String> {
        found.iter().map(|gap| gap.way.clone()).collect()
    }

    #[test]
    fn what_was_there_before_the_isolation_stays_and_what_comes_after_it_is_told() {
        let mut gaps = Gaps::default();
        let (sriov, macvlan) = (gap("hardware", true), gap("macvlan on 2 of 0", true));
        assert!(gaps.see(&key(), false, std::slice::from_ref(&sriov)).is_empty());
        assert!(gaps.see(&key(), true, std::slice::from_ref(&sriov)).is_empty());
        let both = [sriov, macvlan];
        assert_eq!(ways(&gaps.see(&key(), true, &both)), ["macvlan on 2 of 0"]);
        assert_eq!(ways(&gaps.see(&key(), true, &both)), ["macvlan on 2 of 0"], "it stays one as long as it is there");
        assert!(gaps.see(&key(), false, &both).is_empty(), "released");
        assert!(gaps.see(&key(), true, &both).is_empty(), "isolated anew: it had it");
    }

    #[test]
    fn what_is_there_when_it_is_seen_first_is_how_it_was_made() {
        let mut gaps = Gaps::default();
        assert!(gaps.see(&key(), true, &[gap("netkit", true)]).is_empty());
        assert!(gaps.see(&key(), true, &[gap("netkit", true)]).is_empty());
    }

    #[test]
    fn what_needs_others_help_is_told_by_nobody() {
        let mut gaps = Gaps::default();
        gaps.see(&key(), false, &[]);
        assert!(gaps.see(&key(), true, &[gap("tun", false)]).is_empty());
    }

    #[test]
    fn the_next_enforcer_knows_what_there_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut gaps = Gaps::default();
        gaps.see(&key(), false, &[]);
        gaps.see(&ContainerKey::new("k8s.io", "gone"), false, &[]);
        gaps.isolated(&key(), true);
        let save = |gaps: &mut Gaps| gaps.save(&Writer::start(dir.path().to_owned()).unwrap()).unwrap();
        save(&mut gaps);
        let mut next = Gaps::restore(dir.path());
        assert!(next.is_by_hand(&key()));
        assert_eq!(ways(&next.see(&key(), true, &[gap("wireguard", true)])), ["wireguard"]);
        next.isolated(&key(), false);
        next.keep([key()].iter());
        save(&mut next);
        let last = Gaps::restore(dir.path());
        assert!(!last.is_by_hand(&key()));
        assert_eq!(last.of.len(), 1);
    }

    #[test]
    fn an_isolation_by_hand_ends_with_the_release() {
        let mut gaps = Gaps::default();
        gaps.see(&key(), false, &[]);
        gaps.isolated(&key(), true);
        gaps.see(&key(), true, &[]);
        assert!(gaps.is_by_hand(&key()));
        gaps.see(&key(), false, &[]);
        assert!(!gaps.is_by_hand(&key()));
    }
}
