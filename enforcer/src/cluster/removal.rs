//! Whether this enforcer ends because it is removed, or because it is restarted or updated.
//!
//! Both begin with SIGTERM. What tells them apart is its `DaemonSet`: it is gone or being deleted only when the node is to
//! be left as it was. That is watched all the while: together with the `DaemonSet` the service account may go, and then
//! nobody answers any more. In doubt what is in the kernel stays, and goes on enforcing.

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use std::time::Duration;
use tokio::sync::watch;

/// How long a last question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Follows one `DaemonSet`.
pub struct Removal {
    api: Api<DaemonSet>,
    name: String,
    meant: watch::Receiver<bool>,
}

impl Removal {
    /// Begins.
    pub fn follow(client: Client, namespace: &str, name: &str) -> Self {
        let api: Api<DaemonSet> = Api::namespaced(client, namespace);
        let (send, meant) = watch::channel(false);
        let mut news = Box::pin(watch_object(api.clone(), name).default_backoff());
        tokio::spawn(async move {
            while let Some(news) = news.next().await {
                // A failure says nothing; it is tried again.
                if let Ok(found) = news {
                    send.send_replace(is_removed(found.as_ref()));
                }
            }
        });
        Self { api, name: name.to_owned(), meant }
    }

    /// Whether it is gone, or about to. Asked at the end.
    pub async fn is_meant(&self) -> bool {
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
}
