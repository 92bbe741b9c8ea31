//! Rulesets: which rules govern which pods, with which mitigation.

mod exception;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ringfence_api::Mitigation;
use serde::Serialize;

use crate::resolve::Subject;
use crate::rule::RuleId;
use crate::selector::Selector;

pub use exception::{ExceptionError, Exceptions, RuleException};
pub use read::read;

/// The kind.
pub const KIND: &str = "RuntimeRuleset";

/// A named set of rules with mitigations, for the pods that its selector selects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ruleset {
    /// Unique and immutable: a pod's label names it.
    pub name: String,
    /// How often it was changed, as the API server counts; 0: it comes from a file.
    pub generation: i64,
    /// For people; empty if there is none.
    pub description: String,
    /// Which pods.
    pub selector: Selector,
    /// Of which namespaces.
    pub namespace_selector: Selector,
    /// The rules, tactics spelt out. A rule that is named itself keeps its own mitigation when its tactic is too.
    pub rules: BTreeMap<RuleId, Wish>,
}

/// What a ruleset wants of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wish {
    /// What is done on a violation.
    pub mitigation: Mitigation,
    /// What is no violation.
    pub exceptions: Exceptions,
}

impl From<Mitigation> for Wish {
    /// Without exceptions.
    fn from(mitigation: Mitigation) -> Self {
        Self { mitigation, exceptions: Exceptions::default() }
    }
}

impl Ruleset {
    /// Whether it governs that pod or container.
    pub fn selects(&self, subject: Subject<'_>) -> bool {
        self.selector.matches(subject.labels) && self.namespace_selector.matches(subject.namespace_labels)
    }
}

/// A ruleset that came back under another name. Names are immutable: delete one and create the other instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// The name it had.
    pub from: String,
    /// The name it has.
    pub to: String,
}

/// Rulesets that have vanished while one with the same selector and rules appeared.
///
/// For one ruleset alone the API server compares names by itself; this is for a whole set that is read anew.
pub fn renames(old: &[Ruleset], new: &[Ruleset]) -> Vec<Rename> {
    let absent = |name: &str, from: &[Ruleset]| from.iter().all(|ruleset| ruleset.name != name);
    let mut renames = Vec::new();
    let mut appeared: Vec<_> = new.iter().filter(|ruleset| absent(&ruleset.name, old)).collect();
    for gone in old.iter().filter(|ruleset| absent(&ruleset.name, new)) {
        let same = |other: &&Ruleset| {
            other.selector == gone.selector
                && other.namespace_selector == gone.namespace_selector
                && other.rules == gone.rules
        };
        if let Some(position) = appeared.iter().position(same) {
            renames.push(Rename { from: gone.name.clone(), to: appeared.remove(position).name.clone() });
        }
    }
    renames
}
