//! Containers come and go, and rulesets change: who is governed by what.

use super::{Agent, Known, network::Wish};
use crate::{
    report::{Owner, monotonic},
    rulesets, state,
};
use anyhow::Context as _;
use ringfence_abi::{BANKS, RULESETS, Slot, V1_CGROUP, slot_flag};
use ringfence_containers::{
    ANY_POD, Container, ContainerEvent, ContainerKey, Kind, POD_NAMESPACE, Pod, cgroup_names,
    cgroups::{Cgroup, Version},
    pod_uid_in,
};
use ringfence_netiso::Netns;
use ringfence_policy::{Limit, Mitigation, ResolvedRuleset, Standing};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

impl Agent {
    /// Something happened to a container. It fails only while nothing is in force: what can't come into force at the start
    /// governs nobody, and is better started again.
    pub(super) fn container(&mut self, event: ContainerEvent) -> anyhow::Result<()> {
        let result = match event {
            ContainerEvent::Known(container) => self.known(*container),
            ContainerEvent::Created { key, pid } | ContainerEvent::Started { key, pid } => self.begun(&key, pid),
            ContainerEvent::Exited { key, .. } => {
                if let Some(known) = self.known.get_mut(&key) {
                    known.pid = None;
                }
                Ok(())
            }
            ContainerEvent::Removed(key) => self.removed(&key),
            ContainerEvent::Synced => {
                let result = self.synced();
                return self.or_fail(result);
            }
            ContainerEvent::Disconnected { reason } => {
                tracing::error!("the container runtime can't be reached, what is known stays in force: {reason}");
                Ok(())
            }
        };
        if let Err(error) = result {
            tracing::error!("{error:#}");
        }
        Ok(())
    }

