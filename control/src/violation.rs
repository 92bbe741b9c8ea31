//! The report of one violation: one JSON object on one line.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use ringfence_policy::{Limit, Mitigation, RuleId, Severity};
use serde::{Deserialize, Serialize};

use crate::{Escaped, Tier, line::Line};

/// An event of a governed container that violated a rule, and what was done about it.
///
/// An event that violates several rules yields one of these per rule. In JSON the field names are
/// camelCase, those of the acting process begin with `process`; absent and empty fields are left out. What is the same
/// in many of them is shared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// Wall clock when the kernel saw the event, UTC, RFC 3339 with nine decimals (ns).
    #[serde(with = "rfc3339")]
    pub event_time: Timestamp,
    /// The same moment as `CLOCK_MONOTONIC` of the node, ns.
    pub kernel_time_ns: u64,
    /// Host name of the node.
    pub node: Arc<str>,
    /// The cluster; none in standalone mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// The active policy; none in standalone mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<String>,

    /// The ruleset that asked for the mitigation: of those with the strictest, the first by name.
    pub rule_set_name: Arc<str>,
    /// Other rulesets that govern the container and hold the rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_rule_set_names: Vec<Arc<str>>,
    /// Stable id of the rule, `RF-nnn`.
    pub rule_id: RuleId,
    /// Name of the rule.
    pub rule_name: Arc<str>,
    /// MITRE ATT&CK technique ids, such as `T1059.004`.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub tags: Arc<[String]>,
    /// MITRE ATT&CK tactic.
    pub tactic: Arc<str>,
    /// How bad it is.
    pub severity: Severity,

    /// The mitigation that the resolved ruleset asks for, limits considered.
    pub mitigation: Mitigation,
    /// A stricter one that rulesets ask for, and the limit that held it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mitigation_held: Option<Held>,
    /// What was done, in the order it was done; empty for `log`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mitigation_done: Vec<Done>,
    /// What was tried and did not work: one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mitigation_failed: Vec<String>,
    /// From the event to the mitigation in the kernel, kernel clock, ns; none where the kernel had nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<u64>,
    /// The tier that saw the event.
    pub tier: Tier,
    /// Records that were lost before this one since the last that was not; what they asked for was still done.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_before: u64,

    /// Kubernetes namespace of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k8s_namespace: Option<Escaped>,
    /// Name of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k8s_pod_name: Option<Escaped>,
    /// UID of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k8s_pod_id: Option<Escaped>,
    /// The runtime's id of the container; empty where only its pod could be told.
    #[serde(default, skip_serializing_if = "Escaped::is_empty")]
    pub container_id: Escaped,
    /// Name of the container, where it has one besides its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<Escaped>,
    /// Image reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_image: Option<Escaped>,
    /// Digest of the image, `sha256:...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_image_digest: Option<Escaped>,
    /// Namespace within the container runtime (`k8s.io`, `moby`, `default`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_namespace: Option<Escaped>,

    /// The process that did it.
    #[serde(flatten)]
    pub process: Process,
    /// Its parents, nearest first, up to the container's first process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,

    /// What it did, in snake case: `exec`, `open`, `rename_to`, `connect` ...
    pub operation: Cow<'static, str>,
    /// The file: executed, opened, changed, mounted, or the Unix socket connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_file_path: Option<Escaped>,
    /// Names of the event's properties that hold (`drifted`, `tty`, `write` ...).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Cow<'static, str>>,
    /// The operation's own number (ptrace request, signal, length ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Address family: `ipv4`, `ipv6`, `packet`, `unix`, or its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Cow<'static, str>>,
    /// Protocol: `tcp`, `udp`, `icmp`, or its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Cow<'static, str>>,
    /// Local address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<String>,
    /// Local port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spt: Option<u16>,
    /// Remote address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<String>,
    /// Remote port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpt: Option<u16>,
}

impl Violation {
    /// Names of all rulesets that govern the container and hold the rule.
    pub fn rulesets(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.rule_set_name).chain(&self.other_rule_set_names).map(AsRef::as_ref)
    }

    /// Appends its JSON. Here, and not where it is called, because the enforcer's own code is built for size.
    pub fn write_json(&self, line: &mut Vec<u8>) {
        serde_json::to_writer(Line(line), self).expect("violations are plain data");
    }
}

/// A mitigation that was not done, because the policy limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What rulesets ask for.
    pub mitigation: Mitigation,
    /// The policy's limit.
    pub limit: Limit,
}

/// Something that was done about a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Done {
    /// The operation was denied.
    Denied,
    /// The process was killed.
    Killed,
    /// The container was cut off the network.
    Isolated,
    /// All processes of the container were killed.
    Terminated,
}

impl Done {
    /// The word, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Killed => "killed",
            Self::Isolated => "isolated",
            Self::Terminated => "terminated",
        }
    }
}

