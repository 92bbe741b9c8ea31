//! What `ringfence status` shows: how well this node is covered, and what is known not to be.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ringfence_policy::{Coverage, RuleId, Severity};
use serde::{Deserialize, Serialize};

use crate::{Escaped, Tier};

/// The state of one enforcer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the enforcer.
    pub version: String,
    /// Host name of the node.
    pub node: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// When the enforcer started.
    pub started_at: Timestamp,
    /// Each event class: what sees it, and its counters.
    pub classes: Vec<ClassStatus>,
    /// Each rule that a loaded ruleset names.
    pub rules: Vec<RuleStatus>,
    /// Each governed container.
    pub containers: Vec<ContainerStatus>,
    /// Isolation datapaths that are not one container's alone.
    pub datapaths: Vec<DatapathStatus>,
    /// Where the rulesets come from.
    pub rulesets: RulesetsStatus,
    /// What became of candidates.
    #[serde(default)]
    pub candidates: CandidatesStatus,
    /// What the operator should know, one sentence each; empty if all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One event class. Counters count since the maps were made: they survive a restart of the enforcer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassStatus {
    /// `exec`, `open`, `change`, `network` or `process`.
    pub class: String,
    /// The strongest tier whose programs are attached; none: this class is not seen.
    pub tier: Option<Tier>,
    /// Events of governed containers that were matched.
    pub seen: u64,
    /// Violations.
    pub violations: u64,
    /// Records of `log` violations that were lost.
    pub lost_log: u64,
    /// Records of mitigating violations that were lost; the mitigation took place.
    pub lost_mitigating: u64,
    /// Events that could not be judged.
    pub unreadable: u64,
}

/// Candidates: programs with more arguments than the kernel looks at, where those decide. Since the enforcer started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidatesStatus {
    /// Violations.
    pub confirmed: u64,
    /// None: nothing was said about them.
    pub refuted: u64,
    /// Their arguments could not be read.
    pub undecided: u64,
    /// Their records were lost. (Since the maps were made.)
    pub lost: u64,
}

/// What this node can do about one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// Id of the rule.
    pub id: RuleId,
    /// Name of the rule.
    pub name: String,
    /// How bad a violation is.
    pub severity: Severity,
    /// Prevented, detected before or after it took effect, or not seen at all: the weakest of its operations.
    pub coverage: Coverage,
    /// The same by operation.
    #[serde(default)]
    pub operations: BTreeMap<String, Coverage>,
    /// What is missed or weaker on this node; empty if nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// One governed container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// The runtime's id.
    pub id: Escaped,
    /// Its name, where it has one besides the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Escaped>,
    /// Namespace within the container runtime.
    pub runtime_namespace: Escaped,
    /// Image reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Escaped>,
    /// The labels that selectors match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Escaped, Escaped>,
    /// The rulesets that govern it.
    pub rulesets: Vec<String>,
    /// Its slot in the kernel's maps.
    pub slot: u32,
    /// Present while it is isolated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<Isolation>,
    /// What would carry out an isolation. Empty: `isolate` is not possible here and becomes `terminate`.
    pub datapaths: Vec<DatapathStatus>,
    /// Why no datapath covers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_datapath: Option<String>,
    /// Ways past its interfaces' datapaths, each as a sentence: packet sockets, and what it forwards, get out there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Escaped>,
    /// Snapshotter of its root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshotter: Option<String>,
    /// Whether files that are new can be told from those of the image.
    pub drift_visible: bool,
}

/// Since when and why a container is isolated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// When it was cut off.
    pub since: Timestamp,
    /// The violated rule; none if it was isolated by hand, or before the enforcer started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
    /// The reason given by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Escaped>,
    /// Packets dropped since, both directions; a lower bound.
    pub dropped_packets: u64,
}

/// One place where packets of isolated containers are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatapathStatus {
    /// How: `cgroup_skb`, `tcx`, `clsact` ...
    pub kind: String,
    /// Where: the cgroup's path or the interface's name.
    pub place: Escaped,
}

/// Where the rulesets come from, and which are in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RulesetsStatus {
    /// The folder; none: they come from the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<Escaped>,
    /// The active policy of the cluster, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Names of the rulesets in force.
    pub names: Vec<String>,
    /// The files they were read from.
    pub files: Vec<Escaped>,
    /// SHA-256 over the rulesets in force, in hexadecimal.
    pub hash: String,
    /// When they were loaded.
    pub loaded_at: Option<Timestamp>,
    /// Why a later change was not loaded: the rulesets above stay in force until it is mended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Escaped>,
}

#[cfg(test)]
pub(crate) mod tests {
    use ringfence_policy::{Coverage, RuleId, Severity};

    use super::*;

    /// A node with one isolated container and a rejected change.
    pub fn node() -> Status {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let class = |class: &str, tier, seen| ClassStatus {
            class: class.to_owned(),
            tier,
            seen,
            violations: 1,
            lost_log: 0,
            lost_mitigating: 0,
            unreadable: 0,
        };
        let datapath = DatapathStatus { kind: "cgroup_skb".to_owned(), place: "/kubepods".into() };
        let drift = RuleId::new(901).unwrap();
        Status {
            version: "0.1.0".to_owned(),
            node: "node-1".to_owned(),
            kernel: "6.18.0".to_owned(),
            started_at: time("2026-11-25T03:00:00Z"),
            classes: vec![class("exec", Some(Tier::Tracepoint), 10), class("network", None, 0)],
            rules: vec![RuleStatus {
                id: drift,
                name: "Drift: new binary executed".to_owned(),
                severity: Severity::Critical,
                coverage: Coverage::DetectedBefore,
                operations: BTreeMap::from([
                    ("exec".to_owned(), Coverage::Prevented),
                    ("open".to_owned(), Coverage::DetectedBefore),
                ]),
                note: "seen as it happens".to_owned(),
            }],
            containers: vec![ContainerStatus {
                id: "0123456789abcdef".into(),
                name: Some("web".into()),
                runtime_namespace: "default".into(),
                image: Some("busybox:demo".into()),
                labels: BTreeMap::from([("app".into(), "web".into())]),
                rulesets: vec!["web".to_owned()],
                slot: 1,
                isolated: Some(Isolation {
                    since: time("2026-11-25T03:01:00Z"),
                    rule: Some(drift),
                    reason: None,
                    dropped_packets: 7,
                }),
                datapaths: vec![datapath.clone()],
                no_datapath: None,
                gaps: vec![],
                snapshotter: Some("overlayfs".to_owned()),
                drift_visible: true,
            }],
            datapaths: vec![datapath],
            rulesets: RulesetsStatus {
                directory: Some("/etc/ringfence".into()),
                policy: None,
                names: vec!["web".to_owned()],
                files: vec!["web.yaml".into()],
                hash: "abc".to_owned(),
                loaded_at: Some(time("2026-11-25T03:00:00Z")),
                rejected: Some("web.yaml:3:1: unknown rule".into()),
            },
            candidates: CandidatesStatus { confirmed: 1, refuted: 2, undecided: 0, lost: 0 },
            warnings: vec![],
        }
    }

    #[test]
    fn json_round_trip() {
        let json = serde_json::to_string(&node()).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), node());
    }
}
