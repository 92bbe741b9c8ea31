//! The cluster's rulesets, policies and namespaces, from watches. Every change makes a new [`Snapshot`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use ringfence_api::{ConditionType, RuntimePolicy, RuntimeRuleset};
use ringfence_policy::Index;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::snapshot::{Namespaces, Published, Snapshot, Statuses};

/// How long a snapshot that has been replaced may still explain a pod's labels.
const RECENT: Duration = Duration::from_secs(30);
/// How many of those are kept at most.
const RECENTS: usize = 16;
/// How long a namespace that the watch has not shown yet may take to be looked up.
const LOOK_UP: Duration = Duration::from_secs(1);

/// What is known, now and a moment ago.
#[derive(Clone, Debug, Default)]
pub struct Known {
    current: Arc<Snapshot>,
    before: VecDeque<(Instant, Arc<Snapshot>)>,
    /// All watches have shown everything once.
    synced: bool,
}

/// The current state of the cluster; cheap to clone.
#[derive(Clone)]
pub struct State {
    known: watch::Receiver<Known>,
    client: Client,
}

impl State {
    /// Starts watching. It goes on for ever; while the API server is away, with what is known.
    pub fn watch(client: Client, own_namespace: &str, policy: &str) -> Self {
        let (sender, known) = watch::channel(Known::default());
        tokio::spawn(follow(client.clone(), Index::new(own_namespace, policy), sender));
        Self { known, client }
    }

    /// Whether all watches have shown everything once.
    pub fn synced(&self) -> bool {
        self.known.borrow().synced
    }

    /// The current snapshot.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.known.borrow().current)
    }

    /// The current snapshot, then those of the last seconds, the newest first.
    pub fn recent(&self) -> Vec<Arc<Snapshot>> {
        let known = self.known.borrow();
        let before = known.before.iter().filter(|(until, _)| until.elapsed() < RECENT);
        std::iter::once(&known.current).chain(before.map(|(_, snapshot)| snapshot)).cloned().collect()
    }

    /// Waits until something changes. False: nothing ever will.
    pub async fn changed(&mut self) -> bool {
        self.known.changed().await.is_ok()
    }

    /// The same snapshots, with the namespace looked up if it is too new for the watch.
    pub async fn with_namespace(&self, mut snapshots: Vec<Arc<Snapshot>>, name: &str) -> Vec<Arc<Snapshot>> {
        let unknown = |snapshot: &Arc<Snapshot>| !snapshot.namespaces.contains_key(name);
        // Where only older ones lack it, they say nothing about its pods.
        if snapshots.first().is_some_and(unknown) {
            let api: Api<PartialObjectMeta<Namespace>> = Api::all(self.client.clone());
            match tokio::time::timeout(LOOK_UP, api.get_metadata(name)).await {
                Ok(Ok(namespace)) => {
                    let labels = Arc::new(namespace.metadata.labels.unwrap_or_default());
                    for snapshot in snapshots.iter_mut().filter(|snapshot| unknown(snapshot)) {
                        let mut namespaces = Namespaces::clone(&snapshot.namespaces);
                        namespaces.insert(name.to_owned(), Arc::clone(&labels));
                        *snapshot =
                            Arc::new(Snapshot { namespaces: Arc::new(namespaces), ..Snapshot::clone(snapshot) });
                    }
                }
                Ok(Err(error)) => warn!(namespace = name, %error, "a namespace is not known"),
                Err(_) => warn!(namespace = name, "a namespace is not known, and looking it up took too long"),
            }
        }
        snapshots
    }
}

/// What the watches show.
enum Shown {
    Ruleset(watcher::Event<DynamicObject>),
    Policy(watcher::Event<DynamicObject>),
    Namespace(watcher::Event<PartialObjectMeta<Namespace>>),
}

