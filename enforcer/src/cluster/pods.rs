//! The pods of this node, as the agent governs them: as a whole.
//!
//! The API server says which labels a pod has, before its sandbox exists. The container runtime says which containers
//! run, in which network namespace. Here both become one description per pod. A pod is gone only when neither knows it
//! any more: one whose object was deleted by force runs on until the kubelet has noticed.

use super::{
    listing::{Item, Listing},
    watch::News,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt;
use ringfence_api::{Workload, names};
use ringfence_containers::{
    ANY_POD, Container, ContainerEvent, ContainerKey, Kind, Member, POD_NAMESPACE, Pod, Replica,
};
use ringfence_policy::Labels;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// What the API server says of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "five independent facts")]
struct Object {
    name: String,
    namespace: String,
    labels: Labels,
    is_static: bool,
    host_network: bool,
    /// It has ended, and does not run again.
    ended: bool,
    isolated: bool,
    /// An annotation says by what.
    #[serde(default)]
    says_why: bool,
    /// It has our readiness gate, whose condition has to become this.
    gate: Option<bool>,
    replica: Option<Replica>,
}

/// One of a pod's containers, as the runtime says.
#[derive(Clone, Debug)]
struct Inner {
    container: Container,
    pid: Option<u32>,
    /// Its process has ended: the runtime forgets it later.
    ended: bool,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    object: Option<Object>,
    containers: BTreeMap<ContainerKey, Inner>,
    /// What was told of it.
    told: Option<Container>,
}

/// What follows for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pod came, changed or went.
    Container(ContainerEvent),
    /// Nothing is known of the pod any more, and it was not governed in the end.
    Forgotten(String),
    /// Its label says that it is isolated.
    Isolated(String),
    /// Its label does not say so any more, or its annotation not by what: an authorised user has released it.
    Released(String),
    /// The condition of its readiness gate is not what it has to be.
    Gate(Gate),
}

/// A pod's readiness gate, by which it leaves its Services while it is isolated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The pod's.
    pub namespace: String,
    /// The pod's.
    pub name: String,
    /// The pod's.
    pub uid: String,
    /// Whether it has its network.
    pub connected: bool,
}

/// What the API server said of a pod, for the next enforcer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remembered {
    object: Object,
    namespace_labels: Labels,
}

impl Remembered {
    /// Its namespace, and the labels of that.
    pub fn namespace(&self) -> (String, Labels) {
        (self.object.namespace.clone(), self.namespace_labels.clone())
    }
}

/// All pods of the node, by UID.
#[derive(Debug, Default)]
pub struct Pods {
    by_uid: BTreeMap<String, Entry>,
    listing: Listing,
}

/// The pod that stands for those which are not known: it has no labels, and is in no namespace.
pub fn unknown() -> Container {
    let pod = Pod { name: ANY_POD.to_owned(), uid: ANY_POD.to_owned(), ..Pod::default() };
    whole(pod, false, None, None)
}

impl Pods {
    /// Whether the API server has listed them once, or does not answer.
    pub fn synced(&self) -> bool {
        self.listing.is_complete()
    }

    /// The API server does not answer: what is known of them has to do.
    pub fn assume(&mut self) {
        self.listing.assume();
    }

    /// What an earlier enforcer knew of a pod. Nothing is told of it yet.
    pub fn recall(&mut self, uid: String, remembered: Remembered) {
        self.by_uid.entry(uid).or_default().object = Some(remembered.object);
    }

    /// What is worth remembering of a pod; none: the API server knows none of that UID.
    pub fn remembered(&self, uid: &str, namespace_labels: &dyn Fn(&str) -> Labels) -> Option<Remembered> {
        let object = self.by_uid.get(uid)?.object.clone()?;
        let namespace_labels = namespace_labels(&object.namespace);
        Some(Remembered { object, namespace_labels })
    }

