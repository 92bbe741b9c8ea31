//! Terminations on this node, so that limits hold before the cluster has heard of them.

use ringfence_containers::Pod;
use ringfence_policy::Standing;
use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// How long the cluster may take to tell how things stand after a termination. If it still has not, then it knows.
const SETTLED: Duration = Duration::from_secs(10);

/// A workload: namespace and name.
type Workload = (String, String);

/// A pod that was terminated.
#[derive(Debug)]
struct Gone {
    uid: String,
    /// The first time.
    at: Instant,
    /// What a pod's labels say once the cluster has counted this one, or less.
    spare: Option<u32>,
    left: Option<u32>,
    /// UIDs of the pods whose labels have said it.
    spare_told: BTreeSet<String>,
    left_told: BTreeSet<String>,
}

/// Pods that were terminated, by workload.
#[derive(Debug, Default)]
pub(super) struct Terminations {
    of: HashMap<Workload, Vec<Gone>>,
}

impl Terminations {
    /// A pod is being terminated, of whose workload that many may be.
    pub(super) fn note(&mut self, pod: &Pod, max: Option<u32>, now: Instant) {
        let (Some(workload), Some(replica)) = (workload(pod), &pod.replica) else { return };
        let gone = self.of.entry(workload).or_default();
        if gone.iter().any(|gone| gone.uid == pod.uid) {
            return;
        }
        let less = |number: Option<u32>, told: fn(&Gone) -> &BTreeSet<String>| {
            let untold = gone.iter().filter(|gone| gone.is_untold(pod, told, now)).count();
            number.map(|number| number.saturating_sub(1 + count(untold)))
        };
        // One that was not ready is not missed.
        let spare = replica.spare.filter(|_| replica.ready);
        let (spare, left) =
            (less(spare, |gone| &gone.spare_told), less(replica.terminations_left.or(max), |gone| &gone.left_told));
        let (spare_told, left_told) = (BTreeSet::new(), BTreeSet::new());
        gone.push(Gone { uid: pod.uid.clone(), at: now, spare, left, spare_told, left_told });
    }

    /// The API server has told a pod's labels.
    pub(super) fn hear(&mut self, pod: &Pod) {
        let (Some(workload), Some(replica)) = (workload(pod), &pod.replica) else { return };
        for gone in self.of.get_mut(&workload).into_iter().flatten() {
            let reached = |told: Option<u32>, expected: Option<u32>| {
                told.zip(expected).is_some_and(|(told, expected)| told <= expected)
            };
            if reached(replica.spare, gone.spare) {
                gone.spare_told.insert(pod.uid.clone());
            }
            if reached(replica.terminations_left, gone.left) {
                gone.left_told.insert(pod.uid.clone());
            }
        }
    }

    /// How things stand with a pod's workload, as to further terminations of it. None: no limit concerns the pod, or it
    /// was terminated already, and is to be again if it is started anew.
    pub(super) fn standing(&self, pod: &Pod, window: Duration, now: Instant) -> Option<Standing> {
        let replica = pod.replica.as_ref()?;
        let gone = workload(pod).and_then(|workload| self.of.get(&workload)).map_or(&[][..], Vec::as_slice);
        if gone.iter().any(|gone| gone.uid == pod.uid) {
            return None;
        }
        let number = |of: &dyn Fn(&Gone) -> bool| count(gone.iter().filter(|gone| of(gone)).count());
        let missed = number(&|gone| gone.spare.is_some() && gone.is_untold(pod, |gone| &gone.spare_told, now));
        let untold = number(&|gone| gone.is_untold(pod, |gone| &gone.left_told, now));
        Some(Standing {
            ready_replica: replica.ready,
            spare: replica.spare.map(|spare| spare.saturating_sub(missed)),
            left: replica.terminations_left.map(|left| left.saturating_sub(untold)),
            in_window: number(&|gone| now.saturating_duration_since(gone.at) < window),
        })
    }

    /// Forgets what counts no longer. Whether there is anything that does.
    pub(super) fn count(&mut self, window: Duration, now: Instant) -> bool {
        let counts = |at: &Instant| now.saturating_duration_since(*at) < window.max(SETTLED);
        let any = !self.of.is_empty();
        self.of.retain(|_, gone| {
            gone.retain(|gone| counts(&gone.at));
            !gone.is_empty()
        });
        // What has just stopped to count makes a difference too.
        any
    }
}

