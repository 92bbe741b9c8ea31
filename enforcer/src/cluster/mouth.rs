//! The API server's part of a mitigation: deletion of a terminated pod, label of an isolated one, Kubernetes Events.
//!
//! Nothing here is in a hurry to protect: the node has done that before. While the API server is away, what is to be
//! said waits, and is said when it is back. Deletions and labels are at most one per pod; Events are bounded, and the
//! oldest of those that only log go first.

use super::{
    memory::{Kind, Memory},
    pods::{Gate, is_hash, now},
};
use crate::agent::{Reason, Spared, Told};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use ringfence_api::names;
use ringfence_control::{Done, Escaped, Violation};
use ringfence_policy::Mitigation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc};

/// How long what is left to be said may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Events that wait for the API server at most.
const MOST_EVENTS: usize = 1_024;
/// The same rule of the same pod yields one logging Event in this time: more is in the enforcer's own output.
const EVENT_PAUSE: Duration = Duration::from_mins(1);

/// A pod that something is said about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Subject {
    namespace: String,
    name: String,
    uid: String,
}

impl Subject {
    /// By which the API server knows that this very pod is meant, and not the next one of its name. None: the node knows
    /// a static pod by the hash of its file, and the API server does not.
    fn precondition(&self) -> Option<&str> {
        (!is_hash(&self.uid)).then_some(self.uid.as_str())
    }

    /// A change of this very pod's metadata.
    fn metadata(&self, mut change: Value) -> Value {
        if let Some(uid) = self.precondition() {
            change["uid"] = uid.into();
        }
        change
    }
}

/// What is done about a pod at the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Deed {
    /// Because of a rule.
    Delete(String),
    /// By a rule, or `manual`.
    Mark(String),
    Unmark,
    /// The condition of its readiness gate.
    Gate(bool),
}

impl Deed {
    /// Of one word there is at most one for a pod.
    fn word(&self) -> &'static str {
        match self {
            Self::Delete(_) => "delete",
            Self::Mark(_) => "mark",
            Self::Unmark => "unmark",
            Self::Gate(_) => "gate",
        }
    }

    /// What need not be made up for any more once this is asked for.
    fn overtakes(&self) -> Option<&'static str> {
        match self {
            Self::Mark(_) => Some("unmark"),
            Self::Unmark => Some("mark"),
            Self::Delete(_) | Self::Gate(_) => None,
        }
    }
}

/// The file that remembers a deed.
fn file(subject: &Subject, word: &str) -> String {
    format!("{}-{word}", subject.uid)
}

/// Says what the agent tells, for ever.
pub struct Mouth {
    client: Client,
    recorder: Recorder,
    /// Deeds about each pod, done one after the other: a mark that is late must not come after a release. The first one of
    /// each is under way.
    busy: Arc<Mutex<HashMap<Subject, VecDeque<Deed>>>>,
    events: Arc<Events>,
    /// Keeps deeds for an enforcer that starts before the API server is back.
    memory: Memory,
    /// When an Event that need not be repeated was said last, of a pod.
    said: HashMap<(String, String), Instant>,
}

#[derive(Default)]
struct Events {
    waiting: Mutex<VecDeque<(bool, Event, ObjectReference)>>,
    more: Notify,
    /// One is being published.
    speaking: AtomicBool,
}

impl Mouth {
    /// Speaks as this node's enforcer.
    pub fn new(client: Client, node: &str, memory: Memory) -> Self {
        let reporter =
            Reporter { controller: "ringfence.dev/enforcer".to_owned(), instance: Some(format!("enforcer-{node}")) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            busy: Arc::default(),
            events: Arc::default(),
            memory,
            said: HashMap::new(),
        }
    }

