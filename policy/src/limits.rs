//! Limits that keep an enforcer from becoming an outage: what is terminated at all, and how many of a workload.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A limit of the policy that can hold a mitigation back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Limit {
    /// `maxMitigation`; with `log` it is the dry run.
    MaxMitigation,
    /// `limits.maxTerminations`.
    MaxTerminations,
    /// `limits.minReadyReplicas`.
    MinReadyReplicas,
}

impl Limit {
    /// The policy's field.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxMitigation => "maxMitigation",
            Self::MaxTerminations => "maxTerminations",
            Self::MinReadyReplicas => "minReadyReplicas",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Limits of terminations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pods of one workload that may be terminated within the window; none: any number.
    pub max_terminations: Option<u32>,
    /// The window, in seconds.
    pub window: u32,
    /// Ready pods of a workload that are left; 0: no limit.
    pub min_ready_replicas: u32,
}

/// The window where a policy does not say one, in seconds.
pub const TERMINATION_WINDOW: u32 = 600;

impl Default for Limits {
    fn default() -> Self {
        Self { max_terminations: None, window: TERMINATION_WINDOW, min_ready_replicas: 0 }
    }
}

/// How things stand with a pod's workload. What the cluster knows of it was told ahead; what the node did itself meanwhile
/// is taken off already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The pod is ready, and its workload keeps a number of ready pods: it would be missed.
    pub ready_replica: bool,
    /// How many ready pods may go, as the cluster knows; none: it has not said yet.
    pub spare: Option<u32>,
    /// How many pods may be terminated within the window, as the cluster knows; none: as many as the policy says.
    pub left: Option<u32>,
    /// Other pods of the workload that this node alone has terminated within the window.
    pub in_window: u32,
}

impl Limits {
    /// Whether there are any.
    pub fn are_set(&self) -> bool {
        self.max_terminations.is_some() || self.min_ready_replicas > 0
    }

    /// The limit that keeps the pod from being terminated.
    pub fn hold(&self, standing: Standing) -> Option<Limit> {
        let Standing { ready_replica, spare, left, in_window } = standing;
        if self.min_ready_replicas > 0 && ready_replica && spare.unwrap_or(0) == 0 {
            return Some(Limit::MinReadyReplicas);
        }
        let max = self.max_terminations?;
        (in_window >= max || left == Some(0)).then_some(Limit::MaxTerminations)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(max_terminations: Option<u32>, min_ready_replicas: u32) -> Limits {
        Limits { max_terminations, min_ready_replicas, ..Limits::default() }
    }

    #[test]
    fn a_ready_pod_stays_unless_there_are_spare_ones() {
        let limits = limits(None, 1);
        let ready = Standing { ready_replica: true, ..Standing::default() };
        assert_eq!(limits.hold(ready), Some(Limit::MinReadyReplicas), "the cluster has not said yet");
        assert_eq!(limits.hold(Standing { spare: Some(0), ..ready }), Some(Limit::MinReadyReplicas));
        assert_eq!(limits.hold(Standing { spare: Some(1), ..ready }), None);
        let missed_by_nobody = Standing { ready_replica: false, ..ready };
        assert_eq!(limits.hold(missed_by_nobody), None);
    }

    #[test]
    fn terminations_of_this_node_and_of_the_others_count() {
        let limits = limits(Some(2), 0);
        let none = Standing::default();
        assert_eq!(limits.hold(none), None);
        assert_eq!(limits.hold(Standing { in_window: 1, ..none }), None);
        assert_eq!(limits.hold(Standing { in_window: 2, ..none }), Some(Limit::MaxTerminations));
        assert_eq!(limits.hold(Standing { left: Some(1), ..none }), None);
        assert_eq!(limits.hold(Standing { left: Some(0), ..none }), Some(Limit::MaxTerminations));
    }

    proptest! {
        /// More terminations, fewer spare pods or fewer that are left never free a pod that was held.
        #[test]
        fn worse_never_frees(
            max in proptest::option::of(1u32..4), min in 0u32..3, ready_replica: bool,
            spare in proptest::option::of(0u32..4), left in proptest::option::of(0u32..4),
            in_window in 0u32..4,
        ) {
            let limits = limits(max, min);
            let standing = Standing { ready_replica, spare, left, in_window };
            prop_assert!(limits.are_set() || limits.hold(standing).is_none());
            if limits.hold(standing).is_some() {
                let less = |number: Option<u32>| number.map(|number| number.saturating_sub(1));
                for worse in [
                    Standing { in_window: in_window + 1, ..standing },
                    Standing { spare: less(spare), ..standing },
                    Standing { left: less(left), ..standing },
                ] {
                    prop_assert!(limits.hold(worse).is_some(), "{worse:?}");
                }
            }
        }
    }
}