    /// News of the API server.
    pub fn object(&mut self, news: News<core::Pod>, namespace_labels: &dyn Fn(&str) -> Labels) -> Vec<Outcome> {
        match self.listing.hear(news, uid_of) {
            Some(Item::There(pod) | Item::Gone(pod)) if self.is_of_another(&pod) => {
                tracing::warn!(pod = pod.name_any(), "its annotations make it the copy of another pod: left out");
                Vec::new()
            }
            Some(Item::There(pod)) => self.applied(&uid_of(&pod), &pod, namespace_labels),
            Some(Item::Gone(pod)) => self.deleted(&uid_of(&pod), namespace_labels),
            Some(Item::Listed(uids)) => {
                let gone: Vec<String> = self.by_uid.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
                gone.into_iter().flat_map(|uid| self.deleted(&uid, namespace_labels)).collect()
            }
            None => Vec::new(),
        }
    }

    /// Two objects that claim to be the copy of one static pod: the second one lies.
    fn is_of_another(&self, pod: &core::Pod) -> bool {
        let known = self.by_uid.get(&uid_of(pod)).and_then(|entry| entry.object.as_ref());
        known.is_some_and(|known| (&known.name, Some(&known.namespace)) != (&pod.name_any(), pod.namespace().as_ref()))
    }

    fn applied(&mut self, uid: &str, pod: &core::Pod, namespace_labels: &dyn Fn(&str) -> Labels) -> Vec<Outcome> {
        let entry = self.by_uid.entry(uid.to_owned()).or_default();
        let object = object(pod);
        let was = entry.object.as_ref().is_some_and(|object| object.isolated);
        let explained = entry.object.as_ref().is_some_and(|object| object.says_why);
        // Who takes the annotation off, releases as well as who takes the label off.
        let is = object.isolated && (object.says_why || !explained);
        entry.object = Some(object);
        let mut outcomes = self.tell(uid, namespace_labels);
        match (was, is) {
            (false, true) => outcomes.push(Outcome::Isolated(uid.to_owned())),
            (true, false) => outcomes.push(Outcome::Released(uid.to_owned())),
            _ => {}
        }
        outcomes.extend(self.gate(uid));
        outcomes
    }

    fn gate(&self, uid: &str) -> Option<Outcome> {
        let object = self.by_uid.get(uid)?.object.as_ref()?;
        let gate = Gate {
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            uid: uid.to_owned(),
            connected: object.gate?,
        };
        Some(Outcome::Gate(gate))
    }

    fn deleted(&mut self, uid: &str, namespace_labels: &dyn Fn(&str) -> Labels) -> Vec<Outcome> {
        if let Some(entry) = self.by_uid.get_mut(uid) {
            entry.object = None;
        }
        self.tell(uid, namespace_labels)
    }

    /// News of the runtime.
    pub fn container(&mut self, event: ContainerEvent, namespace_labels: &dyn Fn(&str) -> Labels) -> Vec<Outcome> {
        match event {
            ContainerEvent::Known(container) => {
                let Some(uid) = container.pod.as_ref().map(|pod| pod.uid.clone()).filter(|uid| !uid.is_empty()) else {
                    return Vec::new();
                };
                let pid = container.pid;
                let inner = Inner { container: *container, pid, ended: false };
                self.by_uid.entry(uid.clone()).or_default().containers.insert(inner.container.key.clone(), inner);
                self.tell(&uid, namespace_labels)
            }
            ContainerEvent::Created { key, pid } | ContainerEvent::Started { key, pid } => {
                self.process(&key, Some(pid), namespace_labels)
            }
            ContainerEvent::Exited { key, .. } => self.process(&key, None, namespace_labels),
            ContainerEvent::Removed(key) => {
                let Some(uid) = self.of(&key) else { return Vec::new() };
                if let Some(entry) = self.by_uid.get_mut(&uid) {
                    entry.containers.remove(&key);
                }
                self.tell(&uid, namespace_labels)
            }
            other @ (ContainerEvent::Synced | ContainerEvent::Disconnected { .. }) => vec![Outcome::Container(other)],
        }
    }

