//! A managed rule and what is known about it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::line::Line;
use ringfence_api::Mitigation;

/// Version of MITRE ATT&CK that tactics and techniques of the catalogue are from. Version 19 replaced the tactic
/// "Defense Evasion" by "Stealth" and "Defense Impairment".
pub const ATTACK_VERSION: u32 = 19;

/// Stable id of a managed rule, written `RF-nnn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u16);

impl RuleId {
    /// The id `RF-<number>`; numbers have three digits.
    pub const fn new(number: u16) -> Option<Self> {
        if number < 1000 { Some(Self(number)) } else { None }
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("RF-{:03}", self.0))
    }
}

/// The text is not a rule id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a rule id: RF- and three digits")]
pub struct NotARuleId(String);

impl FromStr for RuleId {
    type Err = NotARuleId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("RF-")
            .filter(|digits| digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| NotARuleId(text.into()))
    }
}

impl TryFrom<String> for RuleId {
    type Error = NotARuleId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Serialize for RuleId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RuleId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How bad a violation is, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Often benign, worth a look.
    Medium,
    /// Rarely benign.
    High,
    /// An attack, practically always.
    Critical,
}

impl Severity {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Tactics of ATT&CK version [`ATTACK_VERSION`], in the order of its matrix.
pub const TACTICS: [&str; 15] = [
    "Reconnaissance",
    "Resource Development",
    "Initial Access",
    "Execution",
    "Persistence",
    "Privilege Escalation",
    "Stealth",
    "Defense Impairment",
    "Credential Access",
    "Discovery",
    "Lateral Movement",
    "Collection",
    "Command and Control",
    "Exfiltration",
    "Impact",
];

/// Names of the same detection elsewhere. Each may also be used in a ruleset instead of the id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aliases {
    /// Trend Micro Container Security, `TM-000000nn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trend: Vec<String>,
    /// Falco rule names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub falco: Vec<String>,
    /// Tracee signature ids, `TRC-n`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tracee: Vec<String>,
}

impl Aliases {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.trend.iter().chain(&self.falco).chain(&self.tracee).map(String::as_str)
    }
}

/// Where a violation is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecidedBy {
    /// In the kernel: mitigation follows in the same run.
    Kernel,
    /// The lines find candidates; user space confirms and mitigates.
    User,
}

impl fmt::Display for DecidedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kernel => "kernel",
            Self::User => "user",
        })
    }
}

/// One managed rule: one file of the catalogue. Its violations share what they say of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Stable id.
    pub id: RuleId,
    /// Short name.
    pub name: Arc<str>,
    /// What happened when it is violated, why that is bad, and what is excepted.
    pub description: String,
    /// ATT&CK tactic, one of [`TACTICS`].
    pub tactic: Arc<str>,
    /// ATT&CK techniques, the most fitting first.
    pub techniques: Arc<[String]>,
    /// Whether the techniques belong to ATT&CK's platform "Containers".
    pub containers_matrix: bool,
    /// How bad a violation is.
    pub severity: Severity,
    /// Names elsewhere.
    pub aliases: Aliases,
    /// Mitigation that we recommend once the rule is known to be quiet.
    pub mitigation: Mitigation,
    /// Where it is decided.
    pub decided_by: DecidedBy,
    /// It is violated by an event that satisfies one of these.
    pub lines: Vec<Line>,
    /// Known benign causes.
    pub benign: Vec<String>,
    /// What it does not see, as far as [`crate::coverage`] can't know that: what may stand behind "Not seen:".
    #[serde(default)]
    pub misses: Option<String>,
}
