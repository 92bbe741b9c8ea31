//! `RuntimeRuleset`: which rules govern which pods, with which mitigation.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::CIDR;
use crate::{Condition, LabelSelector, Mitigation, NodeFailure, Violations};

/// A path, whole or its beginning.
const PATH: &str = "^/";
/// One component of a path, whole or its beginning.
const PROGRAM: &str = "^[^/]+$";

/// A named set of managed rules with mitigations, for the pods that its selectors select.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "ringfence.dev",
    version = "v1alpha1",
    kind = "RuntimeRuleset",
    plural = "runtimerulesets",
    singular = "runtimeruleset",
    shortname = "rrs",
    category = "ringfence",
    status = "RuntimeRulesetStatus",
    derive = "PartialEq",
    doc = "A named set of managed rules with mitigations, for the pods that its selectors select.",
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.rules"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods"),
    printcolumn(name = "Violations", type_ = "integer", json_path = ".status.violations.count", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Accepted")].status"#),
    printcolumn(
        name = "In use",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="InUse")].status"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct RuntimeRulesetSpec {
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// Labels of the pods that it governs; without it: every pod.
    #[serde(default)]
    pub selector: LabelSelector,
    /// Labels of the namespaces whose pods it governs; without it: those of every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// The rules, each with its mitigation. Where several rulesets govern a pod, the strictest mitigation wins.
    #[schemars(
        length(min = 1, max = 512),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["rule"])
    )]
    pub rules: Vec<RuleEntry>,
}

/// A rule, or all rules of a tactic, and what is done when it is violated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleEntry {
    /// A rule by its id (`RF-801`) or an alias (`TM-00000006`, `Terminal shell in container`), or a tactic of ATT&CK 19
    /// (`Credential Access`), which stands for all of its rules. A rule that is named itself keeps its own mitigation
    /// when its tactic is named too.
    #[schemars(length(min = 1, max = 128))]
    pub rule: String,
    /// What is done on a violation.
    pub mitigation: Mitigation,
    /// What is no violation: benign causes that only you know. Of a tactic, each is for those of its rules that it can be
    /// about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub exceptions: Vec<RuleException>,
}

/// Something that is no violation of a rule: all of its keys hold; of one key, one value must. At least one key is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct RuleException {
    /// Who does it: paths of executables, or their beginnings and `*`. Of the start of a program: who starts it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256), regex(pattern = PATH)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub processes: Vec<String>,
    /// Names of programs of the image, or their beginnings and `*`, one of which is among the eight processes above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 64), regex(pattern = PROGRAM)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub ancestors: Vec<String>,
    /// What it is done to: paths, or their beginnings and `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256), regex(pattern = PATH)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub paths: Vec<String>,
    /// Where it goes: networks (`192.0.2.0/24`, `2001:db8::/32`) or addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 2, max = 43), regex(pattern = CIDR)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub destinations: Vec<String>,
    /// Ports at the other end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 1, max = 65_535)), extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<i32>,
}

/// What the cluster makes of a ruleset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeRulesetStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the types `Accepted`, `InUse` and `Degraded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many rules it has, tactics spelt out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub rules: Option<u32>,
    /// How many pods it governs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub pods: Option<u32>,
    /// Violations of its rules by pods that it governs, since this version of it is in force, as nodes count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violations: Option<Violations>,
    /// What nodes report about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["reason"]))]
    pub failures: Vec<NodeFailure>,
}