    /// Until the agent is gone.
    pub async fn speak(mut self, mut told: mpsc::UnboundedReceiver<Told>, mut gates: mpsc::UnboundedReceiver<Gate>) {
        let publisher = tokio::spawn(publish(self.recorder.clone(), Arc::clone(&self.events)));
        for (_, (subject, deed)) in self.memory.all::<(Subject, Deed)>(Kind::Deeds) {
            self.deed(subject, deed);
        }
        loop {
            let told = tokio::select! {
                told = told.recv() => told,
                Some(Gate { namespace, name, uid, connected }) = gates.recv() => {
                    self.deed(Subject { namespace, name, uid }, Deed::Gate(connected));
                    continue;
                }
            };
            let Some(told) = told else { break };
            match told {
                Told::Violated(violation) => self.violated(&violation),
                Told::Unheld { container, gaps, spared } => {
                    if let Some(subject) = of_container(&container) {
                        self.unheld(&subject, &gaps, spared);
                    }
                }
                Told::Terminated { container, reason, outcome } => {
                    if let Some(subject) = of_container(&container) {
                        self.terminated(&subject, &reason, outcome);
                    }
                }
                Told::Isolated(container) => {
                    if let Some(subject) = of_container(&container) {
                        self.event(&subject, true, EventType::Warning, names::ISOLATED_REASON, "isolated by hand");
                        self.deed(subject, Deed::Mark("manual".to_owned()));
                    }
                }
                Told::Released(container) => {
                    if let Some(subject) = of_container(&container) {
                        self.event(&subject, true, EventType::Normal, names::RELEASED_REASON, "released");
                        self.said.retain(|(uid, _), _| *uid != subject.uid);
                        self.deed(subject, Deed::Unmark);
                    }
                }
            }
        }
        // At an orderly end: what the API server takes now need not be made up for.
        let _ = tokio::time::timeout(LAST_WORDS, self.finish()).await;
        publisher.abort();
    }