async fn follow(client: Client, index: Index, sender: watch::Sender<Known>) {
    let rulesets = Api::all_with(client.clone(), &ApiResource::erase::<RuntimeRuleset>(&()));
    let policies = Api::all_with(client.clone(), &ApiResource::erase::<RuntimePolicy>(&()));
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client);
    let mut shown = select_all([
        events("rulesets", rulesets).map(Shown::Ruleset).boxed(),
        events("policies", policies).map(Shown::Policy).boxed(),
        events("namespaces", namespaces).map(Shown::Namespace).boxed(),
    ]);
    let mut objects = Objects { index, ..Objects::default() };
    let mut dirty = false;
    loop {
        tokio::select! {
            biased;
            Some(event) = shown.next() => dirty |= objects.apply(event),
            // Nothing more is waiting.
            () = std::future::ready(()), if dirty && objects.synced() => {
                dirty = false;
                objects.recall();
                sender.send_if_modified(|known| known.replace(&mut objects));
            }
        }
    }
}

/// Events of one kind. Errors are told once until it works again.
fn events<K>(what: &'static str, api: Api<K>) -> BoxStream<'static, watcher::Event<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Clone + Eq + std::hash::Hash,
{
    let mut failing = false;
    watcher(api, watcher::Config::default())
        .modify(|object| object.meta_mut().managed_fields = None)
        .default_backoff()
        .filter_map(move |event| {
            let event = match event {
                Ok(event) => {
                    if std::mem::take(&mut failing) {
                        info!(what, "watching again");
                    }
                    Some(event)
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(what, %error, "cannot watch: going on with what is known");
                    }
                    None
                }
            };
            std::future::ready(event)
        })
        .boxed()
}

#[derive(Default)]
struct New {
    index: bool,
    namespaces: bool,
    statuses: bool,
}

/// Everything that the watches have shown.
#[derive(Default)]
struct Objects {
    index: Index,
    namespaces: Namespaces,
    statuses: Statuses,
    /// What differs from the last snapshot.
    new: New,
    /// Names since a list began, per kind; what is not among them at its end is gone.
    listed: [BTreeSet<String>; 3],
    /// Which kinds have been listed once.
    complete: [bool; 3],
    recalled: bool,
}

impl Objects {
    fn synced(&self) -> bool {
        self.complete == [true; 3]
    }

    /// Once, at the start: if the active policy is not there or not right, the one is in force that was so before, as its
    /// status says. Nodes go on with it too.
    fn recall(&mut self) {
        if std::mem::replace(&mut self.recalled, true) || self.index.in_force().is_some() {
            return;
        }
        let policies = &self.statuses.policies;
        let was =
            policies.iter().filter(|(_, published)| published.says(ConditionType::InUse.name())).map(|(name, _)| name);
        if let Some(name) = was.into_iter().find(|name| self.index.recall(name)) {
            warn!(
                policy = name,
                active = self.index.active(),
                "the active policy is not there, or not right: this one stays"
            );
            self.new.index = true;
        }
    }

    /// The next snapshot: what has not changed is shared with the last one. None: nothing has.
    fn snapshot(&mut self, last: &Snapshot) -> Option<Snapshot> {
        let New { index, namespaces, statuses } = std::mem::take(&mut self.new);
        let mut next = last.clone();
        if index {
            next.enforced = Arc::new(self.index.enforced());
            next.index = Arc::new(self.index.clone());
        }
        if namespaces {
            next.namespaces = Arc::new(self.namespaces.clone());
        }
        if statuses {
            next.published = Arc::new(self.statuses.clone());
        }
        (index || namespaces || statuses).then_some(next)
    }

    fn put_ruleset(&mut self, object: &DynamicObject) {
        let name = object.name_any();
        if self.new.publish(&mut self.statuses.rulesets, &name, object) {
            self.index.put_ruleset(&name, json(object));
        }
    }

    fn put_policy(&mut self, object: &DynamicObject) {
        let name = object.name_any();
        if self.new.publish(&mut self.statuses.policies, &name, object) {
            self.index.put_policy(&name, json(object));
        }
    }

