//! Labels of pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod as Object;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use ringfence_api::names::{
    POLICY_LABEL, REPORT_ANNOTATION, RULESET_LABEL_PREFIX, TERMINATED_BY_ANNOTATION, TERMINATIONS_LEFT_LABEL,
    is_isolated,
};
use ringfence_api::{NodeReport, Workload};
use ringfence_policy::{Labels, Limits};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use super::shared::Shared;
use super::watch::{self, Shown};
use super::workloads::{Name, Workloads};
use super::{Pace, status};
use crate::labels::{of_governance, of_limits};
use crate::metrics::Metrics;
use crate::pod::MIRROR;
use crate::snapshot::Snapshot;
use crate::state::State;

/// Pods are looked at in portions, so that everything else gets its turn.
const PORTION: usize = 200;
/// Requests at a time.
const AT_ONCE: usize = 8;
/// After a failed write.
const AGAIN: Duration = Duration::from_secs(5);

/// Namespace and name.
pub(super) type Key = (String, String);

/// What is remembered of a pod: as little as possible, there are many.
struct Seen {
    labels: Arc<Labels>,
    /// It comes from a file of its node.
    is_static: bool,
    uid: Box<str>,
    version: Box<str>,
    workload: Option<Arc<Name>>,
    /// It is ready, and neither isolated nor being terminated.
    serves: bool,
    terminated: bool,
    /// Of an enforcer's own pod.
    report: Option<Box<NodeReport>>,
}

impl Seen {
    /// From its object, which `own_namespace` may be that of.
    fn new(key: &Key, metadata: ObjectMeta, ready: bool, own_namespace: &str, common: &mut Common) -> Self {
        let workload = Workload::of(&metadata).map(|workload| common.workloads.keep((key.0.clone(), workload)));
        let ObjectMeta { uid, resource_version, labels, annotations, .. } = metadata;
        let (labels, annotations) = (labels.unwrap_or_default(), annotations.unwrap_or_default());
        let report = annotations.get(REPORT_ANNOTATION).filter(|_| key.0 == own_namespace);
        let report = report.and_then(|text| serde_json::from_str(text).ok());
        let terminated = annotations.contains_key(TERMINATED_BY_ANNOTATION);
        let isolated = is_isolated(&labels);
        Self {
            labels: common.labels.keep(labels),
            is_static: annotations.contains_key(MIRROR),
            uid: uid.unwrap_or_default().into(),
            version: resource_version.unwrap_or_default().into(),
            workload,
            serves: ready && !isolated && !terminated,
            terminated,
            report,
        }
    }
}

/// What pods have in common.
#[derive(Default)]
struct Common {
    labels: Shared<Labels>,
    workloads: Shared<Name>,
}

