//! Isolation that holds: what is isolated gets no way past the datapaths, or it is terminated.

use super::{
    Agent, Told,
    network::Wish,
    termination::{Cause, Reason},
};
use ringfence_containers::{ContainerKey, Kind};
use ringfence_control::Escaped;
use ringfence_netiso::{Gap, Netns};
use ringfence_policy::Limit;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    time::Instant,
};

/// What keeps an isolated container from being terminated although isolation does not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spared {
    /// A limit of the policy.
    By(Limit),
    /// Somebody asked for its isolation, and for nothing else.
    ByHand,
    /// No ruleset governs it any more: the policy is suspended, or excludes it.
    Ungoverned,
}

impl std::fmt::Display for Spared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::By(limit) => write!(f, "{limit} holds that back"),
            Self::ByHand => f.write_str("it was isolated by hand"),
            Self::Ungoverned => f.write_str("no ruleset governs it any more"),
        }
    }
}

/// A container that isolation does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unheld {
    /// The ways, in a sentence.
    pub gaps: Escaped,
    /// Why it lives on.
    pub spared: Spared,
}

impl std::fmt::Display for Unheld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "isolated, it has got a way past that, and is not terminated, because {}: {}", self.spared, self.gaps)
    }
}

impl Agent {
    /// Looks for ways past the isolation of what is isolated, and at `all` datapaths.
    pub(super) fn guard(&mut self, all: bool) {
        let isolated = match self.isolated() {
            Ok(isolated) => isolated,
            Err(error) => {
                tracing::error!(%error, "what is isolated could not be looked up");
                return;
            }
        };
        if let Err(error) = self.follow(&isolated) {
            tracing::error!("where processes of isolated containers are could not be looked up: {error:#}");
        }
        if !all {
            self.network.ask(Wish::LookAt(isolated.into_values().collect()));
        } else if !self.network.is_verifying() {
            self.network.ask(Wish::Verify);
        }
    }

