//! What an enforcer tells the cluster about its node: an annotation of its own pod, in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One node's report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeReport {
    /// The node's name.
    pub node: String,
    /// The policy in force there, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, Reported>,
    /// Rulesets in force there that there is something to say about, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rulesets: BTreeMap<String, Reported>,
}

/// What a node says about one ruleset or policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reported {
    /// The generation that is in force there.
    pub generation: i64,
    /// Violations since then.
    #[serde(skip_serializing_if = "is_zero")]
    pub violations: u64,
    /// When that generation came into force there, as RFC 3339.
    pub since: String,
    /// What of it does not work there as asked: one sentence each, the same on every node where it is so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
