//! How many more pods of a workload may be terminated. Nodes learn it from their pods' labels, before they need it.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use ringfence_api::Workload;
use ringfence_api::names::{MANY_SPARE, SPARE_REPLICAS_LABEL, TERMINATIONS_LEFT_LABEL};
use ringfence_policy::{Labels, Limits};

use super::pods::Key;

/// Namespace and workload.
pub(super) type Name = (String, Workload);

/// All workloads that have pods, or had some that were terminated.
#[derive(Default)]
pub(super) struct Workloads(HashMap<Name, State>);

#[derive(Default)]
struct State {
    pods: BTreeSet<Key>,
    /// Those that are ready, and neither isolated nor about to go.
    serving: BTreeSet<Key>,
    terminated: Vec<Instant>,
}

impl Workloads {
    /// A pod is there. Whether that changes how its workload stands.
    pub(super) fn put(&mut self, name: &Name, pod: &Key, serves: bool) -> bool {
        if !self.0.contains_key(name) {
            self.0.insert(name.clone(), State::default());
        }
        let Some(state) = self.0.get_mut(name) else { return false };
        state.pods.insert(pod.clone());
        if serves { state.serving.insert(pod.clone()) } else { state.serving.remove(pod) }
    }

    /// A pod is gone. Whether that changes how its workload stands.
    pub(super) fn remove(&mut self, name: &Name, pod: &Key) -> bool {
        let Some(state) = self.0.get_mut(name) else { return false };
        state.pods.remove(pod);
        let served = state.serving.remove(pod);
        if state.pods.is_empty() && state.terminated.is_empty() {
            self.0.remove(name);
        }
        served
    }

    /// A pod was terminated.
    pub(super) fn terminated(&mut self, name: &Name, now: Instant) {
        self.0.entry(name.clone()).or_default().terminated.push(now);
    }

    /// So many were terminated, as an earlier leader had told. When is not known: they count from now on.
    pub(super) fn restore(&mut self, name: &Name, terminations: u32, now: Instant) {
        let terminated = &mut self.0.entry(name.clone()).or_default().terminated;
        terminated.resize(terminated.len().max(terminations as usize), now);
    }

    /// Forgets terminations out of the window. The pods of the workloads that had some.
    pub(super) fn expire(&mut self, window: Duration, now: Instant) -> Vec<Key> {
        let mut pods = Vec::new();
        self.0.retain(|_, state| {
            let before = state.terminated.len();
            state.terminated.retain(|at| now.saturating_duration_since(*at) < window);
            if state.terminated.len() != before {
                pods.extend(state.pods.iter().cloned());
            }
            !(state.pods.is_empty() && state.terminated.is_empty())
        });
        pods
    }

    /// The pods of a workload.
    pub(super) fn pods(&self, name: &Name) -> impl Iterator<Item = &Key> {
        self.0.get(name).into_iter().flat_map(|state| &state.pods)
    }

    /// The labels that tell how it stands.
    pub(super) fn labels(&self, name: &Name, limits: &Limits) -> Labels {
        let mut labels = Labels::new();
        let Some(state) = self.0.get(name) else { return labels };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        if limits.min_ready_replicas > 0 && name.1.keeps_replicas() {
            let spare = count(state.serving.len()).saturating_sub(limits.min_ready_replicas).min(MANY_SPARE);
            labels.insert(SPARE_REPLICAS_LABEL.to_owned(), spare.to_string());
        }
        if let Some(max) = limits.max_terminations
            && !state.terminated.is_empty()
        {
            let left = max.saturating_sub(count(state.terminated.len()));
            labels.insert(TERMINATIONS_LEFT_LABEL.to_owned(), left.to_string());
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(kind: &str) -> Name {
        let owner = json!({"apiVersion": "v1", "kind": kind, "name": "web", "uid": "u", "controller": true});
        let pod = serde_json::from_value(json!({"ownerReferences": [owner]})).unwrap();
        ("shop".to_owned(), Workload::of(&pod).unwrap())
    }

    fn pod(number: u32) -> Key {
        ("shop".to_owned(), format!("web-{number}"))
    }

    fn told(workloads: &Workloads, name: &Name, limits: &Limits) -> String {
        let labels = workloads.labels(name, limits);
        labels
            .iter()
            .map(|(key, value)| format!("{} {value}", key.rsplit('/').next().unwrap()))
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn ready_pods_beyond_the_least_number_are_spare() {
        let limits = Limits { min_ready_replicas: 2, ..Limits::default() };
        let (web, mut workloads) = (name("StatefulSet"), Workloads::default());
        for number in 0..3 {
            assert!(workloads.put(&web, &pod(number), true));
        }
        assert!(!workloads.put(&web, &pod(0), true), "no news");
        assert!(!workloads.put(&web, &pod(9), false), "it does not serve yet");
        assert_eq!(told(&workloads, &web, &limits), "spare-replicas 1");
        assert!(workloads.put(&web, &pod(0), false), "isolated");
        assert_eq!(told(&workloads, &web, &limits), "spare-replicas 0");
        assert!(workloads.remove(&web, &pod(1)));
        assert_eq!(told(&workloads, &web, &limits), "spare-replicas 0");
        for number in 10..20 {
            workloads.put(&web, &pod(number), true);
        }
        assert_eq!(told(&workloads, &web, &limits), "spare-replicas 5", "or more");
        let job = name("Job");
        workloads.put(&job, &pod(0), true);
        assert_eq!(told(&workloads, &job, &limits), "", "its pods come to an end");
    }

    #[test]
    fn terminations_count_until_the_window_is_over() {
        let limits = Limits { max_terminations: Some(2), window: 60, ..Limits::default() };
        let window = Duration::from_mins(1);
        let (web, mut workloads, start) = (name("DaemonSet"), Workloads::default(), Instant::now());
        workloads.put(&web, &pod(0), true);
        assert_eq!(told(&workloads, &web, &limits), "");
        workloads.terminated(&web, start);
        assert_eq!(told(&workloads, &web, &limits), "terminations-left 1");
        workloads.terminated(&web, start + Duration::from_secs(30));
        workloads.terminated(&web, start + Duration::from_secs(30));
        assert_eq!(told(&workloads, &web, &limits), "terminations-left 0");
        assert!(workloads.expire(window, start + Duration::from_secs(59)).is_empty());
        assert_eq!(workloads.expire(window, start + Duration::from_mins(1)), [pod(0)]);
        assert_eq!(told(&workloads, &web, &limits), "terminations-left 0");
        workloads.remove(&web, &pod(0));
        assert!(workloads.expire(window, start + Duration::from_secs(90)).is_empty());
        assert!(workloads.0.is_empty(), "nothing is kept of what is gone");
    }

    #[test]
    fn another_leader_goes_on_from_what_was_told() {
        let limits = Limits { max_terminations: Some(3), ..Limits::default() };
        let (web, mut workloads, now) = (name("DaemonSet"), Workloads::default(), Instant::now());
        workloads.put(&web, &pod(0), true);
        workloads.restore(&web, 2, now);
        workloads.restore(&web, 2, now);
        assert_eq!(told(&workloads, &web, &limits), "terminations-left 1");
    }
}
