//! What admission alone can't do: pods that exist already, or whose rulesets, policy, namespace or labels change, get
//! their labels here; so do those whose workload's limits of terminations change; and rulesets and policies get their
//! statuses. For the leader. Nothing is written that is so
//! already.

mod pods;
mod reports;
mod status;
mod watch;
mod workloads;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;

use crate::metrics::Metrics;
use crate::state::State;

/// How fast it may write.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Pods labelled in a second, at most.
    pub labels: NonZeroU32,
    /// Between two looks at the statuses.
    pub statuses: Duration,
}

/// Reconciles for ever.
pub async fn run(client: Client, state: State, pace: Pace, metrics: Arc<Metrics>) {
    pods::Reconciler::new(client, state, pace, metrics).run().await;
}