    /// A namespace has other labels now, or all of them may have.
    pub fn relabelled(&mut self, namespace_labels: &dyn Fn(&str) -> Labels) -> Vec<Outcome> {
        let uids: Vec<String> = self.by_uid.keys().cloned().collect();
        uids.into_iter().flat_map(|uid| self.tell(&uid, namespace_labels)).collect()
    }

    /// Tells everything anew: nobody has listened so far.
    pub fn retell(&mut self, namespace_labels: &dyn Fn(&str) -> Labels) -> Vec<Outcome> {
        for entry in self.by_uid.values_mut() {
            entry.told = None;
        }
        let mut outcomes = self.relabelled(namespace_labels);
        let isolated = |entry: &Entry| entry.object.as_ref().is_some_and(|object| object.isolated);
        let uids = self.by_uid.iter().filter(|(_, entry)| isolated(entry)).map(|(uid, _)| uid.clone());
        outcomes.extend(uids.map(Outcome::Isolated));
        outcomes.extend(self.by_uid.keys().filter_map(|uid| self.gate(uid)));
        outcomes
    }

    fn of(&self, key: &ContainerKey) -> Option<String> {
        self.by_uid.iter().find(|(_, entry)| entry.containers.contains_key(key)).map(|(uid, _)| uid.clone())
    }

    fn process(
        &mut self,
        key: &ContainerKey,
        pid: Option<u32>,
        namespace_labels: &dyn Fn(&str) -> Labels,
    ) -> Vec<Outcome> {
        let Some(uid) = self.of(key) else { return Vec::new() };
        if let Some(inner) = self.by_uid.get_mut(&uid).and_then(|entry| entry.containers.get_mut(key)) {
            inner.pid = pid;
            inner.ended = pid.is_none();
        }
        self.tell(&uid, namespace_labels)
    }

    /// What is new about a pod.
    fn tell(&mut self, uid: &str, namespace_labels: &dyn Fn(&str) -> Labels) -> Vec<Outcome> {
        let Some(entry) = self.by_uid.get_mut(uid) else { return Vec::new() };
        let runs = entry.containers.values().any(|inner| !inner.ended);
        if !runs && entry.object.as_ref().is_none_or(|object| object.ended) {
            let told = entry.told.take();
            if entry.object.is_none() && entry.containers.is_empty() {
                self.by_uid.remove(uid);
                if told.is_none() {
                    return vec![Outcome::Forgotten(uid.to_owned())];
                }
            }
            let removed = told.map(|container| ContainerEvent::Removed(container.key));
            return removed.map(Outcome::Container).into_iter().collect();
        }
        let container = describe(uid, entry, namespace_labels);
        if entry.told.as_ref() == Some(&container) {
            return Vec::new();
        }
        entry.told = Some(container.clone());
        vec![Outcome::Container(ContainerEvent::Known(Box::new(container)))]
    }
}

fn describe(uid: &str, entry: &Entry, namespace_labels: &dyn Fn(&str) -> Labels) -> Container {
    let sandbox = entry.containers.values().find(|inner| inner.container.kind == Kind::Sandbox);
    // The API server's word counts more: a runtime only knows what the kubelet told it once.
    let (name, namespace, labels) = match (&entry.object, entry.containers.values().find_map(of_runtime)) {
        (Some(object), _) => (object.name.clone(), object.namespace.clone(), object.labels.clone()),
        (None, Some(pod)) => (pod.name.clone(), pod.namespace.clone(), pod.labels.clone()),
        (None, None) => Default::default(),
    };
    let pod = Pod {
        namespace_labels: namespace_labels(&namespace),
        is_static: entry.object.as_ref().is_some_and(|object| object.is_static),
        replica: entry.object.as_ref().and_then(|object| object.replica.clone()),
        sandbox: sandbox.map(|inner| inner.container.key.id.clone()).unwrap_or_default(),
        members: entry.containers.values().map(member).collect(),
        name,
        namespace,
        uid: uid.to_owned(),
        labels,
    };
    let host_network = entry.object.as_ref().is_some_and(|object| object.host_network)
        || sandbox.is_some_and(|inner| inner.container.host_network);
    let netns = sandbox.and_then(|inner| inner.container.netns.clone());
    // Any process will do: a pod's containers share their network namespace.
    let pid = sandbox.and_then(|inner| inner.pid).or_else(|| entry.containers.values().find_map(|inner| inner.pid));
    whole(pod, host_network, netns, pid)
}

