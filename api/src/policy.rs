//! `RuntimePolicy`: which rulesets a cluster enforces, and within which limits.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Mitigation, NodeFailure, Violations};

/// Syntax of a ruleset's name: a DNS subdomain of at most 63 characters.
const NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Syntax of a namespace, or of the beginning of one and `*`.
const NAMESPACE: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?|[a-z0-9][-a-z0-9]*\*)$";
/// A static pod, by its namespace and name.
const STATIC_POD: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// An IPv4 or IPv6 network; what is in it is checked by the webhook.
pub(crate) const CIDR: &str = r"^[0-9a-fA-F:.]+(/[0-9]{1,3})?$";

/// Which rulesets a cluster enforces, and within which limits. One is active: a value of the Helm chart names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "ringfence.dev",
    version = "v1alpha1",
    kind = "RuntimePolicy",
    plural = "runtimepolicies",
    singular = "runtimepolicy",
    shortname = "rpol",
    category = "ringfence",
    status = "RuntimePolicyStatus",
    derive = "PartialEq",
    doc = "Which rulesets a cluster enforces, and within which limits. One is active: a value of the Helm chart names it.",
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.rules"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods"),
    printcolumn(name = "Violations", type_ = "integer", json_path = ".status.violations.count", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Accepted")].status"#),
    printcolumn(name = "Active", type_ = "string", json_path = r#".status.conditions[?(@.type=="InUse")].status"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct RuntimePolicySpec {
    /// Names of the rulesets.
    #[schemars(
        length(max = 1024),
        inner(length(min = 1, max = 63), regex(pattern = NAME)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub rulesets: Vec<String>,
    /// No rule's mitigation is stricter than this, whatever its ruleset says. `log` is the dry run.
    #[serde(default = "strictest")]
    pub max_mitigation: Mitigation,
    /// Namespaces whose pods are not governed; a `*` at the end stands for any ending. Ringfence's own namespace never
    /// is.
    #[serde(default = "excluded_by_default")]
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 63), regex(pattern = NAMESPACE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub excluded_namespaces: Vec<String>,
    /// What keeps an enforcer from becoming an outage.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// What isolated pods may still do.
    #[serde(default)]
    pub isolation: IsolationSpec,
}

fn strictest() -> Mitigation {
    Mitigation::Terminate
}

fn excluded_by_default() -> Vec<String> {
    vec!["kube-system".to_owned()]
}

/// What keeps an enforcer from becoming an outage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Kill switch: nothing is mitigated and nothing reported any more, on every node, until it is false again. Pods that
    /// are isolated stay so.
    #[serde(default)]
    pub suspend: bool,
    /// Static pods (`namespace/name`) that are governed all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(max = 317), regex(pattern = STATIC_POD)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub govern_static_pods: Vec<String>,
    /// Pods of one workload (what makes them anew: a Deployment, a Job ...) that are terminated within the window, at
    /// most; further ones are isolated instead. Without it: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub max_terminations: Option<u32>,
    /// How long a termination counts for `maxTerminations`, in seconds.
    #[serde(default = "window")]
    #[schemars(range(min = 1, max = 86400), extend("format" = "int32"))]
    pub termination_window_seconds: u32,
    /// A ready pod is isolated instead of terminated, unless its workload then still has so many ready pods that are not
    /// isolated. Jobs have no such number. 0: no limit.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000), extend("format" = "int32"))]
    pub min_ready_replicas: u32,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            suspend: false,
            govern_static_pods: Vec::new(),
            max_terminations: None,
            termination_window_seconds: window(),
            min_ready_replicas: 0,
        }
    }
}

fn window() -> u32 {
    600
}

/// What isolated pods may still do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IsolationSpec {
    /// Isolated pods lose everything: the node's own probes and the exceptions too.
    #[serde(default)]
    pub strict: bool,
    /// Peers that isolated pods may still exchange packets with, such as a collector of forensics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["cidr"]))]
    pub exceptions: Vec<Exception>,
}

/// A network that isolated pods may still exchange packets with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exception {
    /// The network (`192.0.2.0/24`, `2001:db8::/32`) or address.
    #[schemars(length(max = 43), regex(pattern = CIDR))]
    pub cidr: String,
    /// Ports of those peers. Without it: everything, whatever the protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<Ports>,
}

/// A port or a range of ports, as in a `NetworkPolicy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ports {
    /// The port, or the first one.
    #[schemars(range(min = 1, max = 65_535), extend("format" = "int32"))]
    pub port: u16,
    /// The last port of a range. Not less than `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535), extend("format" = "int32"))]
    pub end_port: Option<u16>,
    /// `TCP` unless it is said.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "they are called so")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// What the cluster makes of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimePolicyStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the types `Accepted`, `InUse` and `Degraded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many different rules its rulesets have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub rules: Option<u32>,
    /// How many pods it governs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub pods: Option<u32>,
    /// Violations of its rulesets since this version of it is in force, as nodes count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violations: Option<Violations>,
    /// What nodes report about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["reason"]))]
    pub failures: Vec<NodeFailure>,
}