    /// Until nothing is left to be said.
    async fn finish(&self) {
        let is_busy = || {
            self.events.speaking.load(Ordering::Acquire)
                || !self.events.waiting.lock().expect("nobody panics with it").is_empty()
                || !self.busy.lock().expect("nobody panics with it").is_empty()
        };
        while is_busy() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn violated(&mut self, violation: &Violation) {
        let (Some(namespace), Some(name), Some(uid)) =
            (&violation.k8s_namespace, &violation.k8s_pod_name, &violation.k8s_pod_id)
        else {
            return;
        };
        let subject = Subject { namespace: namespace.to_string(), name: name.to_string(), uid: uid.to_string() };
        if subject.namespace.is_empty() {
            // A pod that only its cgroup tells of: nobody to speak about.
            return;
        }
        let has = |done| violation.mitigation_done.contains(&done);
        if has(Done::Terminated) {
            self.deed(subject.clone(), Deed::Delete(violation.rule_id.to_string()));
        } else if has(Done::Isolated) {
            self.deed(subject.clone(), Deed::Mark(violation.rule_id.to_string()));
        }
        let (reason, kind) = if has(Done::Terminated) {
            (names::TERMINATED_REASON, EventType::Warning)
        } else if !violation.mitigation_failed.is_empty() {
            (names::MITIGATION_FAILED_REASON, EventType::Warning)
        } else if has(Done::Isolated) {
            (names::ISOLATED_REASON, EventType::Warning)
        } else if has(Done::Denied) || has(Done::Killed) {
            (names::BLOCKED_REASON, EventType::Warning)
        } else {
            (names::VIOLATION_REASON, EventType::Warning)
        };
        let mitigates = violation.mitigation > Mitigation::Log;
        // A pod that is cut off may go on with what it does for ever.
        let repeats = !mitigates || reason == names::ISOLATED_REASON;
        if !repeats || self.is_news((subject.uid.clone(), format!("{} {reason}", violation.rule_id))) {
            self.event(&subject, mitigates, kind, reason, &note(violation));
        }
        if let Some(held) = violation.mitigation_held {
            let key = (subject.uid.clone(), format!("{} {}", violation.rule_id, held.limit));
            if self.is_news(key) {
                let note = format!("{} held back by {}: {}", held.mitigation, held.limit, note(violation));
                self.event(&subject, mitigates, EventType::Warning, names::MITIGATION_HELD_REASON, &note);
            }
        }
    }

    /// Isolation does not hold it, and it goes on.
    fn unheld(&self, subject: &Subject, gaps: &Escaped, spared: Spared) {
        let reason = match spared {
            Spared::By(_) => names::MITIGATION_HELD_REASON,
            Spared::ByHand | Spared::Ungoverned => names::MITIGATION_FAILED_REASON,
        };
        let note = format!("isolated, it has got a way past that, and is not terminated, because {spared}: {gaps}");
        self.event(subject, true, EventType::Warning, reason, &note);
    }

    /// It was terminated, or was to be.
    fn terminated(&self, subject: &Subject, reason: &Reason, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                let by = match reason {
                    Reason::Unheld { rule: Some(rule), .. } => rule.to_string(),
                    Reason::Unheld { rule: None, .. } => names::UNHELD.to_owned(),
                    Reason::Unfinished => names::UNFINISHED.to_owned(),
                };
                self.deed(subject.clone(), Deed::Delete(by));
                let note = format!("{reason}; terminated");
                self.event(subject, true, EventType::Warning, names::TERMINATED_REASON, &note);
            }
            Err(problem) => {
                let note = format!("{reason}; {problem}");
                self.event(subject, true, EventType::Warning, names::MITIGATION_FAILED_REASON, &note);
            }
        }
    }

    /// Whether that was not said of the pod a moment ago.
    fn is_news(&mut self, key: (String, String)) -> bool {
        if self.said.get(&key).is_some_and(|said| said.elapsed() < EVENT_PAUSE) {
            return false;
        }
        self.said.retain(|_, said| said.elapsed() < EVENT_PAUSE);
        self.said.insert(key, Instant::now());
        true
    }

    fn event(&self, subject: &Subject, mitigates: bool, type_: EventType, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.chars().take(1_000).collect()),
            action: "Enforce".to_owned(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(subject.namespace.clone()),
            name: Some(subject.name.clone()),
            uid: Some(subject.uid.clone()),
            ..ObjectReference::default()
        };
        let mut waiting = self.events.waiting.lock().expect("nobody panics with it");
        if waiting.len() >= MOST_EVENTS {
            let victim = waiting.iter().position(|(mitigates, ..)| !mitigates).unwrap_or(0);
            waiting.remove(victim);
        }
        waiting.push_back((mitigates, event, reference));
        self.events.more.notify_one();
    }

    /// Begins a deed as soon as those before it about the same pod are done, unless it is the last one of them.
    fn deed(&self, subject: Subject, deed: Deed) {
        let mut busy = self.busy.lock().expect("nobody panics with it");
        let queue = busy.entry(subject.clone()).or_default();
        if queue.back() == Some(&deed) {
            return;
        }
        // A gate's condition is seen again by whoever watches the pod, and follows from that.
        if !matches!(deed, Deed::Gate(_)) {
            self.memory.put(Kind::Deeds, &file(&subject, deed.word()), &(&subject, &deed));
        }
        if let Some(word) = deed.overtakes() {
            self.memory.remove(Kind::Deeds, &file(&subject, word));
        }
        queue.push_back(deed);
        if queue.len() > 1 {
            return;
        }
        drop(busy);
        let (client, busy, memory) = (self.client.clone(), Arc::clone(&self.busy), self.memory.clone());
        tokio::spawn(async move {
            let first = |queue: &VecDeque<Deed>| queue.front().cloned();
            let mut next = busy.lock().expect("nobody panics with it").get(&subject).and_then(first);
            while let Some(deed) = next {
                insist(&client, &subject, &deed).await;
                let mut busy = busy.lock().expect("nobody panics with it");
                let Some(queue) = busy.get_mut(&subject) else { break };
                queue.pop_front();
                if !queue.iter().any(|later| later.word() == deed.word()) {
                    memory.remove(Kind::Deeds, &file(&subject, deed.word()));
                }
                next = first(queue);
                if next.is_none() {
                    busy.remove(&subject);
                }
            }
        });
    }
}

/// Until it is done, or the API server says that it never will be.
async fn insist(client: &Client, subject: &Subject, deed: &Deed) {
    let mut pause = Pause::default();
    loop {
        match tokio::time::timeout(PATIENCE, attempt(client, subject, deed)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) if is_final(&error) => {
                let Subject { name, namespace, .. } = subject;
                tracing::error!(pod = name, namespace, %error, "the API server refuses {deed:?}");
                return;
            }
            Ok(Err(error)) => tracing::warn!(pod = %subject.name, %error, "{deed:?} did not work, trying again"),
            Err(_) => tracing::warn!(pod = %subject.name, "{deed:?} got no answer, trying again"),
        }
        pause.wait().await;
    }
}

/// Doubling pauses.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(250))
    }
}

