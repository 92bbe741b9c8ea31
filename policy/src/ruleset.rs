//! Rulesets: which rules govern which pods, with which mitigation.

mod fields;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::mitigation::Mitigation;
use crate::rule::RuleId;
use crate::selector::Selector;

pub use read::{Source, read};

/// API version of the kind `RuntimeRuleset`.
pub const API_VERSION: &str = "ringfence.dev/v1alpha1";
/// The kind.
pub const KIND: &str = "RuntimeRuleset";
/// Longest name of a ruleset, in bytes: it becomes the name part of a label key.
pub const RULESET_NAME: usize = 63;

/// A named set of rules with mitigations, for the pods that its selector selects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ruleset {
    /// Unique and immutable: a pod's label names it.
    pub name: String,
    /// For people; empty if there is none.
    pub description: String,
    /// Which pods.
    pub selector: Selector,
    /// The rules, tactics spelt out. A rule that is named itself keeps its own mitigation when its tactic is too.
    pub rules: BTreeMap<RuleId, Mitigation>,
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
        let same = |other: &&Ruleset| other.selector == gone.selector && other.rules == gone.rules;
        if let Some(position) = appeared.iter().position(same) {
            renames.push(Rename { from: gone.name.clone(), to: appeared.remove(position).name.clone() });
        }
    }
    renames
}
