//! What admission alone can't do: pods that exist already, or whose rulesets, policy, namespace or labels change, get
//! their labels here; so do those whose workload's limits of terminations change; and rulesets and policies get their
//! statuses. For the leader. Nothing is written that is so already.

mod leftovers;
mod pods;
mod reports;
mod shared;
mod status;
mod watch;
mod workloads;

pub use leftovers::IsolatedPods;

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

/// Reconciles for ever. `without` enforcers there is more to do: what they have left on pods.
pub async fn run(client: Client, state: State, pace: Pace, without: Option<IsolatedPods>, metrics: Arc<Metrics>) {
    let tidy = async {
        match without {
            Some(isolated) => leftovers::tidy(client.clone(), isolated, pace, Arc::clone(&metrics)).await,
            None => std::future::pending().await,
        }
    };
    tokio::join!(pods::Reconciler::new(client.clone(), state, pace, Arc::clone(&metrics)).run(), tidy);
}
