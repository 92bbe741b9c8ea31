//! Whether this enforcer ends because it is removed, or because it is restarted or updated.
//!
//! Both begin with SIGTERM. What tells them apart is its `DaemonSet`: it is gone or being deleted only when the node is to
//! be left as it was. That is watched all the while: together with the `DaemonSet` the service account may go, and then
//! nobody answers any more. In doubt what is in the kernel stays, and goes on enforcing.

use super::{
    listing::{Item, Listing},
    watch,
};
use crate::uninstall::IsolatedPods;
use clap::ValueEnum;
use futures_util::StreamExt;
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::ConfigMap};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, time::Duration};
use tokio::sync::watch::{Receiver, channel};

/// How long a last question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Key of the `ConfigMap` that says what becomes of isolated pods.
const ISOLATED_PODS: &str = "isolatedPods";

/// Follows one `DaemonSet`, and what is to be done when it is removed.
pub struct Removal {
    api: Api<DaemonSet>,
    name: String,
    meant: Receiver<bool>,
    isolated: Receiver<IsolatedPods>,
}

impl Removal {
    /// Begins. `choice` is the name of the `ConfigMap` that says what becomes of isolated pods.
    pub fn follow(client: &Client, namespace: &str, name: &str, choice: Option<&str>) -> Self {
        let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
        let (send, meant) = channel(false);
        each(&api, name, move |found| {
            send.send_replace(is_removed(found.as_ref()));
        });
        let (send, isolated) = channel(IsolatedPods::default());
        if let Some(choice) = choice {
            let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            each(&maps, choice, move |found| {
                if let Some(chosen) = found.as_ref().and_then(chosen) {
                    send.send_replace(chosen);
                }
            });
        }
        Self { api, name: name.to_owned(), meant, isolated }
    }

    /// What becomes of isolated pods if it is gone, or about to; none: it is not. Asked at the end.
    pub async fn meant(&self) -> Option<IsolatedPods> {
        self.is_meant().await.then(|| *self.isolated.borrow())
    }

    async fn is_meant(&self) -> bool {
        if *self.meant.borrow() {
            return true;
        }
        // The watch may be a moment late.
        match tokio::time::timeout(PATIENCE, self.api.get_opt(&self.name)).await {
            Ok(Ok(found)) => is_removed(found.as_ref()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "whether this is a removal is not known: what is in the kernel stays");
                false
            }
            Err(_) => {
                tracing::warn!("the API server does not say whether this is a removal: what is in the kernel stays");
                false
            }
        }
    }
}

/// Hears all news of one object; none: it is gone. A failure says nothing; it is tried again.
fn each<K>(api: &Api<K>, name: &str, hear: impl Fn(Option<K>) + Send + 'static)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let only = watch::config().fields(&format!("metadata.name={name}"));
    let mut news = watcher(api.clone(), only).default_backoff().boxed();
    let mut listing = Listing::default();
    tokio::spawn(async move {
        while let Some(news) = news.next().await {
            match news.ok().and_then(|news| listing.hear(news, ResourceExt::name_any)) {
                Some(Item::There(found)) => hear(Some(found)),
                Some(Item::Gone(_)) => hear(None),
                Some(Item::Listed(names)) if names.is_empty() => hear(None),
                Some(Item::Listed(_)) | None => {}
            }
        }
    });
}

/// What was chosen; none, with a message where it is wrong: what was chosen before goes on to be.
fn chosen(found: &ConfigMap) -> Option<IsolatedPods> {
    let value = found.data.as_ref()?.get(ISOLATED_PODS)?;
    let chosen = IsolatedPods::from_str(value, false);
    if chosen.is_err() {
        let name = found.metadata.name.as_deref().unwrap_or_default();
        tracing::error!("configmap {name}: {ISOLATED_PODS} is '{value}'; release or keep would be right");
    }
    chosen.ok()
}

fn is_removed(found: Option<&DaemonSet>) -> bool {
    found.is_none_or(|found| found.metadata.deletion_timestamp.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_deleted_is_as_good_as_gone() {
        let json = serde_json::json!({"metadata": {"name": "ringfence-enforcer"}});
        let mut found: DaemonSet = serde_json::from_value(json).unwrap();
        assert!(!is_removed(Some(&found)));
        found.metadata.deletion_timestamp = serde_json::from_str("\"2026-11-28T00:00:00Z\"").unwrap();
        assert!(is_removed(Some(&found)));
        assert!(is_removed(None));
    }

    #[test]
    fn what_becomes_of_isolated_pods_is_chosen() {
        let map = |data: serde_json::Value| serde_json::from_value(serde_json::json!({"data": data})).unwrap();
        assert_eq!(chosen(&map(serde_json::json!({"isolatedPods": "keep"}))), Some(IsolatedPods::Keep));
        assert_eq!(chosen(&map(serde_json::json!({"isolatedPods": "release"}))), Some(IsolatedPods::Release));
        assert_eq!(chosen(&map(serde_json::json!({"isolatedPods": "Kept"}))), None);
        assert_eq!(chosen(&map(serde_json::json!({}))), None);
    }
}
