//! Who has which slot, and who had it; and what governs them, and did: a record is of what governed when it was made.

use crate::report::Owner;
use ringfence_policy::ResolvedRuleset;
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

/// For how long records of whoever gave a slot back may still be under way. The ring buffers are empty long before.
const REST: Duration = Duration::from_mins(1);

/// Who has a slot, or had it.
#[derive(Debug)]
struct Tenant {
    owner: Arc<Owner>,
    /// What was given is in force, or what was given before it.
    governed: bool,
    /// What governed it before: each until a moment of the kernel's monotonic clock, in ns, the oldest first.
    before: Vec<(u64, Arc<ResolvedRuleset>)>,
}

/// What is not in force yet: what was before it still governs.
const TO_COME: u64 = u64::MAX;

impl Tenant {
    fn at(&self, at: u64) -> Arc<Owner> {
        match self.before.iter().find(|(until, _)| at < *until) {
            None => Arc::clone(&self.owner),
            Some((_, resolved)) => Arc::new(self.owner.governed_by(Arc::clone(resolved))),
        }
    }
}

/// Owners of slots.
#[derive(Debug, Default)]
pub(super) struct Owners {
    now: HashMap<u32, Tenant>,
    /// The longest given back first.
    former: VecDeque<(Instant, u32, Tenant)>,
}

impl Owners {
    /// The slot is this one's now, or this is what is known of its owner now. What governs it by that comes into force with
    /// [`Self::in_force`].
    pub fn give(&mut self, slot: u32, owner: Arc<Owner>) {
        match self.now.entry(slot) {
            Entry::Vacant(vacant) => drop(vacant.insert(Tenant { owner, governed: false, before: Vec::new() })),
            Entry::Occupied(occupied) => {
                let tenant = occupied.into_mut();
                let replaced = std::mem::replace(&mut tenant.owner, owner);
                if tenant.governed && replaced.resolved != tenant.owner.resolved {
                    tenant.before.push((TO_COME, Arc::clone(&replaced.resolved)));
                }
            }
        }
    }

    /// From this moment of the kernel's monotonic clock on, in ns, owners are governed by what was given last. To be called
    /// before the kernel is told.
    pub fn in_force(&mut self, now: u64) {
        let rest = u64::try_from(REST.as_nanos()).unwrap_or(u64::MAX);
        for tenant in self.now.values_mut() {
            tenant.governed = true;
            for (until, _) in tenant.before.iter_mut().filter(|(until, _)| *until == TO_COME) {
                *until = now;
            }
            tenant.before.retain(|(until, _)| now.saturating_sub(*until) <= rest);
        }
    }

    /// It is nobody's now.
    pub fn give_back(&mut self, slot: u32) {
        self.give_back_at(slot, Instant::now());
    }

    fn give_back_at(&mut self, slot: u32, now: Instant) {
        while self.former.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) > REST) {
            self.former.pop_front();
        }
        if let Some(tenant) = self.now.remove(&slot) {
            self.former.push_back((now, slot, tenant));
        }
    }

    /// Whose the slot is.
    pub fn tenant(&self, slot: u32) -> Option<&Owner> {
        self.now.get(&slot).map(|tenant| &*tenant.owner)
    }

    /// Whose the slot is, or was last, governed as it was at a moment of the kernel's monotonic clock, in ns.
    pub fn of(&self, slot: u32, at: u64) -> Option<Arc<Owner>> {
        let former = || self.former.iter().rfind(|(_, of, _)| *of == slot).map(|(.., tenant)| tenant);
        self.now.get(&slot).or_else(former).map(|tenant| tenant.at(at))
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
        Arc::new(Owner::new(container, Arc::default()))
    }

    /// The ruleset is all that governs it.
    fn governed_by(ruleset: &str) -> Arc<Owner> {
        let resolved = ResolvedRuleset { rulesets: vec![ruleset.to_owned()], ..ResolvedRuleset::default() };
        Arc::new(owner("web").governed_by(Arc::new(resolved)))
    }

    #[test]
    fn a_record_is_of_what_governed_when_it_was_made() {
        let mut owners = Owners::default();
        let at = |owners: &Owners, at| owners.of(1, at).map(|owner| owner.resolved.rulesets.concat()).unwrap();
        owners.give(1, governed_by("first thought"));
        owners.give(1, governed_by("mild"));
        assert_eq!(at(&owners, 5), "mild", "nothing was in force before: a record of then is an earlier enforcer's");
        owners.in_force(10);
        owners.give(1, governed_by("strict"));
        assert_eq!(at(&owners, 20), "mild", "the kernel does not know of it yet");
        owners.in_force(30);
        assert_eq!([at(&owners, 29), at(&owners, 30)], ["mild", "strict"]);
        owners.give(1, governed_by("strictest"));
        owners.give(1, governed_by("strict"));
        owners.in_force(40);
        assert_eq!([at(&owners, 29), at(&owners, 39), at(&owners, 40)], ["mild", "strict", "strict"]);
        owners.give(1, governed_by("given up"));
        owners.in_force(45);
        owners.give(1, governed_by("strict"));
        owners.in_force(46);
        assert_eq!(at(&owners, 46), "strict", "what was given up does not come back");
        owners.give_back(1);
        assert_eq!([at(&owners, 29), at(&owners, 41)], ["mild", "strict"]);
        owners.in_force(50);
    }

    fn name(owners: &Owners, slot: u32) -> Option<String> {
        owners.of(slot, 0).map(|owner| owner.container.name.clone())
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
