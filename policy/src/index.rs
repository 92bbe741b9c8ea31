//! What a cluster's rulesets and policies say, as they come, change and go. Webhook and enforcer feed it from their
//! watches, and so agree on what is in force.
//!
//! An object that is wrong does not take back what it said before: its last good version stays in force, and its entry
//! says what is wrong. The same holds for the active policy when it is deleted. A ruleset that is deleted is gone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalogue::Catalogue;
use crate::diagnostic::Diagnostic;
use crate::document::Source;
use crate::policy::{Enforced, Policy, read_policy};
use crate::ruleset::{Ruleset, read};

/// An object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// Its last version that was right.
    pub good: Option<Arc<T>>,
    /// What is wrong with its current version; empty if that is the good one.
    pub problems: Vec<Diagnostic>,
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self { good: None, problems: Vec::new() }
    }
}

impl<T> Entry<T> {
    fn update(&mut self, read: Result<T, Vec<Diagnostic>>) {
        match read {
            Ok(good) => *self = Self { good: Some(Arc::new(good)), problems: Vec::new() },
            Err(problems) => self.problems = problems,
        }
    }
}

/// All rulesets and policies of a cluster.
#[derive(Clone, Debug)]
pub struct Index {
    catalogue: Cow<'static, Catalogue>,
    own_namespace: String,
    active: String,
    rulesets: BTreeMap<String, Entry<Ruleset>>,
    policies: BTreeMap<String, Entry<Policy>>,
    in_force: Option<Arc<Policy>>,
}

impl Default for Index {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl Index {
    /// No objects yet. `active` is the name of the policy that is to be in force.
    pub fn new(own_namespace: impl Into<String>, active: impl Into<String>) -> Self {
        Self {
            catalogue: Cow::Borrowed(Catalogue::builtin()),
            own_namespace: own_namespace.into(),
            active: active.into(),
            rulesets: BTreeMap::new(),
            policies: BTreeMap::new(),
            in_force: None,
        }
    }

    /// Rulesets choose from another catalogue than the managed one.
    #[must_use]
    pub fn with_catalogue(self, catalogue: Catalogue) -> Self {
        Self { catalogue: Cow::Owned(catalogue), ..self }
    }

    /// What rulesets choose from.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Name of the policy that is to be in force.
    pub fn active(&self) -> &str {
        &self.active
    }

    /// A ruleset is new or has changed; `text` is the object as JSON or YAML.
    pub fn put_ruleset(&mut self, name: &str, text: String) {
        let source = Source { name: format!("runtimeruleset/{name}"), text };
        let read = read(&[source], &self.catalogue).map_err(|diagnostics| diagnostics.0);
        let read = read.and_then(|mut rulesets| rulesets.pop().ok_or_else(Vec::new));
        self.rulesets.entry(name.to_owned()).or_default().update(read);
    }

    /// A ruleset is gone.
    pub fn remove_ruleset(&mut self, name: &str) {
        self.rulesets.remove(name);
    }

    /// A policy is new or has changed.
    pub fn put_policy(&mut self, name: &str, text: String) {
        let source = Source { name: format!("runtimepolicy/{name}"), text };
        let entry = self.policies.entry(name.to_owned()).or_default();
        entry.update(read_policy(&source).map_err(|diagnostics| diagnostics.0));
        if name == self.active && entry.good.is_some() {
            self.in_force.clone_from(&entry.good);
        }
    }

    /// A policy was in force, whatever its name, before this index was made: it stays so until the active one is there
    /// and right. False: it is not right any more.
    pub fn recall_policy(&mut self, text: String) -> bool {
        let recalled = read_policy(&Source { name: "the policy that was in force".to_owned(), text }).ok();
        self.in_force = recalled.map(Arc::new);
        self.in_force.is_some()
    }

    /// The same of a policy that still exists by this name. False: it does not, or no version of it was right.
    pub fn recall(&mut self, name: &str) -> bool {
        let good = self.policies.get(name).and_then(|entry| entry.good.clone());
        self.in_force = good.or(self.in_force.take());
        self.in_force.is_some()
    }

