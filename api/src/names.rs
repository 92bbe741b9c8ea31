//! Labels, annotations, finalizers, and reasons of events and conditions: the contract between webhook, enforcer, CLI
//! and users. [`TABLE`] holds all of it; `docs/cluster.md` shows it.

use std::collections::BTreeMap;

/// Prefix of the label that a pod bears for each ruleset which governs it: `ruleset.ringfence.dev/<name>`. The value is
/// the ruleset's `metadata.generation` at the time.
pub const RULESET_LABEL_PREFIX: &str = "ruleset.ringfence.dev/";
/// Label of a pod: name of the policy that it was resolved under.
pub const POLICY_LABEL: &str = "ringfence.dev/policy";
/// Label of a pod: hash of its resolved ruleset, 32 hexadecimal digits.
pub const HASH_LABEL: &str = "ringfence.dev/ruleset-hash";
/// Label of an isolated pod; the value is always [`ISOLATED`].
pub const ISOLATED_LABEL: &str = "ringfence.dev/isolated";
/// The value of [`ISOLATED_LABEL`].
pub const ISOLATED: &str = "true";
/// Annotation of an isolated pod: rule that was violated, or `manual`.
pub const ISOLATED_BY_ANNOTATION: &str = "ringfence.dev/isolated-by";
/// Annotation of an isolated pod: RFC 3339 time of the isolation.
pub const ISOLATED_AT_ANNOTATION: &str = "ringfence.dev/isolated-at";

/// Readiness gate that a pod may have, and type of the condition for it: `True` while the pod has its network.
pub const CONNECTED_CONDITION: &str = "ringfence.dev/connected";
/// Label of a pod whose policy has `minReadyReplicas`: how many of its workload's ready pods may go, up to
/// [`MANY_SPARE`].
pub const SPARE_REPLICAS_LABEL: &str = "ringfence.dev/spare-replicas";
/// So many spare replicas, or more: what is beyond is not told, so that it need not be written again and again.
pub const MANY_SPARE: u32 = 5;
/// Label of a pod whose policy has `maxTerminations`, of whose workload pods were terminated within the window: how many
/// more may be.
pub const TERMINATIONS_LEFT_LABEL: &str = "ringfence.dev/terminations-left";
/// Annotation of a pod that is being terminated, which it bears for the moment until it is gone: rule that was violated,
/// or [`UNHELD`], or [`UNFINISHED`].
pub const TERMINATED_BY_ANNOTATION: &str = "ringfence.dev/terminated-by";
/// Value of [`TERMINATED_BY_ANNOTATION`] of a pod that its isolation did not hold, where the rule is not known any more.
pub const UNHELD: &str = "isolation";
/// The same of a pod that a violation asked to be terminated, of which the enforcer that terminates it does not know more.
pub const UNFINISHED: &str = "violation";
/// Annotation of an enforcer's own pod: a [`NodeReport`](crate::NodeReport).
pub const REPORT_ANNOTATION: &str = "ringfence.dev/report";

/// Reason of the Kubernetes Event of a violation that is only logged.
pub const VIOLATION_REASON: &str = "RulesetViolation";
/// Reason of the Kubernetes Event of a denied operation.
pub const BLOCKED_REASON: &str = "RulesetViolationBlocked";
/// Reason of the Kubernetes Event of an isolation.
pub const ISOLATED_REASON: &str = "PodIsolated";
/// Reason of the Kubernetes Event of the end of an isolation.
pub const RELEASED_REASON: &str = "PodReleased";
/// Reason of the Kubernetes Event of a termination.
pub const TERMINATED_REASON: &str = "PodTerminated";
/// Reason of the Kubernetes Event when a mitigation could not be done as asked.
pub const MITIGATION_FAILED_REASON: &str = "MitigationFailed";
/// Reason of the Kubernetes Event when a limit of the policy held a mitigation back.
pub const MITIGATION_HELD_REASON: &str = "MitigationHeld";

/// Where a name of the contract is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Label of a pod.
    PodLabel,
    /// Annotation of a pod.
    PodAnnotation,
    /// Condition in a pod's status, and readiness gate.
    PodCondition,
    /// Reason of a Kubernetes Event about a pod.
    EventReason,
}