    /// These slots were looked at, or all.
    pub(super) fn looked(&mut self, at: Option<&BTreeSet<u32>>, outcome: Result<(), ringfence_netiso::Error>) {
        if let Err(error) = outcome {
            tracing::error!(%error, "the datapaths could not be verified");
        }
        let known = self.known.iter().filter(|(_, known)| at.is_none_or(|slots| slots.contains(&known.slot)));
        let keys: Vec<ContainerKey> = known.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.judge(&key);
        }
        self.save_gaps();
    }

    pub(super) fn save_gaps(&mut self) {
        if let Err(error) = self.gaps.save(&self.writer) {
            tracing::error!(%error, "ways past isolation can't be kept for the next enforcer");
        }
    }

    /// Isolated containers, and their slots.
    fn isolated(&self) -> Result<BTreeMap<ContainerKey, u32>, ringfence_netiso::Error> {
        let mut isolated = BTreeMap::new();
        for (key, known) in self.known.iter().filter(|(_, known)| known.slot != 0) {
            if self.parts.switch.isolation(known.slot)?.since != 0 {
                isolated.insert(key.clone(), known.slot);
            }
        }
        Ok(isolated)
    }

    /// Finds out in which network namespaces the processes of isolated containers are. A thread may be in another one
    /// than its process.
    fn follow(&mut self, isolated: &BTreeMap<ContainerKey, u32>) -> anyhow::Result<()> {
        let followed = isolated.keys().cloned().collect();
        for key in self.followed.difference(&followed) {
            if let Some(known) = self.known.get(key) {
                self.network.ask(Wish::AlsoIn(known.slot, Vec::new()));
            }
        }
        self.followed = followed;
        if isolated.is_empty() {
            return Ok(());
        }
        let names: HashMap<String, u32> = isolated
            .iter()
            .flat_map(|(key, slot)| self.known[key].names.iter().map(|name| (name.clone(), *slot)))
            .collect();
        let mut namespaces: BTreeMap<u32, Vec<PathBuf>> = isolated.values().map(|slot| (*slot, Vec::new())).collect();
        for (slot, cgroup) in self.parts.hierarchies.find(&names)? {
            let threads = self.parts.hierarchies.threads_in(&cgroup)?.into_iter();
            namespaces.entry(*slot).or_default().extend(threads.map(|id| format!("/proc/{id}/ns/net").into()));
        }
        for (process, slot) in self.parts.kernel.escaped()? {
            if let Some(namespaces) = namespaces.get_mut(&slot) {
                let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
                namespaces.extend(threads.map(|thread| thread.path().join("ns/net")));
            }
        }
        for (slot, files) in namespaces {
            self.network.ask(Wish::AlsoIn(slot, Netns::distinct(files)));
        }
        Ok(())
    }

    /// Whether isolation holds the container, if it is isolated. If not, it is terminated.
    pub(super) fn judge(&mut self, key: &ContainerKey) {
        let Some(known) = self.known.get(key) else { return };
        let Some(coverage) = self.network.coverage(known.slot) else { return };
        // Asked for after the coverage was found out.
        let isolated = match self.parts.switch.isolation(known.slot) {
            Ok(isolation) => isolation.since != 0,
            Err(error) => {
                tracing::error!(container = %key.id, %error, "whether it is isolated could not be looked up");
                return;
            }
        };
        let found: Vec<Gap> = self.gaps.see(key, isolated, &coverage.gaps).into_iter().cloned().collect();
        // Of one that has ended the namespaces are gone, or are what they were.
        if found.is_empty() || known.pid.is_none() {
            self.unheld.remove(key);
            return;
        }
        // Before the rulesets are in force nothing says what may be done.
        if known.terminating || known.ended == known.pid || !self.in_force {
            return;
        }
        let gaps = found.iter().map(|gap| gap.text.as_str()).collect::<Vec<_>>().join("; ");
        self.not_held(key, Escaped::from(gaps.as_str()));
    }

    fn not_held(&mut self, key: &ContainerKey, gaps: Escaped) {
        let known = &self.known[key];
        let container = known.owner.container.clone();
        let spared = if self.gaps.is_by_hand(key) {
            Some(Spared::ByHand)
        } else if known.owner.resolved.rules.is_empty() {
            Some(Spared::Ungoverned)
        } else {
            self.held(&container).map(Spared::By)
        };
        let name = Escaped::from(container.name.as_str());
        if let Some(spared) = spared {
            let unheld = Unheld { gaps, spared };
            if self.unheld.get(key) != Some(&unheld) {
                tracing::warn!(container = %key.id, %name, "{unheld}");
                self.tell(Told::Unheld { container, gaps: unheld.gaps.clone(), spared });
                self.unheld.insert(key.clone(), unheld);
            }
            return;
        }
        self.unheld.remove(key);
        tracing::warn!(container = %key.id, %name, "isolated, it has got a way past that, and is terminated: {gaps}");
        let known = self.known.get_mut(key).expect("it was just there");
        known.terminating = true;
        let names = known.names.clone();
        let rule = known.why_isolated.as_ref().and_then(|why| why.rule);
        self.count(&container);
        self.terminate(container, &names, Cause::Other(Reason::Unheld { rule, gaps }));
        self.limit();
    }

    /// A container is terminated: limits count that.
    pub(super) fn count(&mut self, container: &ringfence_containers::Container) {
        if let Some(pod) = &container.pod {
            let max = self.parts.rulesets.policy().and_then(|policy| policy.limits.max_terminations);
            self.counted.note(pod, max, Instant::now());
        }
    }

    /// A warning for each container that isolation does not hold.
    pub(super) fn unheld(&self) -> impl Iterator<Item = String> {
        self.unheld.iter().filter_map(|(key, unheld)| {
            let container = &self.known.get(key)?.owner.container;
            let name = match (container.kind, &container.pod) {
                (Kind::Pod, Some(pod)) => format!("pod {}/{}", pod.namespace, pod.name),
                _ => format!("container {}", container.name),
            };
            Some(format!("{name}: {unheld}"))
        })
    }

    /// Containers that are there no more are not looked for.
    pub(super) fn forget_gaps(&mut self, key: &ContainerKey) {
        self.gaps.forget(key);
        self.unheld.remove(key);
        self.followed.remove(key);
    }

    /// The same for all but those that are known.
    pub(super) fn keep_gaps(&mut self) {
        let known: BTreeSet<&ContainerKey> = self.known.keys().collect();
        self.gaps.keep(known.into_iter());
    }
}