impl Gone {
    /// Whether a pod's labels may not consider it yet.
    fn is_untold(&self, pod: &Pod, told: fn(&Self) -> &BTreeSet<String>, now: Instant) -> bool {
        !told(self).contains(&pod.uid) && now.saturating_duration_since(self.at) < SETTLED
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn workload(pod: &Pod) -> Option<Workload> {
    pod.replica.as_ref().map(|replica| (pod.namespace.clone(), replica.workload.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_containers::Replica;
    use ringfence_policy::{Limit, Limits};

    fn pod(uid: &str, spare: Option<u32>, left: Option<u32>) -> Pod {
        let replica = Replica { workload: "Deployment/web".to_owned(), ready: true, spare, terminations_left: left };
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
        let [first, second] = ["1", "2"].map(|uid| pod(uid, Some(1), None));
        assert_eq!(hold(&terminations, &first, Duration::ZERO), None);
        terminations.note(&first, None, start);
        assert_eq!(hold(&terminations, &second, Duration::ZERO), Some(Limit::MinReadyReplicas));
        assert_eq!(hold(&terminations, &first, Duration::ZERO), None, "it is ended again if it is started again");
        let mut other = second.clone();
        other.replica.as_mut().unwrap().workload = "Deployment/other".to_owned();
        assert_eq!(hold(&terminations, &other, Duration::ZERO), None);
        assert_eq!(hold(&terminations, &second, SETTLED), None, "its successor is ready, and the cluster says so");
        // It says so sooner.
        let none = pod("2", Some(0), None);
        terminations.hear(&none);
        assert_eq!(hold(&terminations, &none, Duration::ZERO), Some(Limit::MinReadyReplicas));
        terminations.hear(&second);
        assert_eq!(hold(&terminations, &second, Duration::ZERO), None);
        let third = pod("3", Some(1), None);
        assert_eq!(hold(&terminations, &third, Duration::ZERO), Some(Limit::MinReadyReplicas), "of it it has not");
    }

    #[test]
    fn several_at_once_are_as_many_as_may_go() {
        let limits = Limits { min_ready_replicas: 1, max_terminations: Some(3), ..Limits::default() };
        let (now, mut terminations) = (Instant::now(), Terminations::default());
        let mut ended = 0;
        for uid in ["1", "2", "3", "4"] {
            let pod = pod(uid, Some(2), None);
            let standing = terminations.standing(&pod, WINDOW, now).unwrap();
            if limits.hold(standing).is_none() {
                terminations.note(&pod, limits.max_terminations, now);
                ended += 1;
            }
        }
        assert_eq!(ended, 2);
        // The cluster has heard of one, and then of both.
        for (spare, expected) in [(1, Some(0)), (0, Some(0)), (2, Some(2))] {
            let pod = pod("3", Some(spare), None);
            terminations.hear(&pod);
            assert_eq!(terminations.standing(&pod, WINDOW, now).unwrap().spare, expected, "{spare}");
        }
    }

    #[test]
    fn so_many_within_the_window_and_no_more() {
        let limits = Limits { max_terminations: Some(2), window: 60, ..Limits::default() };
        let (start, mut terminations) = (Instant::now(), Terminations::default());
        let hold = |terminations: &Terminations, left: Option<u32>, at: Duration| {
            let standing = terminations.standing(&pod("9", None, left), WINDOW, start + at);
            standing.and_then(|standing| limits.hold(standing))
        };
        for (uid, at, left) in [("1", 0, None), ("1", 1, None), ("2", 2, Some(1))] {
            let (pod, at) = (pod(uid, None, left), Duration::from_secs(at));
            terminations.hear(&pod);
            assert_eq!(limits.hold(terminations.standing(&pod, WINDOW, start + at).unwrap_or_default()), None, "{uid}");
            terminations.note(&pod, limits.max_terminations, start + at);
        }
        assert_eq!(hold(&terminations, None, Duration::from_secs(59)), Some(Limit::MaxTerminations));
        assert_eq!(hold(&terminations, None, Duration::from_mins(1)), None, "the first one is out of the window");
        assert_eq!(hold(&terminations, Some(0), Duration::from_mins(1)), Some(Limit::MaxTerminations), "on others");
        assert!(terminations.count(WINDOW, start + Duration::from_secs(61)));
        assert!(terminations.count(WINDOW, start + Duration::from_secs(62)), "there was one until now");
        assert!(!terminations.count(WINDOW, start + Duration::from_secs(62)));
    }

    #[test]
    fn other_nodes_and_this_one_add_up() {
        let limits = Limits { max_terminations: Some(3), ..Limits::default() };
        let (now, mut terminations) = (Instant::now(), Terminations::default());
        // Two on other nodes, then one here.
        terminations.note(&pod("1", None, Some(1)), limits.max_terminations, now);
        let before = pod("2", None, Some(1));
        let standing = terminations.standing(&before, WINDOW, now).unwrap();
        assert_eq!((standing.left, limits.hold(standing)), (Some(0), Some(Limit::MaxTerminations)));
    }
}
