//! The active policy of a cluster: which rulesets are enforced where, and within which limits.

mod exception;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ringfence_api::Mitigation;

use crate::catalogue::Catalogue;
use crate::compile::{CompileError, compile_with};
use crate::limits::{Limit, Limits, Standing};
use crate::resolve::{Effect, ResolvedRuleset, Subject, resolve};
use crate::ruleset::Ruleset;
use crate::selector::Labels;
use crate::selectors::Selectors;
use crate::tables::Tables;

pub use exception::{Exception, TooManyPorts, effective};
pub use read::read_policy;

/// The kind.
pub const POLICY_KIND: &str = "RuntimePolicy";

/// Which rulesets a cluster enforces, and within which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// How often it was changed, as the API server counts; 0: it comes from a file.
    pub generation: i64,
    /// Names of its rulesets, sorted.
    pub rulesets: Vec<String>,
    /// No mitigation is stricter than this.
    pub max_mitigation: Mitigation,
    /// Namespaces whose pods are not governed.
    pub excluded_namespaces: Vec<NamespacePattern>,
    /// Static pods that are governed all the same: `namespace/name`.
    pub govern_static_pods: Vec<String>,
    /// Nothing is mitigated nor reported.
    pub suspend: bool,
    /// Limits of terminations.
    pub limits: Limits,
    /// Isolated pods lose the node's probes and the exceptions too.
    pub strict: bool,
    /// Networks that isolated pods may still exchange packets with.
    pub exceptions: Vec<Exception>,
}

impl Policy {
    /// Everything is enforced, everywhere and without limits: what a node without a cluster does with its files.
    pub fn everything(rulesets: &[Ruleset]) -> Self {
        let mut names: Vec<String> = rulesets.iter().map(|ruleset| ruleset.name.clone()).collect();
        names.sort();
        Self {
            name: String::new(),
            generation: 0,
            rulesets: names,
            max_mitigation: Mitigation::Terminate,
            excluded_namespaces: Vec::new(),
            govern_static_pods: Vec::new(),
            suspend: false,
            limits: Limits::default(),
            strict: false,
            exceptions: Vec::new(),
        }
    }

    /// What keeps a pod's mitigations from being stricter, and which limit that is.
    fn caps(&self, pod: PodFacts<'_>) -> impl Iterator<Item = (Mitigation, Limit)> {
        let held = pod.standing.and_then(|standing| self.limits.hold(standing));
        let all = [(self.max_mitigation, Limit::MaxMitigation)].into_iter();
        all.chain(held.map(|limit| (Mitigation::Isolate, limit)))
    }
}

/// A namespace, or the beginning of its name and `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespacePattern(String);

impl NamespacePattern {
    /// Whether a namespace is meant.
    pub fn matches(&self, namespace: &str) -> bool {
        self.0.strip_suffix('*').map_or_else(|| self.0 == namespace, |start| namespace.starts_with(start))
    }
}

/// What decides how a pod is governed.
#[derive(Clone, Copy, Debug)]
pub struct PodFacts<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name; of a pod that is being created possibly empty.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
    /// Labels of its namespace.
    pub namespace_labels: &'a Labels,
    /// It comes from a file of its node (a mirror pod at the API server).
    pub is_static: bool,
    /// How things stand with its workload; none: it has none, or terminations are not limited here.
    pub standing: Option<Standing>,
}

impl<'a> PodFacts<'a> {
    fn subject(&self) -> Subject<'a> {
        Subject { labels: self.labels, namespace_labels: self.namespace_labels }
    }
}

/// Why a pod is not governed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exempt {
    /// There is no policy in force.
    NoPolicy,
    /// Ringfence's own namespace.
    Own,
    /// The policy is suspended: the kill switch.
    Suspended,
    /// The policy excludes the namespace.
    Namespace,
    /// A static pod that the policy does not name.
    Static,
}

impl fmt::Display for Exempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPolicy => "no policy is in force",
            Self::Suspended => "the policy is suspended",
            Self::Own => "it is in Ringfence's own namespace",
            Self::Namespace => "the policy excludes its namespace",
            Self::Static => "it is a static pod that the policy does not name",
        })
    }
}

/// What a cluster enforces: the active policy and those rulesets of it that exist and are right. Immutable: it is made
/// anew with every change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enforced {
    own_namespace: String,
    policy: Option<Policy>,
    /// Every right ruleset of the cluster.
    present: Vec<Arc<Ruleset>>,
    /// Positions of those that the policy names.
    named: Vec<usize>,
    /// Of those.
    selectors: Selectors,
}