    /// A failure of what puts the rulesets in force.
    fn or_fail(&self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        match result {
            Err(error) if !self.in_force => Err(error.context("the rulesets can't be put in force")),
            Err(error) => {
                tracing::error!("{error:#}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// A container is announced, or described anew. Its cgroup, still to come, is bound by the kernel itself.
    fn known(&mut self, container: Container) -> anyhow::Result<()> {
        let key = container.key.clone();
        if let Some(pod) = &container.pod {
            self.counted.hear(pod);
        }
        let resolved = self.resolve(&container);
        let names = cgroup_names(&container);
        let owner = Arc::new(Owner::new(container, resolved));
        let (slot, why_isolated, terminating, ended, before) = match self.known.get(&key) {
            Some(known) => (known.slot, known.why_isolated.clone(), known.terminating, known.ended, known.pid),
            None => (self.inherited_slot(&names)?.unwrap_or(0), None, false, None, None),
        };
        // A pod's description has its process; a container's start is told by itself.
        let pid = owner.container.pid.or(before.filter(|_| owner.container.kind != Kind::Pod));
        let known = Known { owner, slot, names, why_isolated, terminating, ended, pid };
        self.known.insert(key.clone(), known);
        self.govern_anew(&key)?;
        let known = &self.known[&key];
        let (slot, netns, pid) = (known.slot, known.owner.container.netns.clone(), known.owner.container.pid);
        let is_pod = known.owner.container.kind == Kind::Pod;
        if is_pod && self.in_force {
            // Its cgroup may have been made before it was known, and gone to whom unknown pods go to.
            self.bind(&key, slot)?;
        }
        if slot == 0 {
            return Ok(());
        }
        if let Some(pid) = pid {
            return self.running(&key, pid).map(drop);
        }
        if !self.in_force && !is_pod {
            // At the start no process is told of a cgroup that was named by hand, and it exists already.
            self.bind(&key, slot)?;
        }
        if let Some(path) = netns {
            self.arm(slot, Netns::at(&path));
        } else if self.known[&key].owner.container.host_network {
            self.arm(slot, Netns::current());
        }
        Ok(())
    }

    /// Arms the interfaces of what runs already and is governed only now.
    pub(super) fn arm_new(&mut self) {
        let governed = self.known.values().filter(|known| known.slot != 0);
        let armed = |slot| self.network.coverage(slot).is_some() || self.network.is_arming(slot);
        let new = governed.filter(|known| !armed(known.slot));
        let new: Vec<_> = new.filter_map(|known| Some((known.slot, known.pid?))).collect();
        for (slot, pid) in new {
            self.arm(slot, Netns::of_pid(pid));
        }
    }

    /// The slot that an earlier enforcer gave to what has one of these names.
    fn inherited_slot(&mut self, names: &[String]) -> anyhow::Result<Option<u32>> {
        if self.inherited.is_empty() {
            return Ok(None);
        }
        for cgroup in self.cgroups(names)? {
            let key = key_of(cgroup.version, cgroup.id);
            // What is bound to the unknown pods' slot is theirs no longer.
            if let Some(slot) = self.parts.kernel.bound(key)?.filter(|slot| self.inherited.remove(slot)) {
                return Ok(Some(slot));
            }
        }
        Ok(self.parts.kernel.announced(names)?.filter(|slot| self.inherited.remove(slot)))
    }

    /// The cgroups that exist under these names.
    fn cgroups(&self, names: &[String]) -> anyhow::Result<Vec<Cgroup>> {
        let wanted: HashMap<String, usize> = names.iter().cloned().zip(0..).collect();
        let found = self.parts.hierarchies.find(&wanted)?;
        Ok(found.into_iter().map(|(_, cgroup)| cgroup).collect())
    }

    /// Governs a container by a ruleset that may be new to the generation. One that has had as many as it holds makes
    /// room for it: most of them were of containers that are gone.
    fn govern_anew(&mut self, key: &ContainerKey) -> anyhow::Result<()> {
        let resolved = &self.known[key].owner.resolved;
        let is_full = self.numbers.len() + 1 == RULESETS as usize;
        if is_full && !resolved.rules.is_empty() && !self.numbers.contains_key(resolved) {
            let in_use: HashSet<_> = self.known.values().map(|known| &known.owner.resolved).collect();
            if in_use.len() <= self.numbers.len() {
                return self.next_generation();
            }
        }
        self.govern(key)
    }

    /// Gives the container a slot if a ruleset asks for it, and the slot its ruleset.
    fn govern(&mut self, key: &ContainerKey) -> anyhow::Result<()> {
        let known = self.known.get_mut(key).expect("the caller has it");
        let resolved = Arc::clone(&known.owner.resolved);
        if known.slot == 0 {
            if resolved.rules.is_empty() {
                if known.owner.container.kind == Kind::Pod {
                    // So that it is not taken for an unknown one.
                    let names = known.names.clone();
                    self.parts.kernel.announce(&names, 0)?;
                }
                return Ok(());
            }
            known.slot = self.slots.take().ok_or(crate::kernel::Error::NoSlot(ringfence_abi::SLOTS - 1))?;
        }
        let (slot, names, host_network) = (known.slot, known.names.clone(), known.owner.container.host_network);
        self.owners.give(slot, Arc::clone(&known.owner));
        let number = self.number(resolved)?;
        let mut value = self.parts.kernel.slot(slot)?;
        if self.in_force {
            value.ruleset = [number; BANKS];
        } else {
            value.ruleset[self.generation as usize % BANKS] = number;
        }
        value.flags = 0;
        if host_network {
            value.flags |= slot_flag::HOST_NETWORK;
        }
        if self.parts.strict || self.parts.rulesets.policy().is_some_and(|policy| policy.strict) {
            value.flags |= slot_flag::STRICT;
        }
        if self.in_force {
            self.owners.in_force(monotonic());
        }
        self.parts.kernel.set_slot(slot, value)?;
        self.parts.kernel.announce(&names, slot)?;
        Ok(())
    }

    /// The number of a resolved ruleset in the generation, written there when it is new.
    fn number(&mut self, resolved: Arc<ResolvedRuleset>) -> anyhow::Result<u32> {
        if resolved.rules.is_empty() {
            return Ok(0);
        }
        if let Some(number) = self.numbers.get(&resolved) {
            return Ok(*number);
        }
        let number = u32::try_from(self.numbers.len())? + 1;
        anyhow::ensure!(number < RULESETS, "more than {} different resolved rulesets on this node", RULESETS - 1);
        let vectors = self.tables[&self.generation].ruleset_vectors(&resolved);
        self.parts.kernel.write_ruleset(self.generation, number, &vectors)?;
        self.numbers.insert(resolved, number);
        Ok(number)
    }

    /// The runtime tells of a first process. The kernel has bound its cgroup, unless that was made before the container
    /// was announced.
    fn begun(&mut self, key: &ContainerKey, pid: u32) -> anyhow::Result<()> {
        if self.running(key, pid)? && self.in_force {
            self.late += 1;
            tracing::warn!(container = %key.id, "it had begun before it was known: what it did until now was not seen");
        }
        Ok(())
    }

    /// The container has a first process: its cgroups and its network namespace exist. True: the kernel had not bound all
    /// of its cgroups.
    fn running(&mut self, key: &ContainerKey, pid: u32) -> anyhow::Result<bool> {
        let Some(known) = self.known.get_mut(key) else { return Ok(false) };
        known.pid = Some(pid);
        let slot = known.slot;
        if slot == 0 {
            return Ok(false);
        }
        let bound = self.bind(key, slot)?;
        self.arm(slot, Netns::of_pid(pid));
        Ok(bound)
    }

    /// Binds the container's cgroups where the kernel did not: those that were there before it was announced. Slot 0: it
    /// is governed by nobody. True: there were such ones, that nobody governed.
    fn bind(&mut self, key: &ContainerKey, slot: u32) -> anyhow::Result<bool> {
        let names = self.known[key].names.clone();
        let mut bound = false;
        for cgroup in self.cgroups(&names)? {
            bound |= self.bind_cgroup(&cgroup, slot)?;
        }
        Ok(bound)
    }

    /// True: nobody governed it.
    fn bind_cgroup(&mut self, cgroup: &Cgroup, slot: u32) -> anyhow::Result<bool> {
        let key = key_of(cgroup.version, cgroup.id);
        let bound = self.parts.kernel.bound(key)?;
        let unknown = self.unknown_slot();
        match bound {
            None if slot != 0 => {
                self.parts.kernel.bind(key, slot)?;
                self.note_members(cgroup);
                return Ok(true);
            }
            // An earlier enforcer may have had programs that noted nobody.
            Some(of) if of == slot && !self.in_force => self.note_members(cgroup),
            Some(of) if of == unknown && of != slot => {
                if slot == 0 {
                    self.parts.kernel.unbind_cgroup(key)?;
                } else {
                    // It may be the one that was isolated while it was unknown.
                    if self.parts.switch.isolation(unknown)?.since != 0 {
                        self.parts.switch.isolate(slot)?;
                    }
                    self.parts.kernel.bind(key, slot)?;
                }
            }
            _ => {}
        }
        Ok(false)
    }

    /// Notes who is in a bound cgroup: the kernel sees those that come from now on. They are governed either way, as long
    /// as they don't move themselves out.
    fn note_members(&mut self, cgroup: &Cgroup) {
        let key = key_of(cgroup.version, cgroup.id);
        let mut noted = || -> anyhow::Result<()> {
            for pid in self.parts.hierarchies.processes(cgroup)? {
                self.parts.kernel.note_member(pid, key)?;
            }
            Ok(())
        };
        if let Err(error) = noted() {
            tracing::warn!(cgroup = cgroup.path, "who is in it is not known, and lost once moved out of it: {error:#}");
        }
    }

    /// The slot that unknown pods share; 0: there is none.
    pub(super) fn unknown_slot(&self) -> u32 {
        self.known.get(&ContainerKey::new(POD_NAMESPACE, ANY_POD)).map_or(0, |known| known.slot)
    }

    /// Unknown pods that were isolated have slots of their own now: those to come begin anew.
    pub(super) fn release_unknown(&mut self) -> anyhow::Result<()> {
        let slot = self.unknown_slot();
        if slot != 0 && self.parts.switch.isolation(slot)?.since != 0 && !self.parts.kernel.is_bound(slot)? {
            self.parts.switch.release(slot)?;
        }
        Ok(())
    }

    /// The same for every pod, in one walk.
    fn bind_pods(&mut self) -> anyhow::Result<()> {
        for (owner, cgroup) in self.cgroups_of_pods()? {
            self.bind_cgroup(&cgroup, self.known[&owner].slot)?;
        }
        Ok(())
    }

    /// Every cgroup of every pod.
    fn cgroups_of_pods(&self) -> anyhow::Result<Vec<(ContainerKey, Cgroup)>> {
        let mut pods = HashMap::new();
        for (key, known) in self.known.iter().filter(|(_, known)| known.owner.container.kind == Kind::Pod) {
            pods.extend(known.names.iter().map(|name| (name.clone(), key)));
        }
        if pods.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.parts.hierarchies.find(&pods)?;
        Ok(found.into_iter().map(|(key, cgroup)| ((*key).clone(), cgroup)).collect())
    }

    /// Who a record of the unknown pods' slot belongs to, now that it may be known: that pod, judged by what was in force
    /// for unknown ones.
    pub(super) fn identified(&mut self, owner: &Arc<Owner>, cgroup: u64) -> Arc<Owner> {
        let ContainerKey { namespace, id } = &owner.container.key;
        if (namespace.as_str(), id.as_str()) != (POD_NAMESPACE, ANY_POD) {
            return Arc::clone(owner);
        }
        let found =
            self.cgroups_of_pods().unwrap_or_default().into_iter().find(|(_, of)| key_of(of.version, of.id) == cgroup);
        let key = found.map(|(key, _)| key).or_else(|| {
            // It is gone; the kernel still knows what it was called.
            let name = self.parts.kernel.stranger(cgroup).ok().flatten()?;
            Some(ContainerKey::new(POD_NAMESPACE, pod_uid_in(&name)?))
        });
        let Some(key) = key else { return Arc::clone(owner) };
        let container = self.known.get(&key).map_or_else(
            || {
                let pod = owner.container.pod.as_ref().map(|any| Pod {
                    uid: key.id.clone(),
                    name: String::new(),
                    ..any.clone()
                });
                Container { key, name: String::new(), pod, ..owner.container.clone() }
            },
            |known| known.owner.container.clone(),
        );
        Arc::new(Owner::new(container, Arc::clone(&owner.resolved)))
    }

    fn arm(&mut self, slot: u32, netns: Result<Netns, ringfence_netiso::Error>) {
        if !self.parts.arms_interfaces {
            return;
        }
        match netns {
            Ok(netns) => self.network.ask(Wish::Arm(slot, netns)),
            Err(error) => not_armed(slot, &error),
        }
    }

    pub(super) fn armed(&mut self, slot: u32, outcome: Result<(), ringfence_netiso::Error>) {
        match outcome {
            Ok(()) => {
                if let Some(coverage) = self.network.coverage(slot) {
                    tracing::debug!(slot, %coverage, "armed");
                }
                // How its network was made.
                if let Some(key) = self.owners.tenant(slot).map(|owner| owner.container.key.clone()) {
                    self.judge(&key);
                    self.save_gaps();
                }
            }
            Err(error) => not_armed(slot, &error),
        }
        for (key, header, violations) in std::mem::take(&mut self.undecided) {
            self.act(&key, &header, violations);
        }
    }

    fn removed(&mut self, key: &ContainerKey) -> anyhow::Result<()> {
        let Some(known) = self.known.remove(key) else { return Ok(()) };
        self.forget_gaps(key);
        if known.slot != 0 || known.owner.container.kind == Kind::Pod {
            self.parts.kernel.withdraw(&known.names)?;
        }
        if known.slot == 0 {
            return Ok(());
        }
        self.give_back(known.slot)
    }

    /// Nobody has the slot any more. Another one may have it as soon as it is disarmed.
    fn give_back(&mut self, slot: u32) -> anyhow::Result<()> {
        self.parts.kernel.unbind(slot)?;
        self.network.ask(Wish::Disarm(slot));
        Ok(())
    }

    pub(super) fn disarmed(&mut self, slot: u32, outcome: Result<(), ringfence_netiso::Error>) {
        let free = || -> anyhow::Result<()> {
            outcome?;
            self.parts.switch.release(slot)?;
            Ok(self.parts.kernel.set_slot(slot, Slot::default())?)
        };
        if let Err(error) = free() {
            tracing::error!(slot, "it can't be given to another container: {error:#}");
            return;
        }
        self.slots.give_back(slot);
        self.owners.give_back(slot);
        self.inside.retain(|_, (of, _)| *of != slot);
    }

    /// Everything that exists is known now. What an earlier enforcer left and nobody has claimed goes.
    fn synced(&mut self) -> anyhow::Result<()> {
        for slot in std::mem::take(&mut self.inherited) {
            self.parts.kernel.withdraw_slot(slot)?;
            self.give_back(slot)?;
        }
        self.network.ask(Wish::Prune);
        Ok(())
    }

    /// And all of it is armed. The first time: the rulesets come into force.
    pub(super) fn pruned(&mut self, outcome: Result<(), ringfence_netiso::Error>) -> anyhow::Result<()> {
        let enforce = || {
            outcome?;
            self.keep_gaps();
            if !self.in_force {
                self.enforce()?;
            }
            self.bind_pods()
        };
        let result = enforce();
        self.or_fail(result)
    }

    /// What governs a container now, limits considered.
    fn resolve(&self, container: &Container) -> Arc<ResolvedRuleset> {
        let resolved = self.parts.rulesets.resolve(container, self.standing(container));
        let same = self.numbers.get_key_value(&resolved).map(|(same, _)| Arc::clone(same));
        same.unwrap_or_else(|| Arc::new(resolved))
    }

    fn standing(&self, container: &Container) -> Option<Standing> {
        self.counted.standing(container.pod.as_ref()?, self.window(), Instant::now())
    }

    /// For how long terminations count.
    pub(super) fn window(&self) -> Duration {
        let seconds = self.parts.rulesets.policy().map_or(0, |policy| policy.limits.window);
        Duration::from_secs(seconds.into())
    }

    /// The limit that keeps a container from being terminated.
    pub(super) fn held(&self, container: &Container) -> Option<Limit> {
        let policy = self.parts.rulesets.policy()?;
        if policy.max_mitigation < Mitigation::Terminate {
            return Some(Limit::MaxMitigation);
        }
        policy.limits.hold(self.standing(container)?)
    }

    /// Terminations have come or gone: what governs the pods of their workloads may be another thing now.
    pub(super) fn limit(&mut self) {
        if !self.parts.rulesets.policy().is_some_and(|policy| policy.limits.are_set()) {
            return;
        }
        let of_workload = |known: &Known| known.owner.container.pod.as_ref().is_some_and(|pod| pod.replica.is_some());
        let keys: Vec<ContainerKey> =
            self.known.iter().filter(|(_, known)| of_workload(known)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let owner = Arc::clone(&self.known[&key].owner);
            let resolved = self.resolve(&owner.container);
            if owner.resolved == resolved {
                continue;
            }
            let pod = owner.container.name.as_str();
            self.known.get_mut(&key).expect("its key was just listed").owner = Arc::new(owner.governed_by(resolved));
            match self.govern_anew(&key) {
                Ok(()) => tracing::info!(pod, "limits of its workload's terminations changed"),
                Err(error) => tracing::error!(pod, "it goes on as before: {error:#}"),
            }
        }
    }

    /// Writes the tables of the generation to come.
    pub(super) fn prepare_generation(&mut self) -> anyhow::Result<()> {
        let tables = Arc::clone(self.parts.rulesets.tables());
        self.numbers.clear();
        self.tables.insert(self.generation, Arc::clone(&tables));
        Ok(self.parts.kernel.write_tables(self.generation, &tables)?)
    }

    /// Puts the prepared generation in force, and drops the one before the last.
    fn enforce(&mut self) -> anyhow::Result<()> {
        let tables = Arc::clone(&self.tables[&self.generation]);
        // Hooks first: the generation in force does not mind more of them.
        let before = self.generation.wrapping_sub(1);
        let mut ops = rulesets::ops(&tables);
        if let Some(old) = self.tables.get(&before) {
            ops.extend(rulesets::ops(old));
        }
        self.parts.kernel.attach_for(&ops)?;
        state::save(&self.parts.state, self.generation, &tables)
            .with_context(|| format!("the state can't be written to {}", self.parts.state.display()))?;
        self.owners.in_force(monotonic());
        self.parts.kernel.flip(self.generation)?;
        self.in_force = true;
        let ops: BTreeSet<_> = rulesets::ops(&tables);
        self.parts.kernel.attach_for(&ops)?;
        self.parts.kernel.remove_foreign()?;
        if let Some(old) = self.tables.get(&before).cloned() {
            self.parts.kernel.remove_tables(before, &old)?;
        }
        self.tables.retain(|generation, _| *generation == self.generation || *generation == before);
        tracing::info!(generation = self.generation, rules = self.parts.rulesets.rules().len(), "rulesets in force");
        Ok(())
    }

    /// Changed rulesets: everything is written beside what is in force, and one word flips. If something of it can't be
    /// written, all goes on as before.
    pub(super) fn next_generation(&mut self) -> anyhow::Result<()> {
        let owners: Vec<_> = self.known.iter().map(|(key, known)| (key.clone(), Arc::clone(&known.owner))).collect();
        if self.in_force {
            let (before, numbers) = (self.generation, std::mem::take(&mut self.numbers));
            self.generation = before.wrapping_add(1);
            self.in_force = false;
            let outcome = self.write_generation(&owners).and_then(|()| self.enforce());
            if !self.in_force {
                self.go_on_as_before(before, numbers, owners)?;
                return outcome;
            }
            outcome?;
        } else {
            self.write_generation(&owners)?;
        }
        for (key, _) in &owners {
            let known = &self.known[key];
            let slot = known.slot;
            if slot != 0 && known.owner.container.kind != Kind::Pod {
                self.bind(key, slot)?;
            }
        }
        self.bind_pods()
    }

    /// The generation to come does not come.
    fn go_on_as_before(
        &mut self,
        generation: u32,
        numbers: HashMap<Arc<ResolvedRuleset>, u32>,
        owners: Vec<(ContainerKey, Arc<Owner>)>,
    ) -> anyhow::Result<()> {
        let given_up = std::mem::replace(&mut self.generation, generation);
        self.in_force = true;
        self.numbers = numbers;
        for (key, owner) in owners {
            let known = self.known.get_mut(&key).expect("nothing has gone");
            if known.slot != 0 {
                self.owners.give(known.slot, Arc::clone(&owner));
            }
            known.owner = owner;
        }
        self.owners.in_force(monotonic());
        let Some(tables) = self.tables.remove(&given_up) else { return Ok(()) };
        Ok(self.parts.kernel.remove_tables(given_up, &tables)?)
    }

    /// Writes the generation to come, for everything that is known.
    fn write_generation(&mut self, owners: &[(ContainerKey, Arc<Owner>)]) -> anyhow::Result<()> {
        self.prepare_generation()?;
        for (key, owner) in owners {
            let resolved = self.resolve(&owner.container);
            self.known.get_mut(key).expect("nothing has gone").owner = Arc::new(owner.governed_by(resolved));
            self.govern(key)?;
        }
        Ok(())
    }
}

/// It may have ended meanwhile; while it lives its sockets are covered.
fn not_armed(slot: u32, error: &ringfence_netiso::Error) {
    tracing::debug!(slot, %error, "its interfaces could not be armed");
}

/// The kernel's key of a cgroup.
pub(super) fn key_of(version: Version, id: u64) -> u64 {
    match version {
        Version::V1 => id | V1_CGROUP,
        Version::V2 => id,
    }
}