/// Every name of the contract: where, the name, who writes it, what it says.
pub const TABLE: [(Place, &str, &str, &str); 18] = [
    (
        Place::PodLabel,
        "ruleset.ringfence.dev/<name>",
        "webhook",
        "one for each ruleset that governs the pod; the value is the ruleset's generation",
    ),
    (Place::PodLabel, POLICY_LABEL, "webhook", "the policy under which the pod was resolved"),
    (
        Place::PodLabel,
        HASH_LABEL,
        "webhook",
        "hash of the resolved ruleset (rules and mitigations), the first 32 hexadecimal digits of its SHA-256",
    ),
    (Place::PodLabel, ISOLATED_LABEL, "enforcer", "`true` while the pod's network is cut off"),
    (Place::PodAnnotation, ISOLATED_BY_ANNOTATION, "enforcer", "the rule that was violated, or `manual`"),
    (Place::PodAnnotation, ISOLATED_AT_ANNOTATION, "enforcer", "when, as RFC 3339"),
    (
        Place::PodCondition,
        CONNECTED_CONDITION,
        "enforcer",
        "`True` while the pod has its network; only of pods with a readiness gate of this type",
    ),
    (
        Place::PodLabel,
        SPARE_REPLICAS_LABEL,
        "webhook",
        "with `minReadyReplicas`: how many ready pods of its workload may go; `5`: five or more",
    ),
    (
        Place::PodLabel,
        TERMINATIONS_LEFT_LABEL,
        "webhook",
        "with `maxTerminations`, once there was one: how many more pods of its workload may be terminated in the window",
    ),
    (
        Place::PodAnnotation,
        TERMINATED_BY_ANNOTATION,
        "enforcer",
        "the rule that was violated (`isolation`: its isolation did not hold, and the rule is not known any more; \
         `violation`: one asked for it, of which nothing else is known, because the enforcer that had its record ended), for \
         the moment until the pod is gone",
    ),
    (
        Place::PodAnnotation,
        REPORT_ANNOTATION,
        "enforcer",
        "on its own pod: violations by ruleset and failures of the node, as JSON",
    ),
    (Place::EventReason, VIOLATION_REASON, "enforcer", "a rule was violated, mitigation `log`"),
    (Place::EventReason, BLOCKED_REASON, "enforcer", "the operation was denied, or its process killed"),
    (Place::EventReason, ISOLATED_REASON, "enforcer", "the pod was cut off from the network"),
    (Place::EventReason, RELEASED_REASON, "enforcer", "the pod has its network back"),
    (Place::EventReason, TERMINATED_REASON, "enforcer", "the pod's processes were killed; its deletion follows"),
    (Place::EventReason, MITIGATION_FAILED_REASON, "enforcer", "a mitigation could not be done as asked"),
    (
        Place::EventReason,
        MITIGATION_HELD_REASON,
        "enforcer",
        "a limit of the policy held a mitigation back: which limit, and which mitigation",
    ),
];

/// Whether a label or annotation is Ringfence's own, which nobody else may write.
pub fn is_ours(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return false };
    prefix == "ringfence.dev" || prefix.ends_with(".ringfence.dev")
}

/// Whether a pod's labels say that it is cut off.
pub fn is_isolated(labels: &BTreeMap<String, String>) -> bool {
    labels.get(ISOLATED_LABEL).is_some_and(|value| value == ISOLATED)
}

/// The label for a ruleset of this name.
pub fn ruleset_label(name: &str) -> String {
    format!("{RULESET_LABEL_PREFIX}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_name() {
        let document = include_str!("../../docs/cluster.md");
        for (_, name, who, what) in TABLE {
            let row = format!("| `{name}` | {who} | {what} |");
            assert!(document.contains(&row), "docs/cluster.md lacks: {row}");
        }
    }

    #[test]
    fn every_name_is_ours_and_nothing_else_is() {
        for (place, name, ..) in TABLE {
            assert_eq!(is_ours(name), place != Place::EventReason, "{name}");
        }
        for other in ["app", "app.kubernetes.io/name", "ringfence.dev", "ringfence.dev.example/x", "xringfence.dev/a"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