fn of_runtime(inner: &Inner) -> Option<&Pod> {
    inner.container.pod.as_ref()
}

fn member(inner: &Inner) -> Member {
    let container = &inner.container;
    Member {
        id: container.key.id.clone(),
        namespace: container.key.namespace.clone(),
        name: container.name.clone(),
        image: container.image.clone(),
        image_digest: container.image_digest.clone(),
    }
}

fn whole(pod: Pod, host_network: bool, netns: Option<PathBuf>, pid: Option<u32>) -> Container {
    Container {
        key: ContainerKey::new(POD_NAMESPACE, pod.uid.clone()),
        name: pod.name.clone(),
        kind: Kind::Pod,
        labels: BTreeMap::new(),
        image: String::new(),
        image_digest: None,
        snapshotter: String::new(),
        cgroups_path: String::new(),
        host_network,
        netns,
        pid,
        pod: Some(pod),
    }
}

/// The UID by which the node knows a pod: of a static pod's mirror the hash of its file. Anybody can write annotations who
/// can make pods where no webhook is asked: they must not lead to a pod whose UID the API server has given.
fn uid_of(pod: &core::Pod) -> String {
    let hash = pod.annotations().get("kubernetes.io/config.hash").filter(|hash| is_mirror(pod) && is_hash(hash));
    hash.cloned().or_else(|| pod.uid()).unwrap_or_default()
}

/// Whether a UID by which the node knows a pod is the hash of its file, and not what the API server gave it.
pub fn is_hash(uid: &str) -> bool {
    uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_mirror(pod: &core::Pod) -> bool {
    pod.annotations().contains_key("kubernetes.io/config.mirror")
}

/// The status of a condition of a pod.
fn condition<'a>(pod: &'a core::Pod, kind: &str) -> Option<&'a str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

/// What the condition of our readiness gate has to become, if the pod has one and it is not so yet.
fn gate(pod: &core::Pod, isolated: bool) -> Option<bool> {
    let gates = pod.spec.as_ref()?.readiness_gates.as_ref()?;
    gates.iter().find(|gate| gate.condition_type == names::CONNECTED_CONDITION)?;
    let wanted = if isolated { "False" } else { "True" };
    (condition(pod, names::CONNECTED_CONDITION) != Some(wanted)).then_some(!isolated)
}