impl Pause {
    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

/// One attempt. A pod that is gone, or another one of the same name, is as good as done.
async fn attempt(client: &Client, subject: &Subject, deed: &Deed) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &subject.namespace);
    let result = match deed {
        Deed::Delete(by) => {
            // So that whoever keeps count sees it. It must not keep the pod.
            let patch =
                json!({"metadata": subject.metadata(json!({"annotations": {names::TERMINATED_BY_ANNOTATION: by}}))});
            let marked = pods.patch_metadata(&subject.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            if let Err(error) = marked {
                tracing::debug!(pod = %subject.name, %error, "it could not be marked as terminated");
            }
            let only = Preconditions { uid: subject.precondition().map(str::to_owned), resource_version: None };
            let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }.preconditions(only);
            pods.delete(&subject.name, &at_once).await.map(drop)
        }
        Deed::Mark(by) => {
            let Some(pod) = pods.get_opt(&subject.name).await? else { return Ok(()) };
            if names::is_isolated(pod.labels()) {
                return Ok(());
            }
            let patch = json!({"metadata": subject.metadata(json!({
                "labels": {names::ISOLATED_LABEL: names::ISOLATED},
                "annotations": {names::ISOLATED_BY_ANNOTATION: by, names::ISOLATED_AT_ANNOTATION: now()},
            }))});
            pods.patch(&subject.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
        }
        Deed::Unmark => {
            let Some(pod) = pods.get_opt(&subject.name).await? else { return Ok(()) };
            let marks = [names::ISOLATED_BY_ANNOTATION, names::ISOLATED_AT_ANNOTATION];
            let marked = pod.labels().contains_key(names::ISOLATED_LABEL)
                || marks.iter().any(|mark| pod.annotations().contains_key(*mark));
            if !marked {
                return Ok(());
            }
            let nothing = Value::Null;
            let patch = json!({"metadata": subject.metadata(json!({
                "labels": {names::ISOLATED_LABEL: nothing},
                "annotations": {marks[0]: nothing, marks[1]: nothing},
            }))});
            pods.patch(&subject.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
        }
        Deed::Gate(connected) => {
            let (status, reason) = if *connected { ("True", "Connected") } else { ("False", "Isolated") };
            let patch = json!({"metadata": subject.metadata(json!({})), "status": {"conditions": [{
                "type": names::CONNECTED_CONDITION, "status": status, "reason": reason, "lastTransitionTime": now(),
            }]}});
            pods.patch_status(&subject.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
        }
    };
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other,
    }
}

/// Whether trying again is useless: the request itself is wrong or not allowed.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 422))
}

/// Publishes Events one after the other; while it does not work, the first one is tried again and again.
async fn publish(recorder: Recorder, events: Arc<Events>) {
    let mut pause = Pause::default();
    loop {
        events.speaking.store(true, Ordering::Release);
        let first = events.waiting.lock().expect("nobody panics with it").pop_front();
        let Some((mitigates, event, reference)) = first else {
            events.speaking.store(false, Ordering::Release);
            events.more.notified().await;
            continue;
        };
        match tokio::time::timeout(PATIENCE, recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => pause = Pause::default(),
            // Such as a namespace that is being deleted: this Event will never be taken.
            Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 429 => {
                tracing::warn!(%status, "an Event is refused");
            }
            _ => {
                events.waiting.lock().expect("nobody panics with it").push_front((mitigates, event, reference));
                pause.wait().await;
            }
        }
    }
}

fn of_container(container: &ringfence_containers::Container) -> Option<Subject> {
    let pod = container.pod.as_ref().filter(|pod| !pod.namespace.is_empty())?;
    Some(Subject { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() })
}

/// What an Event says: rule, process, object, and what was done.
fn note(violation: &Violation) -> String {
    let part = |before: &str, value: Option<String>| value.map(|value| format!("{before}{value}")).unwrap_or_default();
    let shown = |value: &Option<Escaped>| value.as_ref().map(Escaped::to_string);
    let process = &violation.process;
    let done: Vec<&str> = violation.mitigation_done.iter().map(|done| done.as_str()).collect();
    [
        format!("{} {}: {}", violation.rule_id, violation.rule_name, violation.operation),
        part(" ", shown(&violation.object_file_path)),
        part(" ", violation.dst.clone()),
        format!(" by {} (pid {})", process.name, process.pid),
        part(" in container ", shown(&violation.container_name)),
        part("; ", (!done.is_empty()).then(|| done.join(", "))),
        part(" after ", violation.latency_ns.map(|ns| format!("{}.{} us", ns / 1_000, ns % 1_000 / 100))),
        part("; ", (!violation.mitigation_failed.is_empty()).then(|| violation.mitigation_failed.join("; "))),
    ]
    .concat()
}