impl Common {
    /// A pod is about to be seen like this no longer.
    fn release(&mut self, seen: &Seen) {
        self.labels.release(&seen.labels);
        if let Some(workload) = &seen.workload {
            self.workloads.release(workload);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Haste {
    Limits,
    Other,
}

pub(super) struct Reconciler {
    client: Client,
    state: State,
    pace: Pace,
    metrics: Arc<Metrics>,
    snapshot: Arc<Snapshot>,
    pods: HashMap<Key, Seen>,
    common: Common,
    /// All pods have been seen once.
    complete: bool,
    listed: BTreeSet<Key>,
    /// Empty while no limit is set.
    workloads: Workloads,
    /// To be looked at.
    dirty: BTreeSet<Key>,
    /// To be written. First those where limits change: the next violation may not wait long.
    wrong: BTreeSet<(Haste, Key)>,
    /// Being written, or waiting to be tried again.
    writing: JoinSet<Key>,
    /// Counts or objects may differ from the statuses.
    statuses: bool,
    writer: status::Writer,
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
            common: Common::default(),
            complete: false,
            listed: BTreeSet::new(),
            workloads: Workloads::default(),
            dirty: BTreeSet::new(),
            wrong: BTreeSet::new(),
            writing: JoinSet::new(),
            statuses: true,
            writer: status::Writer::default(),
        }
    }

    pub(super) async fn run(mut self) {
        while !self.state.synced() {
            if !self.state.changed().await {
                return;
            }
        }
        self.snapshot = self.state.current();
        let mut with_status = self.needs_status();
        let mut events = watch::pods(self.client.clone(), with_status);
        let mut failing = false;
        let mut turn = tokio::time::interval(Duration::from_secs(1) / self.pace.labels.get());
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = tokio::time::interval(self.pace.statuses);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                    if with_status != self.needs_status() {
                        with_status = !with_status;
                        // Nothing is looked at until all are known in the new way.
                        self.complete = false;
                        events = watch::pods(self.client.clone(), with_status);
                    }
                }
                Some(written) = self.writing.join_next() => if let Ok(key) = written { self.dirty.insert(key); },
                _ = look.tick(), if self.complete && self.statuses => {
                    let counts = counts(&self.pods);
                    let (client, pause) = (&self.client, self.pace.statuses);
                    self.statuses =
                        !self.writer.write(client, &self.snapshot, &counts, pause, &self.metrics).await;
                }
                _ = second.tick(), if self.complete && self.limits().is_some() => self.expire(),
                _ = turn.tick(), if !self.wrong.is_empty() && self.writing.len() < AT_ONCE => self.write_one(),
                () = std::future::ready(()), if ready => {
                    self.look();
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// The limits of terminations, if the policy has any.
    fn limits(&self) -> Option<Limits> {
        self.snapshot.enforced.policy().map(|policy| policy.limits).filter(Limits::are_set)
    }

    fn needs_status(&self) -> bool {
        self.limits().is_some_and(|limits| limits.min_ready_replicas > 0)
    }

    fn seen(&mut self, event: watcher::Event<Shown>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(shown) => {
                self.listed.insert(key(&shown.metadata));
                self.put(shown);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let gone: Vec<Key> = self.pods.keys().filter(|key| !listed.contains(*key)).cloned().collect();
                for key in gone {
                    self.remove(&key);
                }
                if !std::mem::replace(&mut self.complete, true) {
                    self.restore();
                }
                self.statuses = true;
                debug!(pods = self.pods.len(), "all pods are known");
            }
            watcher::Event::Apply(shown) => self.put(shown),
            watcher::Event::Delete(shown) => {
                let key = key(&shown.metadata);
                self.count_terminated(&key, &shown.metadata);
                self.remove(&key);
            }
        }
    }

    fn put(&mut self, shown: Shown) {
        let Shown { metadata, ready } = shown;
        let key = key(&metadata);
        if metadata.deletion_timestamp.is_some() {
            self.count_terminated(&key, &metadata);
            self.remove(&key);
            return;
        }
        let own_namespace = self.snapshot.enforced.own_namespace();
        let seen = Seen::new(&key, metadata, ready, own_namespace, &mut self.common);
        let before = self.pods.get(&key);
        // Most changes of a pod are of its status.
        let same = before.is_some_and(|before| (&before.labels, before.is_static) == (&seen.labels, seen.is_static));
        self.statuses |= !same || before.is_some_and(|before| before.report != seen.report);
        let newly_terminated = seen.terminated && before.is_none_or(|before| !before.terminated);
        let elsewhere =
            before.and_then(|before| before.workload.clone()).filter(|name| Some(name) != seen.workload.as_ref());
        if let Some(name) = elsewhere {
            self.leave(&name, &key);
        }
        if let Some(name) = &seen.workload
            && self.limits().is_some()
        {
            let mut changed = self.workloads.put(name, &key, seen.serves);
            if newly_terminated {
                self.workloads.terminated(name, Instant::now());
                changed = true;
            }
            if changed {
                self.dirty.extend(self.workloads.pods(name).cloned());
            }
        }
        if let Some(before) = self.pods.insert(key.clone(), seen) {
            self.common.release(&before);
        }
        if !same {
            self.dirty.insert(key);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(seen) = self.pods.remove(key) {
            if let Some(name) = &seen.workload {
                self.leave(name, key);
            }
            self.common.release(&seen);
        }
        self.statuses = true;
    }

    /// A pod belongs to a workload no longer.
    fn leave(&mut self, name: &Name, key: &Key) {
        if self.workloads.remove(name, key) {
            self.dirty.extend(self.workloads.pods(name).cloned());
        }
    }

    /// A pod that is going may have been terminated, which is seen only now.
    fn count_terminated(&mut self, key: &Key, metadata: &ObjectMeta) {
        let marked = metadata.annotations.as_ref().is_some_and(|map| map.contains_key(TERMINATED_BY_ANNOTATION));
        if !marked || self.limits().is_none() {
            return;
        }
        if let Some(Seen { workload: Some(name), terminated: terminated @ false, .. }) = self.pods.get_mut(key) {
            *terminated = true;
            self.workloads.terminated(name, Instant::now());
            self.dirty.extend(self.workloads.pods(name).cloned());
        }
    }

    /// Terminations that an earlier leader counted are on the pods' labels.
    fn restore(&mut self) {
        let Some(max) = self.limits().and_then(|limits| limits.max_terminations) else { return };
        for Seen { labels, workload, .. } in self.pods.values() {
            let left = labels.get(TERMINATIONS_LEFT_LABEL).and_then(|left| left.parse::<u32>().ok());
            if let (Some(left), Some(name)) = (left, workload) {
                self.workloads.restore(name, max.saturating_sub(left), Instant::now());
            }
        }
    }

    /// Terminations that are long ago count no longer.
    fn expire(&mut self) {
        let Some(limits) = self.limits() else { return };
        let window = Duration::from_secs(limits.window.into());
        self.dirty.extend(self.workloads.expire(window, Instant::now()));
    }

    fn changed(&mut self) {
        let new = self.state.current();
        let same = Arc::ptr_eq(&new.enforced, &self.snapshot.enforced)
            && Arc::ptr_eq(&new.namespaces, &self.snapshot.namespaces);
        let limited = self.limits().is_some();
        self.snapshot = new;
        self.statuses = true;
        if same {
            return;
        }
        self.dirty = self.pods.keys().cloned().collect();
        if limited != self.limits().is_some() {
            self.workloads = Workloads::default();
            if !limited {
                for (key, Seen { workload, serves, .. }) in &self.pods {
                    if let Some(name) = workload {
                        self.workloads.put(name, key, *serves);
                    }
                }
            }
        }
    }

    /// Looks at some pods.
    fn look(&mut self) {
        for _ in 0..PORTION {
            let Some(key) = self.dirty.pop_first() else { break };
            self.wrong.remove(&(Haste::Limits, key.clone()));
            self.wrong.remove(&(Haste::Other, key.clone()));
            if let Some(change) = self.change(&key) {
                let haste = if change.keys().any(|key| of_limits(key)) { Haste::Limits } else { Haste::Other };
                self.wrong.insert((haste, key));
            }
        }
    }

    /// The labels of a pod that have to change: null takes one away. None: it is right.
    fn change(&self, key: &Key) -> Option<BTreeMap<String, Value>> {
        let Seen { labels, is_static, workload, terminated, .. } = self.pods.get(key)?;
        if *terminated {
            // It will be gone in a moment.
            return None;
        }
        // Without a policy since the start there is nothing to say: what an earlier webhook said may still be in force on
        // the nodes, which remember the last good one.
        self.snapshot.enforced.policy()?;
        // An unknown namespace comes up a moment later, and then all of its pods are looked at.
        let governance = self.snapshot.governance(&key.0, &key.1, labels, *is_static)?;
        let mut right = governance.labels;
        if let (true, Some(limits), Some(name)) = (governance.terminates, self.limits(), workload) {
            right.extend(self.workloads.labels(name, &limits));
        }
        let wrong = of_governance(labels).filter(|(key, _)| !right.contains_key(*key));
        let mut change: BTreeMap<_, _> = wrong.map(|(key, _)| (key.clone(), Value::Null)).collect();
        let missing = right.iter().filter(|(key, value)| labels.get(*key) != Some(value));
        change.extend(missing.map(|(key, value)| (key.clone(), json!(value))));
        (!change.is_empty()).then_some(change)
    }

    fn write_one(&mut self) {
        let Some((_, key)) = self.wrong.pop_first() else { return };
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
}

/// How many pods bear a ruleset's or a policy's label, and what nodes report.
fn counts(pods: &HashMap<Key, Seen>) -> status::Counts<'_> {
    let mut counts = status::Counts::default();
    for Seen { labels, report, .. } in pods.values() {
        count(labels, &mut counts);
        if let Some(report) = report {
            counts.reports.add(report);
        }
    }
    counts
}

fn count(labels: &Labels, counts: &mut status::Counts<'_>) {
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

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}