/// The process that acted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the node's initial pid namespace.
    #[serde(rename = "processPid")]
    pub pid: u32,
    /// Command name (at most 15 bytes); the process may choose it itself.
    #[serde(rename = "processName")]
    pub name: Escaped,
    /// Path of the executable, as the kernel knows it.
    #[serde(rename = "processExe", default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<Escaped>,
    /// Arguments, the program's own name first.
    #[serde(rename = "processCmd", default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<Escaped>,
    /// Who it runs as.
    #[serde(rename = "processUser")]
    pub user: User,
}

/// A user and a group of the initial user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Name of the user in the container's own `/etc/passwd`, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Escaped>,
}

/// A parent of the acting process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Process id in the node's initial pid namespace.
    pub pid: u32,
    /// Command name (at most 15 bytes); the process may choose it itself.
    pub name: Escaped,
    /// Path of the executable, where it was still to be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<Escaped>,
    /// Arguments, where they were still to be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<Escaped>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Times with always nine decimals, so that text order is time order.
mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{time:.9}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(deserializer)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// A drifted binary in an isolated container.
    pub fn drift() -> Violation {
        Violation {
            event_time: "2026-11-25T03:50:47.0000042Z".parse().unwrap(),
            kernel_time_ns: 42_000_000_123,
            node: "node-1".into(),
            cluster_name: None,
            policy_name: None,
            rule_set_name: "web".into(),
            other_rule_set_names: vec![],
            rule_id: RuleId::new(901).unwrap(),
            rule_name: "Drift: new binary executed".into(),
            tags: ["T1059".to_owned()].into(),
            tactic: "Execution".into(),
            severity: Severity::Critical,
            mitigation: Mitigation::Isolate,
            mitigation_held: None,
            mitigation_done: vec![Done::Isolated],
            mitigation_failed: vec![],
            latency_ns: Some(4_250),
            tier: Tier::Tracepoint,
            lost_before: 0,
            k8s_namespace: None,
            k8s_pod_name: None,
            k8s_pod_id: None,
            container_id: "0123456789abcdef0123456789abcdef".into(),
            container_name: Some("web".into()),
            container_image: Some("busybox:demo".into()),
            container_image_digest: None,
            runtime_namespace: Some("default".into()),
            process: Process {
                pid: 4711,
                name: "dropped".into(),
                exe: Some("/tmp/dropped".into()),
                cmd: vec!["./dropped".into(), "--name".into(), "a b".into()],
                user: User::default(),
            },
            parents: vec![Parent { pid: 4700, name: "sh".into(), ..Parent::default() }],
            operation: "exec".into(),
            object_file_path: Some("/tmp/dropped".into()),
            flags: vec!["drifted".into(), "executable".into()],
            number: None,
            family: None,
            proto: None,
            src: None,
            spt: None,
            dst: None,
            dpt: None,
        }
    }

    #[test]
    fn json_has_the_field_names_that_users_query() {
        let json = serde_json::to_value(drift()).unwrap();
        for (field, value) in [
            ("eventTime", Value::from("2026-11-25T03:50:47.000004200Z")),
            ("ruleSetName", "web".into()),
            ("ruleId", "RF-901".into()),
            ("ruleName", "Drift: new binary executed".into()),
            ("severity", "critical".into()),
            ("tags", vec!["T1059"].into()),
            ("mitigation", "isolate".into()),
            ("mitigationDone", vec!["isolated"].into()),
            ("containerId", "0123456789abcdef0123456789abcdef".into()),
            ("containerName", "web".into()),
            ("containerImage", "busybox:demo".into()),
            ("processName", "dropped".into()),
            ("processCmd", vec!["./dropped", "--name", "a b"].into()),
            ("processPid", 4711.into()),
            ("objectFilePath", "/tmp/dropped".into()),
            ("latencyNs", 4250.into()),
        ] {
            assert_eq!(json[field], value, "{field}");
        }
        assert_eq!(json["processUser"]["uid"], 0);
        assert_eq!(json["parents"][0]["name"], "sh");
    }

    #[test]
    fn absent_fields_are_left_out() {
        let json = serde_json::to_value(drift()).unwrap();
        for field in ["clusterName", "k8sPodName", "dst", "dpt", "number", "lostBefore", "mitigationFailed", "process"]
        {
            assert!(json.get(field).is_none(), "{field}");
        }
    }

    proptest! {
        #[test]
        fn one_line_whatever_the_attacker_writes(path in any::<Vec<u8>>(), argument in any::<String>()) {
            let mut violation = drift();
            violation.object_file_path = Some(Escaped::from_bytes(&path));
            violation.process.cmd.push(argument.into());
            let json = serde_json::to_string(&violation).unwrap();
            prop_assert!(!json.chars().any(char::is_control));
            prop_assert_eq!(serde_json::from_str::<Violation>(&json).unwrap(), violation);
        }
    }
}
