//! The watches of many enforcers: each has its own connections, and the very code of an enforcer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kube::config::Kubeconfig;
use kube::runtime::watcher::Event;
use ringfence_enforcer::cluster::{
    removal::Removal,
    watch::{self, Heard},
};
use tokio::task::JoinSet;

use super::site::{self, NAMESPACE};

/// What every enforcer asks about, for its end.
const DAEMON_SET: &str = "ringfence-enforcer";
const CHOICE: &str = "ringfence-removal";

/// Kinds that an enforcer watches.
pub const KINDS: [&str; 4] = ["pods", "namespaces", "rulesets", "policies"];

/// Clients that are made at a time.
const AT_ONCE: usize = 64;

/// A guard against hanging.
const LIMIT: Duration = Duration::from_mins(5);

/// What all of them have heard, by kind.
#[derive(Default)]
struct Ears {
    /// Lists that began.
    begun: [AtomicU64; KINDS.len()],
    /// Lists that were complete.
    complete: [AtomicU64; KINDS.len()],
    /// Changes.
    changes: [AtomicU64; KINDS.len()],
    /// When each first heard of which version of the policy.
    policies: Mutex<Vec<(i64, Instant)>>,
}

impl Ears {
    fn hear(&self, heard: &Heard) {
        match heard {
            Heard::Pod(news) => self.count(0, news),
            Heard::Namespace(news) => self.count(1, news),
            Heard::Ruleset(news) => self.count(2, news),
            Heard::Policy(news) => {
                self.count(3, news);
                if let Event::Apply(policy) = news {
                    let generation = policy.metadata.generation.unwrap_or_default();
                    self.policies.lock().unwrap_or_else(PoisonError::into_inner).push((generation, Instant::now()));
                }
            }
        }
    }

    fn count<K>(&self, kind: usize, news: &Event<K>) {
        let counter = match news {
            Event::Init => &self.begun,
            Event::InitDone => &self.complete,
            Event::Apply(_) | Event::Delete(_) => &self.changes,
            Event::InitApply(_) => return,
        };
        counter[kind].fetch_add(1, Ordering::Relaxed);
    }
}

/// Numbers of all, by kind.
pub type Numbers = [u64; KINDS.len()];

fn numbers(counters: &[AtomicU64; KINDS.len()]) -> Numbers {
    counters.each_ref().map(|counter| counter.load(Ordering::Relaxed))
}

/// Enforcers without an agent. Dropped, they are gone.
pub struct Fleet {
    ears: Arc<Ears>,
    size: usize,
    _tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts one for each node, all at once, and waits until every one has listed everything.
    pub async fn start(config: &Kubeconfig, nodes: &[String]) -> Result<Self> {
        let ears = Arc::new(Ears::default());
        let make = |node: &String| {
            let node = node.clone();
            async move { anyhow::Ok((site::client(config.clone()).await?, node)) }
        };
        let clients: Vec<_> = stream::iter(nodes).map(make).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut tasks = JoinSet::new();
        for (client, node) in clients {
            let ears = Arc::clone(&ears);
            tasks.spawn(async move {
                let _removal = Removal::follow(&client, NAMESPACE, DAEMON_SET, Some(CHOICE));
                let mut heard = watch::start(&client, &node);
                while let Some(heard) = heard.recv().await {
                    ears.hear(&heard);
                }
            });
        }
        let fleet = Self { ears, size: nodes.len(), _tasks: tasks };
        let all = u64::try_from(nodes.len())?;
        fleet.wait_for("the first lists", |fleet| fleet.complete().iter().all(|lists| *lists >= all)).await?;
        Ok(fleet)
    }

    /// Lists that began.
    pub fn begun(&self) -> Numbers {
        numbers(&self.ears.begun)
    }

    /// Lists that were complete.
    pub fn complete(&self) -> Numbers {
        numbers(&self.ears.complete)
    }

    /// Changes that were told.
    pub fn changes(&self) -> Numbers {
        numbers(&self.ears.changes)
    }

    /// Waits until every one has heard of a version of the policy; how long each took from `since`.
    pub async fn heard_of_policy(&self, generation: i64, since: Instant) -> Result<Vec<Duration>> {
        let times = || -> Vec<Duration> {
            let policies = self.ears.policies.lock().unwrap_or_else(PoisonError::into_inner);
            let of = policies.iter().filter(|(heard, _)| *heard == generation);
            of.map(|(_, at)| at.saturating_duration_since(since)).collect()
        };
        self.wait_for("the policy at every enforcer", |fleet| times().len() >= fleet.size).await?;
        Ok(times())
    }

    async fn wait_for(&self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let until = Instant::now() + LIMIT;
        while !done(self) {
            ensure!(
                Instant::now() < until,
                "{what}: not after {} s; complete lists: {:?}",
                LIMIT.as_secs(),
                self.complete()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}