    /// The policy that is in force.
    pub fn in_force(&self) -> Option<&Arc<Policy>> {
        self.in_force.as_ref()
    }

    /// A policy is gone. If it was the active one it stays in force.
    pub fn remove_policy(&mut self, name: &str) {
        self.policies.remove(name);
    }

    /// The rulesets that exist, by name.
    pub fn rulesets(&self) -> &BTreeMap<String, Entry<Ruleset>> {
        &self.rulesets
    }

    /// The policies that exist, by name.
    pub fn policies(&self) -> &BTreeMap<String, Entry<Policy>> {
        &self.policies
    }

    /// What is enforced.
    pub fn enforced(&self) -> Enforced {
        self.under(self.in_force.as_deref())
    }

    /// What would be enforced under a policy.
    pub fn under(&self, policy: Option<&Policy>) -> Enforced {
        let good = self.rulesets.values().filter_map(|entry| entry.good.clone());
        Enforced::new(self.own_namespace.clone(), policy.cloned(), good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(generation: u32, rule: &str) -> String {
        format!(
            r#"{{"apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimeRuleset",
                "metadata": {{"name": "web", "generation": {generation}}},
                "spec": {{"rules": [{{"rule": "{rule}", "mitigation": "log"}}]}}}}"#
        )
    }

    fn policy(name: &str, cap: &str) -> String {
        format!(
            r#"{{"apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimePolicy", "metadata": {{"name": "{name}"}},
                "spec": {{"rulesets": ["web"], "maxMitigation": "{cap}"}}}}"#
        )
    }

    #[test]
    fn the_last_good_one_stays_in_force() {
        let mut index = Index::new("ringfence", "main");
        assert_eq!(index.enforced().policy(), None);
        index.put_policy("other", policy("other", "log"));
        assert_eq!(index.enforced().policy(), None, "it is not the active one");
        index.put_policy("main", policy("main", "isolate"));
        index.put_ruleset("web", ruleset(1, "RF-901"));
        let before = index.enforced();
        assert_eq!((before.present().len(), before.present()[0].generation), (1, 1));

        index.put_policy("main", policy("main", "kill"));
        index.put_ruleset("web", ruleset(2, "RF-9010"));
        assert_eq!(index.enforced(), before);
        assert_eq!(index.policies()["main"].problems[0].field, "spec.maxMitigation");
        assert_eq!(index.rulesets()["web"].problems[0].field, "spec.rules[0].rule");

        index.remove_policy("main");
        assert_eq!(index.enforced(), before);
        assert!(!index.policies().contains_key("main"));
        index.put_policy("main", policy("main", "log"));
        assert_ne!(index.enforced().policy(), before.policy());
        index.remove_ruleset("web");
        assert_eq!(index.enforced().present(), []);
    }

    #[test]
    fn what_was_in_force_before_stays_so_until_there_is_another() {
        let mut index = Index::new("ringfence", "next");
        assert!(index.recall_policy(policy("main", "isolate")));
        index.put_policy("next", policy("next", "kill"));
        assert_eq!(index.enforced().policy().unwrap().name, "main");
        index.put_policy("next", policy("next", "log"));
        assert_eq!(index.enforced().policy().unwrap().name, "next");
        assert!(!Index::new("ringfence", "next").recall_policy("{}".to_owned()));
        let mut index = Index::new("ringfence", "next");
        index.put_policy("main", policy("main", "isolate"));
        assert!(!index.recall("other") && index.recall("main") && index.recall("other"));
        assert_eq!(index.enforced().policy().unwrap().name, "main");
    }

    #[test]
    fn what_was_never_right_is_not_enforced() {
        let mut index = Index::new("ringfence", "main");
        index.put_ruleset("web", "{}".to_owned());
        assert!(!index.rulesets()["web"].problems.is_empty());
        assert_eq!(index.enforced().present(), []);
        index.put_ruleset("web", ruleset(3, "RF-901"));
        assert_eq!(index.rulesets()["web"].problems, []);
    }
}
