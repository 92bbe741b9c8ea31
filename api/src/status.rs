//! What both kinds say about themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Types of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The object is right as a whole, and can be enforced.
    Accepted,
    /// It is in force: for a ruleset, the active policy names it; for a policy, it is the active one.
    InUse,
    /// Something about it does not work as asked on at least one node.
    Degraded,
}

impl ConditionType {
    /// As in `type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::InUse => "InUse",
            Self::Degraded => "Degraded",
        }
    }
}

/// A failure that nodes report, and how many of them do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeFailure {
    /// What fails.
    pub reason: String,
    /// On how many nodes.
    #[schemars(range(min = 1), extend("format" = "int32"))]
    pub nodes: u32,
}

/// Violations that were counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Violations {
    /// How many.
    #[schemars(range(min = 0), extend("format" = "int64"))]
    pub count: u64,
    /// Since when, as RFC 3339: the earliest of the nodes that have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
}