impl Enforced {
    /// `own_namespace` is Ringfence's own, which is never governed; empty if there is none. Without a policy nothing is
    /// governed; rulesets that it does not name do not count.
    pub fn new(
        own_namespace: impl Into<String>,
        policy: Option<Policy>,
        rulesets: impl IntoIterator<Item = impl Into<Arc<Ruleset>>>,
    ) -> Self {
        let present: Vec<Arc<Ruleset>> = rulesets.into_iter().map(Into::into).collect();
        let wanted = policy.as_ref().map(|policy| policy.rulesets.as_slice()).unwrap_or_default();
        let is_named = |position: &usize| wanted.binary_search(&present[*position].name).is_ok();
        let named: Vec<usize> = (0..present.len()).filter(is_named).collect();
        let selectors = Selectors::new(named.iter().map(|position| (*position, &*present[*position])));
        Self { own_namespace: own_namespace.into(), policy, present, named, selectors }
    }

    /// The same with another ruleset, in place of the one by the same name.
    #[must_use]
    pub fn with(&self, ruleset: Ruleset) -> Self {
        let mut rulesets = self.present.clone();
        rulesets.retain(|other| other.name != ruleset.name);
        rulesets.push(Arc::new(ruleset));
        Self::new(self.own_namespace.clone(), self.policy.clone(), rulesets)
    }

    /// Ringfence's own namespace.
    pub fn own_namespace(&self) -> &str {
        &self.own_namespace
    }

    /// The active policy; none: nothing is governed.
    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// Every right ruleset of the cluster, named by the policy or not.
    pub fn present(&self) -> &[Arc<Ruleset>] {
        &self.present
    }

    /// The tables of all rules that its rulesets name, whatever they select, with what each excepts.
    pub fn compile(&self, catalogue: &Catalogue) -> Result<Tables, CompileError> {
        let wishes = self.rulesets().flat_map(|ruleset| &ruleset.rules);
        let wanted: BTreeSet<_> = wishes.map(|(rule, wish)| (*rule, &wish.exceptions)).collect();
        let known = wanted.into_iter().filter_map(|(rule, exceptions)| Some((catalogue.get(rule)?, exceptions)));
        compile_with(known)
    }

    /// The rulesets that the policy names.
    pub fn rulesets(&self) -> impl Iterator<Item = &Ruleset> {
        self.named.iter().map(|position| &*self.present[*position])
    }

    /// Names of rulesets that the policy names and that are not there, or not right.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let names = self.policy.as_ref().map(|policy| policy.rulesets.as_slice()).unwrap_or_default();
        let there: BTreeSet<&str> = self.rulesets().map(|ruleset| ruleset.name.as_str()).collect();
        names.iter().map(String::as_str).filter(move |name| !there.contains(name))
    }

    /// The resolved ruleset of a pod, or why it has none. Webhook and enforcer compute it by this function.
    pub fn resolve(&self, pod: PodFacts<'_>) -> Result<ResolvedRuleset, Exempt> {
        let policy = self.policy_for(pod)?;
        let mut resolved = resolve(self.selecting(pod), pod.subject());
        for (cap, limit) in policy.caps(pod) {
            resolved.cap(cap, limit);
        }
        Ok(resolved)
    }

    /// The rulesets that govern a pod, and what they enforce: the same as [`Enforced::resolve`], without who asked for
    /// which rule.
    pub fn governing(&self, pod: PodFacts<'_>) -> Result<(Vec<&Ruleset>, Effect<'_>), Exempt> {
        let policy = self.policy_for(pod)?;
        let rulesets: Vec<&Ruleset> = self.selecting(pod).collect();
        let mut effect = Effect::of(rulesets.iter().copied());
        for (cap, _) in policy.caps(pod) {
            effect.cap(cap);
        }
        Ok((rulesets, effect))
    }

    /// Those that select a pod.
    fn selecting(&self, pod: PodFacts<'_>) -> impl Iterator<Item = &Ruleset> {
        let subject = pod.subject();
        let candidates = self.selectors.candidates(subject).into_iter().map(|position| &*self.present[position]);
        candidates.filter(move |ruleset| ruleset.selects(subject))
    }

    /// The policy, if it governs the pod.
    fn policy_for(&self, pod: PodFacts<'_>) -> Result<&Policy, Exempt> {
        let policy = self.policy.as_ref().ok_or(Exempt::NoPolicy)?;
        // A host without a cluster has no namespace of its own.
        if !self.own_namespace.is_empty() && pod.namespace == self.own_namespace {
            return Err(Exempt::Own);
        }
        if policy.suspend {
            return Err(Exempt::Suspended);
        }
        if policy.excluded_namespaces.iter().any(|pattern| pattern.matches(pod.namespace)) {
            return Err(Exempt::Namespace);
        }
        if pod.is_static {
            let named = |entry: &String| entry.split_once('/') == Some((pod.namespace, pod.name));
            if !policy.govern_static_pods.iter().any(named) {
                return Err(Exempt::Static);
            }
        }
        Ok(policy)
    }
}
