//! The labels that a pod has to bear, from what governs it.

use ringfence_api::names::{
    HASH_LABEL, ISOLATED_AT_ANNOTATION, ISOLATED_BY_ANNOTATION, ISOLATED_LABEL, POLICY_LABEL, SPARE_REPLICAS_LABEL,
    TERMINATED_BY_ANNOTATION, TERMINATIONS_LEFT_LABEL, is_ours, ruleset_label,
};
use ringfence_policy::{Enforced, Labels, PodFacts, Policy, Ruleset};

/// What has to be on a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Governance {
    /// Our labels.
    pub labels: Labels,
    /// A violation may end it.
    pub terminates: bool,
}

/// Our labels of a pod: one for each ruleset that governs it, the policy, and the hash of the resolved ruleset. None for
/// a pod that is not governed at all. A pod that no ruleset selects is governed: by nothing, which its hash says.
pub fn governing(enforced: &Enforced, pod: PodFacts<'_>) -> Governance {
    let (Ok((rulesets, effect)), Some(policy)) = (enforced.governing(pod), enforced.policy()) else {
        return Governance::default();
    };
    let label = |ruleset: &Ruleset| (ruleset_label(&ruleset.name), ruleset.generation.to_string());
    let mut labels: Labels = rulesets.into_iter().map(label).collect();
    labels.insert(POLICY_LABEL.to_owned(), of_policy(policy).to_owned());
    labels.insert(HASH_LABEL.to_owned(), effect.hash().label());
    Governance { labels, terminates: effect.terminates() }
}

/// The name of a policy, as far as it fits a label's value.
pub fn of_policy(policy: &Policy) -> &str {
    policy.name.get(..63).map_or(policy.name.as_str(), |start| start.trim_end_matches(['-', '.']))
}

/// Those that are not ours.
pub fn foreign(labels: &Labels) -> Labels {
    labels.iter().filter(|(key, _)| !is_ours(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Those of ours that say what governs a pod and within which limits, not what was done to it.
pub fn of_governance(labels: &Labels) -> impl Iterator<Item = (&String, &String)> {
    labels.iter().filter(|(key, _)| is_ours(key) && !of_mitigation(key))
}

/// Whether a label or annotation says that a pod is isolated, when, and why.
pub fn of_isolation(key: &str) -> bool {
    [ISOLATED_LABEL, ISOLATED_BY_ANNOTATION, ISOLATED_AT_ANNOTATION].contains(&key)
}

/// Whether a label or annotation says that a pod is isolated or being terminated: the enforcer writes it.
pub fn of_mitigation(key: &str) -> bool {
    of_isolation(key) || key == TERMINATED_BY_ANNOTATION
}

/// Whether a label says how many more pods of a workload may go.
pub fn of_limits(key: &str) -> bool {
    [SPARE_REPLICAS_LABEL, TERMINATIONS_LEFT_LABEL].contains(&key)
}
