//! Terminations on this node, so that limits hold before the cluster has heard of them.

use ringfence_containers::Pod;
use ringfence_policy::Standing;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How long the cluster may take to tell how things stand after a termination. Meanwhile what it told before counts less
/// that termination, whether it knew of it or not.
const SETTLED: Duration = Duration::from_secs(10);

/// A workload: namespace and name.
type Workload = (String, String);

/// Pods that were terminated, by workload.
#[derive(Debug, Default)]
pub(super) struct Terminations {
    /// UID of the pod, and when it was terminated the first time.
    of: HashMap<Workload, Vec<(String, Instant)>>,
}

impl Terminations {
    /// A pod is being terminated.
    pub(super) fn note(&mut self, pod: &Pod, now: Instant) {
        let Some(workload) = workload(pod) else { return };
        let terminated = self.of.entry(workload).or_default();
        if terminated.iter().all(|(uid, _)| *uid != pod.uid) {
            terminated.push((pod.uid.clone(), now));
        }
    }

    /// How things stand with a pod's workload, as to further terminations of it. None: no limit concerns the pod, or it
    /// was terminated already, and is to be again if it is started anew.
    pub(super) fn standing(&self, pod: &Pod, window: Duration, now: Instant) -> Option<Standing> {
        let replica = pod.replica.as_ref()?;
        let terminated = workload(pod).and_then(|workload| self.of.get(&workload)).map_or(&[][..], Vec::as_slice);
        if terminated.iter().any(|(uid, _)| *uid == pod.uid) {
            return None;
        }
        let within = |time: Duration| {
            let count = terminated.iter().filter(|(_, at)| now.saturating_duration_since(*at) < time).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        Some(Standing {
            ready_replica: replica.ready,
            spare: replica.spare,
            left: replica.terminations_left,
            just_now: within(SETTLED),
            in_window: within(window),
        })
    }

    /// Forgets what counts no longer. Whether there is anything that does.
    pub(super) fn count(&mut self, window: Duration, now: Instant) -> bool {
        let counts = |at: &Instant| now.saturating_duration_since(*at) < window.max(SETTLED);
        let any = !self.of.is_empty();
        self.of.retain(|_, terminated| {
            terminated.retain(|(_, at)| counts(at));
            !terminated.is_empty()
        });
        // What has just stopped to count makes a difference too.
        any
    }
}

fn workload(pod: &Pod) -> Option<Workload> {
    pod.replica.as_ref().map(|replica| (pod.namespace.clone(), replica.workload.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_containers::Replica;
    use ringfence_policy::{Limit, Limits};

    fn pod(uid: &str, workload: &str, spare: Option<u32>) -> Pod {
        let replica = Replica { workload: workload.to_owned(), ready: true, spare, terminations_left: None };
        Pod { namespace: "shop".to_owned(), uid: uid.to_owned(), replica: Some(replica), ..Pod::default() }
    }

    const WINDOW: Duration = Duration::from_mins(1);

    #[test]
    fn the_second_one_stays_before_the_cluster_has_heard_of_the_first() {
        let limits = Limits { min_ready_replicas: 1, ..Limits::default() };
        let (start, mut terminations) = (Instant::now(), Terminations::default());
        let hold = |terminations: &Terminations, pod: &Pod, at: Duration| {
            terminations.standing(pod, WINDOW, start + at).and_then(|standing| limits.hold(standing))
        };
        let [first, second] = ["1", "2"].map(|uid| pod(uid, "Deployment/web", Some(1)));
        assert_eq!(hold(&terminations, &first, Duration::ZERO), None);
        terminations.note(&first, start);
        assert_eq!(hold(&terminations, &second, Duration::ZERO), Some(Limit::MinReadyReplicas));
        assert_eq!(hold(&terminations, &first, Duration::ZERO), None, "it is ended again if it is started again");
        assert_eq!(hold(&terminations, &pod("3", "Deployment/other", Some(1)), Duration::ZERO), None);
        // Its successor is ready, and the cluster says so.
        assert_eq!(hold(&terminations, &second, SETTLED), None);
    }

    #[test]
    fn so_many_within_the_window_and_no_more() {
        let limits = Limits { max_terminations: Some(2), window: 60, ..Limits::default() };
        let (start, mut terminations) = (Instant::now(), Terminations::default());
        let hold = |terminations: &Terminations, at: Duration| {
            let standing = terminations.standing(&pod("9", "Job/x", None), WINDOW, start + at);
            standing.and_then(|standing| limits.hold(standing))
        };
        for (uid, at) in [("1", 0), ("1", 1), ("2", 30)] {
            assert_eq!(hold(&terminations, Duration::from_secs(at)), None);
            terminations.note(&pod(uid, "Job/x", None), start + Duration::from_secs(at));
        }
        assert_eq!(hold(&terminations, Duration::from_secs(59)), Some(Limit::MaxTerminations));
        assert_eq!(hold(&terminations, Duration::from_secs(60)), None, "the first one is out of the window");
        assert!(terminations.count(WINDOW, start + Duration::from_secs(89)));
        assert!(terminations.count(WINDOW, start + Duration::from_secs(90)), "there was one until now");
        assert!(!terminations.count(WINDOW, start + Duration::from_secs(90)));
    }
}
