//! What a ruleset says to do when a rule is violated.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done on a violation. Ordered by strictness: the greater one wins where several rulesets match a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mitigation {
    /// Write an event, nothing else.
    Log,
    /// Deny the operation, or kill the process where the kernel cannot deny.
    Block,
    /// Cut the pod's network.
    Isolate,
    /// Kill the pod.
    Terminate,
}

impl Mitigation {
    /// All mitigations, the mildest first.
    pub const ALL: [Self; 4] = [Self::Log, Self::Block, Self::Isolate, Self::Terminate];

    /// The word that rulesets use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Block => "block",
            Self::Isolate => "isolate",
            Self::Terminate => "terminate",
        }
    }
}

impl fmt::Display for Mitigation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is not a mitigation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a mitigation: log, block, isolate or terminate")]
pub struct UnknownMitigation(String);

impl FromStr for Mitigation {
    type Err = UnknownMitigation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|m| m.name() == text).ok_or_else(|| UnknownMitigation(text.into()))
    }
}
