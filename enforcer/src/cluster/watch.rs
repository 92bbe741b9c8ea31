//! Watches at the API server that never end: with back-off while it is away.

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use ringfence_api::{RuntimePolicy, RuntimeRuleset};
use std::hash::{BuildHasher, RandomState};
use tokio::sync::mpsc;

/// The shortest and the longest time that a watch lasts, in seconds. A client gives up after 295.
const WHILE: (u32, u32) = (180, 290);

/// News of one kind of object.
pub type News<K> = watcher::Event<K>;

/// News of any of them.
#[derive(Debug)]
pub enum Heard {
    /// Pods of this node.
    Pod(Box<News<Pod>>),
    /// Namespaces, by their labels.
    Namespace(News<PartialObjectMeta<Namespace>>),
    /// Rulesets, as they are: one that is wrong must not keep the others away.
    Ruleset(News<DynamicObject>),
    /// Policies, as they are.
    Policy(News<DynamicObject>),
}

/// Starts to watch everything that a node needs. Ends when the receiver is dropped.
pub fn start(client: &Client, node: &str) -> mpsc::Receiver<Heard> {
    let (sender, receiver) = mpsc::channel(256);
    // From the API server's cache: with thousands of nodes a quorum read by each would be a storm.
    let all = || config().any_semantic();
    let pods = all().fields(&format!("spec.nodeName={node}"));
    follow("pods", watcher(Api::all(client.clone()), pods), sender.clone(), |news| Heard::Pod(Box::new(news)));
    follow("namespaces", watcher(Api::all(client.clone()), all()), sender.clone(), Heard::Namespace);
    let rulesets = Api::all_with(client.clone(), &ApiResource::erase::<RuntimeRuleset>(&()));
    follow("rulesets", watcher(rulesets, all()), sender.clone(), Heard::Ruleset);
    let policies = Api::all_with(client.clone(), &ApiResource::erase::<RuntimePolicy>(&()));
    follow("policies", watcher(policies, all()), sender, Heard::Policy);
    receiver
}

/// How everything is watched here. A watch ends after a while and begins anew at once; all nodes may have begun at the same
/// moment, such as at an API server's start, and would do so together from then on, if each had not its own while.
pub fn config() -> watcher::Config {
    let (shortest, longest) = WHILE;
    let drawn = RandomState::new().hash_one(()) % u64::from(longest - shortest + 1);
    watcher::Config::default().timeout(shortest + u32::try_from(drawn).unwrap_or_default())
}

fn follow<K: Send + 'static>(
    what: &'static str,
    stream: impl Stream<Item = watcher::Result<News<K>>> + Send + 'static,
    sender: mpsc::Sender<Heard>,
    heard: impl Fn(News<K>) -> Heard + Send + 'static,
) {
    tokio::spawn(async move {
        let mut stream = Box::pin(stream.default_backoff());
        let mut failing = false;
        while let Some(news) = stream.next().await {
            match news {
                Ok(news) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("{what} can be watched again");
                    }
                    if sender.send(heard(news)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "{what} can't be watched: what is known stays in force, trying again");
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn watches_do_not_end_together() {
        let times: BTreeSet<_> = (0..1_000).filter_map(|_| config().timeout).collect();
        assert!(times.len() > 50, "{times:?}");
        assert!(times.iter().all(|time| (WHILE.0..=WHILE.1).contains(time)), "{times:?}");
    }
}
