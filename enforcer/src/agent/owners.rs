//! Who has which slot, and who had it.

use crate::report::Owner;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// For how long records of whoever gave a slot back may still be under way. The ring buffers are empty long before.
const REST: Duration = Duration::from_mins(1);

/// Owners of slots.
#[derive(Debug, Default)]
pub(super) struct Owners {
    now: HashMap<u32, Arc<Owner>>,
    /// The longest given back first.
    former: VecDeque<(Instant, u32, Arc<Owner>)>,
}

impl Owners {
    /// The slot is this one's now, or this is what is known of its owner now.
    pub fn give(&mut self, slot: u32, owner: Arc<Owner>) {
        self.now.insert(slot, owner);
    }

    /// It is nobody's now.
    pub fn give_back(&mut self, slot: u32) {
        self.give_back_at(slot, Instant::now());
    }

    fn give_back_at(&mut self, slot: u32, now: Instant) {
        while self.former.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) > REST) {
            self.former.pop_front();
        }
        if let Some(owner) = self.now.remove(&slot) {
            self.former.push_back((now, slot, owner));
        }
    }

    /// Whose the slot is, or was last.
    pub fn of(&self, slot: u32) -> Option<Arc<Owner>> {
        let former = || self.former.iter().rfind(|(_, of, _)| *of == slot).map(|(.., owner)| owner);
        self.now.get(&slot).or_else(former).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_containers::{Container, ContainerKey, Kind};
    use std::collections::BTreeMap;

    fn owner(name: &str) -> Arc<Owner> {
        let container = Container {
            key: ContainerKey::new("k8s.io", name),
            name: name.to_owned(),
            kind: Kind::Plain,
            labels: BTreeMap::new(),
            image: String::new(),
            image_digest: None,
            snapshotter: String::new(),
            cgroups_path: String::new(),
            host_network: false,
            netns: None,
            pid: None,
            pod: None,
        };
        Arc::new(Owner { container, resolved: Arc::default() })
    }

    fn name(owners: &Owners, slot: u32) -> Option<String> {
        owners.of(slot).map(|owner| owner.container.name.clone())
    }

    #[test]
    fn a_former_owner_is_known_for_a_while() {
        let start = Instant::now();
        let mut owners = Owners::default();
        owners.give(1, owner("a"));
        owners.give(2, owner("b"));
        owners.give_back_at(1, start);
        assert_eq!(name(&owners, 1).as_deref(), Some("a"));
        owners.give(1, owner("c"));
        assert_eq!(name(&owners, 1).as_deref(), Some("c"));
        owners.give_back_at(1, start);
        assert_eq!(name(&owners, 1).as_deref(), Some("c"), "the last one");
        owners.give_back_at(2, start + REST + Duration::from_secs(1));
        assert_eq!((name(&owners, 1), name(&owners, 2).as_deref()), (None, Some("b")));
    }
}