fn object(pod: &core::Pod) -> Object {
    let isolated = names::is_isolated(pod.labels());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    Object {
        name: pod.name_any(),
        namespace: pod.namespace().unwrap_or_default(),
        // Ours say what governs the pod; they must not decide it.
        labels: pod
            .labels()
            .iter()
            .filter(|(key, _)| !names::is_ours(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        is_static: is_mirror(pod),
        host_network: pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default(),
        ended: matches!(phase, Some("Succeeded" | "Failed")),
        isolated,
        says_why: pod.annotations().contains_key(names::ISOLATED_BY_ANNOTATION),
        gate: gate(pod, isolated),
        replica: replica(pod, isolated),
    }
}

fn replica(pod: &core::Pod, isolated: bool) -> Option<Replica> {
    let workload = Workload::of(&pod.metadata)?;
    let number = |label: &str| pod.labels().get(label)?.parse().ok();
    // An isolated pod may fail our own gate; that must not make it one that nobody misses.
    let kind = if isolated { "ContainersReady" } else { "Ready" };
    let ready = condition(pod, kind) == Some("True");
    Some(Replica {
        ready: ready && workload.keeps_replicas(),
        workload: workload.to_string(),
        spare: number(names::SPARE_REPLICAS_LABEL),
        terminations_left: number(names::TERMINATIONS_LEFT_LABEL),
    })
}

/// Now, as annotations have it.
pub fn now() -> String {
    format!("{:.0}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::watcher::Event;

    fn pod(name: &str, uid: &str, labels: &serde_json::Value) -> core::Pod {
        let value = serde_json::json!({"metadata": {"name": name, "namespace": "shop", "uid": uid, "labels": labels}});
        serde_json::from_value(value).unwrap()
    }

    fn container(id: &str, kind: Kind, uid: &str) -> Container {
        let of = Pod { name: "web-1".to_owned(), namespace: "shop".to_owned(), uid: uid.to_owned(), ..Pod::default() };
        let mut container = whole(of, false, Some(PathBuf::from("/run/netns/x")), None);
        container.key = ContainerKey::new("k8s.io", id);
        (container.kind, container.name) = (kind, id.to_owned());
        container
    }

    fn none(_: &str) -> Labels {
        Labels::new()
    }

    fn known(outcomes: &[Outcome]) -> &Container {
        let [Outcome::Container(ContainerEvent::Known(container))] = outcomes else { panic!("{outcomes:?}") };
        container
    }

    #[test]
    fn a_pod_is_told_from_its_object_to_its_last_container() {
        let mut pods = Pods::default();
        let web = pod("web-1", "u1", &serde_json::json!({"app": "web", "ringfence.dev/policy": "main"}));
        let told = pods.object(Event::Apply(web.clone()), &none);
        let first = known(&told).clone();
        assert_eq!((first.kind, first.key.id.as_str()), (Kind::Pod, "u1"));
        assert_eq!(first.selector_labels().keys().collect::<Vec<_>>(), ["app"], "ours do not count");
        assert_eq!(pods.object(Event::Apply(web.clone()), &none), [], "no news");

        let sandbox = ContainerEvent::Known(Box::new(container("s", Kind::Sandbox, "u1")));
        assert!(known(&pods.container(sandbox, &none)).netns.is_some());
        let key = ContainerKey::new("k8s.io", "s");
        let told = pods.container(ContainerEvent::Created { key: key.clone(), pid: 7 }, &none);
        assert_eq!(known(&told).pid, Some(7));
        let app = ContainerEvent::Known(Box::new(container("c", Kind::PodContainer, "u1")));
        let told = pods.container(app, &none);
        let members: Vec<_> = known(&told).pod.as_ref().unwrap().members.iter().map(|member| &*member.id).collect();
        assert_eq!(members, ["c", "s"]);

        let told = pods.object(Event::Delete(web), &none);
        assert_eq!(known(&told).pod.as_ref().unwrap().name, "web-1", "it still runs");
        pods.container(ContainerEvent::Removed(ContainerKey::new("k8s.io", "c")), &none);
        let told = pods.container(ContainerEvent::Removed(key), &none);
        assert_eq!(told, [Outcome::Container(ContainerEvent::Removed(ContainerKey::new("pod", "u1")))]);
    }

    #[test]
    fn a_pod_that_has_ended_gives_its_place_back() {
        let mut pods = Pods::default();
        let mut job = pod("job-1", "u1", &serde_json::json!({}));
        pods.object(Event::Apply(job.clone()), &none);
        job.status = Some(core::PodStatus { phase: Some("Succeeded".to_owned()), ..core::PodStatus::default() });
        let told = pods.object(Event::Apply(job.clone()), &none);
        assert_eq!(told, [Outcome::Container(ContainerEvent::Removed(ContainerKey::new("pod", "u1")))]);
        assert_eq!(
            pods.object(Event::Delete(job), &none),
            [Outcome::Forgotten("u1".to_owned())],
            "nothing is left of it"
        );
    }

    #[test]
    fn how_its_workload_stands_is_told_with_a_pod() {
        let labels = serde_json::json!({"pod-template-hash": "5d", "ringfence.dev/spare-replicas": "2"});
        let mut web = pod("web-5d-x", "u1", &labels);
        let owner = serde_json::json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d", "uid": "r", "controller": true}]);
        web.metadata.owner_references = serde_json::from_value(owner).unwrap();
        let mut pods = Pods::default();
        let replica = |outcomes: &[Outcome]| known(outcomes).pod.as_ref().unwrap().replica.clone().unwrap();
        let expected = Replica { workload: "Deployment/web".to_owned(), spare: Some(2), ..Replica::default() };
        assert_eq!(replica(&pods.object(Event::Apply(web.clone()), &none)), expected);
        web.status =
            serde_json::from_value(serde_json::json!({"conditions": [{"type": "Ready", "status": "True"}]})).unwrap();
        web.labels_mut().insert("ringfence.dev/terminations-left".to_owned(), "0".to_owned());
        let expected = Replica { ready: true, terminations_left: Some(0), ..expected };
        assert_eq!(replica(&pods.object(Event::Apply(web.clone()), &none)), expected);
        // It is cut off, so our own gate has made it not ready; its containers still are.
        web.labels_mut().insert(names::ISOLATED_LABEL.to_owned(), names::ISOLATED.to_owned());
        let conditions = serde_json::json!({"conditions": [
            {"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"},
        ]});
        web.status = serde_json::from_value(conditions).unwrap();
        pods.object(Event::Apply(web.clone()), &none);
        web.labels_mut().insert("ringfence.dev/terminations-left".to_owned(), "1".to_owned());
        let expected = Replica { terminations_left: Some(1), ..expected };
        assert_eq!(replica(&pods.object(Event::Apply(web), &none)), expected);
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let mut pods = Pods::default();
        pods.object(Event::Init, &none);
        pods.object(Event::InitApply(pod("a", "u1", &serde_json::json!({}))), &none);
        pods.object(Event::InitDone, &none);
        assert!(pods.synced());
        pods.object(Event::Init, &none);
        pods.object(Event::InitApply(pod("b", "u2", &serde_json::json!({}))), &none);
        let told = pods.object(Event::InitDone, &none);
        assert_eq!(told, [Outcome::Container(ContainerEvent::Removed(ContainerKey::new("pod", "u1")))]);
    }

    #[test]
    fn the_label_isolates_and_releases() {
        let mut pods = Pods::default();
        let isolated = pod("a", "u1", &serde_json::json!({"ringfence.dev/isolated": "true"}));
        let told = pods.object(Event::Apply(isolated.clone()), &none);
        assert_eq!(told[1..], [Outcome::Isolated("u1".to_owned())]);
        assert_eq!(pods.object(Event::Apply(isolated), &none), []);
        let told = pods.object(Event::Apply(pod("a", "u1", &serde_json::json!({}))), &none);
        assert_eq!(told, [Outcome::Released("u1".to_owned())]);
    }

    #[test]
    fn who_takes_the_annotation_off_releases_too() {
        let mut pods = Pods::default();
        let mut isolated = pod("a", "u1", &serde_json::json!({"ringfence.dev/isolated": "true"}));
        let told = pods.object(Event::Apply(isolated.clone()), &none);
        assert_eq!(told[1..], [Outcome::Isolated("u1".to_owned())], "by its label alone");
        isolated.annotations_mut().insert(names::ISOLATED_BY_ANNOTATION.to_owned(), "RF-901".to_owned());
        assert_eq!(pods.object(Event::Apply(isolated.clone()), &none), []);
        isolated.annotations_mut().clear();
        let told = pods.object(Event::Apply(isolated.clone()), &none);
        assert_eq!(told, [Outcome::Released("u1".to_owned())]);
        assert_eq!(pods.object(Event::Apply(isolated), &none), [], "until the enforcer has taken the label off");
    }

    #[test]
    fn a_readiness_gate_follows_the_label() {
        let mut gated = pod("a", "u1", &serde_json::json!({}));
        let told = |pods: &mut Pods, pod: &core::Pod| -> Vec<bool> {
            let outcomes = pods.object(Event::Apply(pod.clone()), &none);
            let gate = |outcome| if let Outcome::Gate(gate) = outcome { Some(gate.connected) } else { None };
            outcomes.into_iter().filter_map(gate).collect()
        };
        let mut pods = Pods::default();
        assert_eq!(told(&mut pods, &gated), [true; 0], "it has none");
        gated.spec = serde_json::from_value(serde_json::json!({
            "containers": [], "readinessGates": [{"conditionType": "ringfence.dev/connected"}]
        }))
        .unwrap();
        assert_eq!(told(&mut pods, &gated), [true]);
        let status = |status| {
            serde_json::from_value(serde_json::json!({
                "conditions": [{"type": "ringfence.dev/connected", "status": status}]
            }))
            .unwrap()
        };
        gated.status = status("True");
        assert_eq!(told(&mut pods, &gated), [true; 0]);
        gated.labels_mut().insert(names::ISOLATED_LABEL.to_owned(), names::ISOLATED.to_owned());
        assert_eq!(told(&mut pods, &gated), [false]);
        gated.status = status("False");
        assert_eq!(told(&mut pods, &gated), [true; 0]);
    }

    #[test]
    fn a_static_pod_is_known_by_the_hash_of_its_file() {
        let mut pods = Pods::default();
        let hash = "4d9ac72a0a2f5a5c8a9b2f4a1f9f6c3e";
        let told = pods.object(Event::Apply(mirror("etcd-node1", hash)), &none);
        let container = known(&told);
        assert_eq!(container.key.id, hash);
        assert!(container.pod.as_ref().unwrap().is_static);
    }

    fn mirror(name: &str, hash: &str) -> core::Pod {
        let mut mirror = pod(name, &format!("u-{name}"), &serde_json::json!({}));
        let annotations = ["kubernetes.io/config.mirror", "kubernetes.io/config.hash"];
        mirror.annotations_mut().extend(annotations.map(|key| (key.to_owned(), hash.to_owned())));
        mirror
    }

    #[test]
    fn nobody_passes_for_another_pod_by_annotations() {
        let uid = "0b7cbb1f-6f0c-4d5e-9c58-5a3d2a1e4f60";
        let mut pods = Pods::default();
        let isolated = pod("web", uid, &serde_json::json!({"ringfence.dev/isolated": "true"}));
        pods.object(Event::Apply(isolated), &none);
        let told = pods.object(Event::Apply(mirror("liar", uid)), &none);
        assert_eq!(known(&told).key.id, "u-liar");
        assert!(pods.by_uid[uid].object.as_ref().unwrap().isolated);

        let hash = "4d9ac72a0a2f5a5c8a9b2f4a1f9f6c3e";
        pods.object(Event::Apply(mirror("etcd-node1", hash)), &none);
        for news in [Event::Apply(mirror("liar2", hash)), Event::Delete(mirror("liar2", hash))] {
            assert_eq!(pods.object(news, &none), []);
        }
        assert_eq!(pods.by_uid[hash].object.as_ref().unwrap().name, "etcd-node1");
    }

    #[test]
    fn what_was_known_of_a_pod_is_recalled_and_judged_alike() {
        let mut pods = Pods::default();
        let labels = serde_json::json!({"app": "web", "ringfence.dev/isolated": "true"});
        let told = pods.object(Event::Apply(pod("web-1", "u1", &labels)), &none);
        let remembered = pods.remembered("u1", &none).unwrap();
        let text = serde_json::to_string(&remembered).unwrap();
        let mut next = Pods::default();
        next.recall("u1".to_owned(), serde_json::from_str(&text).unwrap());
        assert!(!next.synced());
        next.assume();
        assert!(next.synced());
        assert_eq!(next.retell(&none), told);
        assert_eq!(next.object(Event::Apply(pod("web-1", "u1", &labels)), &none), [], "no news");
        next.object(Event::Init, &none);
        let told = next.object(Event::InitDone, &none);
        assert_eq!(told, [Outcome::Container(ContainerEvent::Removed(ContainerKey::new("pod", "u1")))]);
        assert!(next.remembered("u1", &none).is_none());
    }
}
