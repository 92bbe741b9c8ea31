//! Labels of pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod as Object;
use kube::api::{ObjectMeta, PartialObjectMeta, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use ringfence_api::names::{POLICY_LABEL, RULESET_LABEL_PREFIX};
use ringfence_policy::Labels;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use super::{Pace, status};
use crate::labels::of_governance;
use crate::metrics::Metrics;
use crate::pod::{MIRROR, Pod};
use crate::snapshot::Snapshot;
use crate::state::State;

/// Pods are looked at in portions, so that everything else gets its turn.
const PORTION: usize = 200;
/// Requests at a time.
const AT_ONCE: usize = 8;
/// After a failed write.
const AGAIN: Duration = Duration::from_secs(5);

/// Namespace and name.
type Key = (String, String);

/// What is remembered of a pod: as little as possible, there are many.
struct Seen {
    pod: Pod,
    uid: String,
    version: String,
}

pub(super) struct Reconciler {
    client: Client,
    state: State,
    pace: Pace,
    metrics: Arc<Metrics>,
    snapshot: Arc<Snapshot>,
    pods: HashMap<Key, Seen>,
    /// All pods have been seen once.
    complete: bool,
    listed: BTreeSet<Key>,
    /// To be looked at.
    dirty: BTreeSet<Key>,
    /// To be written.
    wrong: BTreeSet<Key>,
    /// Being written, or waiting to be tried again.
    writing: JoinSet<Key>,
    /// Counts or objects may differ from the statuses.
    statuses: bool,
}

impl Reconciler {
    pub(super) fn new(client: Client, state: State, pace: Pace, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            state,
            pace,
            metrics,
            snapshot: Arc::default(),
            pods: HashMap::new(),
            complete: false,
            listed: BTreeSet::new(),
            dirty: BTreeSet::new(),
            wrong: BTreeSet::new(),
            writing: JoinSet::new(),
            statuses: true,
        }
    }

    pub(super) async fn run(mut self) {
        while !self.state.synced() {
            if !self.state.changed().await {
                return;
            }
        }
        self.snapshot = self.state.current();
        let api: Api<PartialObjectMeta<Object>> = Api::all(self.client.clone());
        // What has ended is not governed any more.
        let config = watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut failing = false;
        let mut turn = tokio::time::interval(Duration::from_secs(1) / self.pace.labels.get());
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = tokio::time::interval(self.pace.statuses);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ready = self.complete && !self.dirty.is_empty();
            tokio::select! {
                biased;
                Some(event) = events.next() => match event {
                    Ok(event) => { failing = false; self.seen(event); }
                    Err(error) if !std::mem::replace(&mut failing, true) => warn!(%error, "cannot watch pods"),
                    Err(_) => {}
                },
                changed = self.state.changed() => {
                    if !changed { return; }
                    self.changed();
                }
                Some(written) = self.writing.join_next() => if let Ok(key) = written { self.dirty.insert(key); },
                _ = look.tick(), if self.complete && self.statuses => {
                    self.statuses = !status::write(&self.client, &self.snapshot, &self.counts(), &self.metrics).await;
                }
                _ = turn.tick(), if !self.wrong.is_empty() && self.writing.len() < AT_ONCE => self.write_one(),
                () = std::future::ready(()), if ready => {
                    self.look();
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn seen(&mut self, event: watcher::Event<PartialObjectMeta<Object>>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(object) => {
                self.listed.insert(key(&object));
                self.put(object);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                self.pods.retain(|key, _| listed.contains(key));
                self.complete = true;
                self.statuses = true;
                debug!(pods = self.pods.len(), "all pods are known");
            }
            watcher::Event::Apply(object) => self.put(object),
            watcher::Event::Delete(object) => {
                self.pods.remove(&key(&object));
                self.statuses = true;
            }
        }
    }

    fn put(&mut self, object: PartialObjectMeta<Object>) {
        let key = key(&object);
        let ObjectMeta { uid, resource_version, labels, annotations, deletion_timestamp, .. } = object.metadata;
        if deletion_timestamp.is_some() {
            self.pods.remove(&key);
            self.statuses = true;
            return;
        }
        let mut annotations = annotations.unwrap_or_default();
        annotations.retain(|key, _| key == MIRROR);
        let pod = Pod {
            name: key.1.clone(),
            without_labels: labels.is_none(),
            labels: labels.unwrap_or_default(),
            annotations,
        };
        let seen = Seen { pod, uid: uid.unwrap_or_default(), version: resource_version.unwrap_or_default() };
        let before = self.pods.insert(key.clone(), seen);
        // Most changes of a pod are of its status.
        if before.is_none_or(|before| before.pod != self.pods[&key].pod) {
            self.statuses = true;
            self.dirty.insert(key);
        }
    }

    fn changed(&mut self) {
        let new = self.state.current();
        let same = Arc::ptr_eq(&new.enforced, &self.snapshot.enforced)
            && Arc::ptr_eq(&new.namespaces, &self.snapshot.namespaces);
        self.snapshot = new;
        self.statuses = true;
        if !same {
            self.dirty = self.pods.keys().cloned().collect();
        }
    }

    /// Looks at some pods.
    fn look(&mut self) {
        for _ in 0..PORTION {
            let Some(key) = self.dirty.pop_first() else { break };
            if self.change(&key).is_some() {
                self.wrong.insert(key);
            } else {
                self.wrong.remove(&key);
            }
        }
    }

    /// The labels of a pod that have to change: null takes one away. None: it is right.
    fn change(&self, key: &Key) -> Option<BTreeMap<String, Value>> {
        let Seen { pod, .. } = self.pods.get(key)?;
        // An unknown namespace comes up a moment later, and then all of its pods are looked at.
        let right = self.snapshot.labels_of(&key.0, pod)?;
        let wrong = of_governance(&pod.labels).filter(|(key, _)| !right.contains_key(*key));
        let mut change: BTreeMap<_, _> = wrong.map(|(key, _)| (key.clone(), Value::Null)).collect();
        let missing = right.iter().filter(|(key, value)| pod.labels.get(*key) != Some(value));
        change.extend(missing.map(|(key, value)| (key.clone(), json!(value))));
        (!change.is_empty()).then_some(change)
    }

    fn write_one(&mut self) {
        let Some(key) = self.wrong.pop_first() else { return };
        let (Some(labels), Some(seen)) = (self.change(&key), self.pods.get(&key)) else { return };
        // Only this very pod, in the version that was seen: a newer one is looked at anyway.
        let patch = json!({"metadata": {"uid": seen.uid, "resourceVersion": seen.version, "labels": labels}});
        let api: Api<Object> = Api::namespaced(self.client.clone(), &key.0);
        let metrics = Arc::clone(&self.metrics);
        self.writing.spawn(async move {
            let patched = api.patch_metadata(&key.1, &PatchParams::default(), &Patch::Merge(patch)).await;
            metrics.write("labels", patched.is_ok());
            match patched {
                Ok(_) => info!(namespace = key.0, pod = key.1, "labelled"),
                // It changed meanwhile, or is gone: the watch says so.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
                Err(error) => {
                    warn!(namespace = key.0, pod = key.1, %error, "cannot label");
                    tokio::time::sleep(AGAIN).await;
                }
            }
            key
        });
    }

    /// How many pods bear a ruleset's or a policy's label.
    fn counts(&self) -> status::Counts {
        let mut counts = status::Counts::default();
        for Seen { pod, .. } in self.pods.values() {
            count(&pod.labels, &mut counts);
        }
        counts
    }
}

fn count(labels: &Labels, counts: &mut status::Counts) {
    if labels.contains_key(POLICY_LABEL) {
        counts.governed += 1;
    }
    for (key, _) in labels.range(RULESET_LABEL_PREFIX.to_owned()..) {
        let Some(name) = key.strip_prefix(RULESET_LABEL_PREFIX) else { break };
        if let Some(count) = counts.rulesets.get_mut(name) {
            *count += 1;
        } else {
            counts.rulesets.insert(name.to_owned(), 1);
        }
    }
}

fn key(object: &PartialObjectMeta<Object>) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}
