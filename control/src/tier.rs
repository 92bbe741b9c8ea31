//! The kernel's tier, as a word.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How strong the node's kernel lets us be, weakest first. The kernel's side of it is [`ringfence_abi::Tier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Tracepoints: always possible; detects, and kills before the process runs on.
    Tracepoint,
    /// Kprobes on the security hooks.
    Kprobe,
    /// Trampolines on the security hooks.
    Fentry,
    /// LSM programs: can deny.
    Lsm,
}

impl Tier {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Kprobe => "kprobe",
            Self::Fentry => "fentry",
            Self::Lsm => "lsm",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<ringfence_abi::Tier> for Tier {
    fn from(tier: ringfence_abi::Tier) -> Self {
        match tier {
            ringfence_abi::Tier::Tracepoint => Self::Tracepoint,
            ringfence_abi::Tier::Kprobe => Self::Kprobe,
            ringfence_abi::Tier::Fentry => Self::Fentry,
            ringfence_abi::Tier::Lsm => Self::Lsm,
        }
    }
}