    fn put_namespace(&mut self, object: PartialObjectMeta<Namespace>) {
        let name = object.name_any();
        let labels = object.metadata.labels.unwrap_or_default();
        if self.namespaces.get(&name).is_none_or(|before| **before != labels) {
            self.namespaces.insert(name, Arc::new(labels));
            self.new.namespaces = true;
        }
    }

    /// Whether something may have changed.
    fn apply(&mut self, shown: Shown) -> bool {
        match shown {
            Shown::Ruleset(event) => self.kind(
                0,
                event,
                |objects, object| objects.put_ruleset(&object),
                |objects, name| {
                    objects.index.remove_ruleset(name);
                    objects.statuses.rulesets.remove(name);
                    (objects.new.index, objects.new.statuses) = (true, true);
                },
                |objects| objects.statuses.rulesets.keys().cloned().collect(),
            ),
            Shown::Policy(event) => self.kind(
                1,
                event,
                |objects, object| objects.put_policy(&object),
                |objects, name| {
                    objects.index.remove_policy(name);
                    objects.statuses.policies.remove(name);
                    (objects.new.index, objects.new.statuses) = (true, true);
                },
                |objects| objects.statuses.policies.keys().cloned().collect(),
            ),
            Shown::Namespace(event) => self.kind(
                2,
                event,
                Self::put_namespace,
                |objects, name| {
                    objects.namespaces.remove(name);
                    objects.new.namespaces = true;
                },
                |objects| objects.namespaces.keys().cloned().collect(),
            ),
        }
    }

    fn kind<K: Resource>(
        &mut self,
        kind: usize,
        event: watcher::Event<K>,
        put: fn(&mut Self, K),
        remove: fn(&mut Self, &str),
        names: fn(&Self) -> Vec<String>,
    ) -> bool {
        match event {
            watcher::Event::Init => {
                self.listed[kind].clear();
                false
            }
            watcher::Event::InitApply(object) => {
                self.listed[kind].insert(object.name_any());
                put(self, object);
                false
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed[kind]);
                for name in names(self).iter().filter(|name| !listed.contains(*name)) {
                    remove(self, name);
                }
                self.complete[kind] = true;
                true
            }
            watcher::Event::Apply(object) => {
                put(self, object);
                true
            }
            watcher::Event::Delete(object) => {
                remove(self, &object.name_any());
                true
            }
        }
    }
}

impl New {
    /// Remembers what an object says about itself. Whether it says anything else than before: a new generation, or
    /// another object by the same name. Most changes are of statuses.
    fn publish(&mut self, all: &mut BTreeMap<String, Published>, name: &str, object: &DynamicObject) -> bool {
        let published = Published {
            uid: object.uid().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            status: object.data.get("status").cloned().unwrap_or_default(),
        };
        let before = all.get(name);
        let same = before.is_some_and(|it| (&it.uid, it.generation) == (&published.uid, published.generation));
        self.index |= !same;
        if before != Some(&published) {
            self.statuses = true;
            all.insert(name.to_owned(), published);
        }
        !same
    }
}

fn json(object: &DynamicObject) -> String {
    // A map with text keys can be written.
    serde_json::to_string(object).unwrap_or_default()
}

impl Known {
    /// Whether anything has changed.
    fn replace(&mut self, objects: &mut Objects) -> bool {
        let snapshot = objects.snapshot(&self.current);
        let first = !std::mem::replace(&mut self.synced, true);
        let Some(snapshot) = snapshot else { return first };
        // Statuses alone change no pod's labels.
        let same = Arc::ptr_eq(&snapshot.enforced, &self.current.enforced)
            && Arc::ptr_eq(&snapshot.namespaces, &self.current.namespaces);
        let before = std::mem::replace(&mut self.current, Arc::new(snapshot));
        if !first && !same {
            self.before.push_front((Instant::now(), before));
            self.before.truncate(RECENTS);
        }
        true
    }
}
