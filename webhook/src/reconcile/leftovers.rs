//! What enforcers leave on pods when the node side is switched off: marks of isolated pods, and readiness gates that nobody
//! opens any more. Their own rights go with them; so this is done here, as long as it is switched off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, Patch, PatchParams};
use kube::core::Object;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use ringfence_api::names::{
    CONNECTED_CONDITION, ISOLATED_AT_ANNOTATION, ISOLATED_BY_ANNOTATION, ISOLATED_LABEL, is_isolated,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::Pace;
use super::watch::Status;
use crate::metrics::Metrics;

/// After a failed write everything is looked at again.
const AGAIN: Duration = Duration::from_secs(30);

/// What becomes of pods that are isolated when the node side is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IsolatedPods {
    /// They have their network again, and their marks go.
    Release,
    /// Their nodes keep them cut off, and their marks say so.
    Keep,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    readiness_gates: Vec<Gate>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gate {
    condition_type: String,
}

type Shown = Object<Spec, Status>;

/// Tidies up for ever: new pods may have gates too.
pub(super) async fn tidy(client: Client, isolated: IsolatedPods, pace: Pace, metrics: Arc<Metrics>) {
    loop {
        let pods: Api<Shown> = Api::all_with(client.clone(), &ApiResource::erase::<Pod>(&()));
        let mut events = watcher(pods, watcher::Config::default()).default_backoff().applied_objects().boxed();
        let mut turn = tokio::time::interval(Duration::from_secs(1) / pace.labels.get());
        let mut failed = BTreeSet::new();
        let again = tokio::time::sleep(AGAIN);
        tokio::pin!(again);
        loop {
            let shown = tokio::select! {
                shown = events.next() => shown,
                () = &mut again, if !failed.is_empty() => break,
            };
            // A failure of the watch is told by the other one, and tried again.
            let Some(Ok(pod)) = shown else { continue };
            for (what, patch) in wrong(&pod, isolated, Timestamp::now()) {
                turn.tick().await;
                let written = write(&client, &pod, &patch).await;
                metrics.write(what, written.is_ok());
                let name = (pod.namespace().unwrap_or_default(), pod.name_any());
                match written {
                    Ok(()) => {
                        info!(namespace = name.0, pod = name.1, "{what}: nothing of an enforcer's is left");
                        failed.remove(&name);
                    }
                    // It changed meanwhile, or is gone: the watch says so.
                    Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
                    Err(error) => {
                        warn!(namespace = name.0, pod = name.1, %error, "{what} can't be tidied up, trying again");
                        failed.insert(name);
                        again.as_mut().reset(tokio::time::Instant::now() + AGAIN);
                    }
                }
            }
        }
    }
}

/// A patch of a pod, or of its status.
#[derive(Debug, PartialEq)]
enum Change {
    Marks(Value),
    Gate(Value),
}

/// What is not as it has to be without enforcers.
fn wrong(pod: &Shown, isolated: IsolatedPods, now: Timestamp) -> Vec<(&'static str, Change)> {
    let own = json!({"uid": pod.uid(), "resourceVersion": pod.resource_version()});
    let cut_off = is_isolated(pod.labels()) && isolated == IsolatedPods::Keep;
    let mut changes = Vec::new();
    let marks = [ISOLATED_BY_ANNOTATION, ISOLATED_AT_ANNOTATION];
    let marked =
        pod.labels().contains_key(ISOLATED_LABEL) || marks.iter().any(|it| pod.annotations().contains_key(*it));
    if marked && !cut_off {
        let mut metadata = own;
        metadata["labels"] = json!({ISOLATED_LABEL: null});
        metadata["annotations"] = json!({marks[0]: null, marks[1]: null});
        changes.push(("marks", Change::Marks(json!({"metadata": metadata}))));
    }
    let gated = pod.spec.readiness_gates.iter().any(|gate| gate.condition_type == CONNECTED_CONDITION);
    let connected = pod.status.as_ref().is_some_and(|status| status.is(CONNECTED_CONDITION));
    if gated && !cut_off && !connected {
        let condition = json!({
            "type": CONNECTED_CONDITION, "status": "True", "reason": "NotEnforced", "lastTransitionTime": format!("{now:.0}"),
        });
        // The version may be another by now: the uid alone says whose it is.
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
        changes.push(("gates", Change::Gate(patch)));
    }
    changes
}

async fn write(client: &Client, pod: &Shown, change: &Change) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let (name, parameters) = (pod.name_any(), PatchParams::default());
    match change {
        Change::Marks(patch) => api.patch_metadata(&name, &parameters, &Patch::Merge(patch)).await.map(drop),
        Change::Gate(patch) => api.patch_status(&name, &parameters, &Patch::Strategic(patch)).await.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(labels: &Value, gated: bool, connected: Option<&str>) -> Shown {
        let conditions: Vec<Value> =
            connected.iter().map(|status| json!({"type": CONNECTED_CONDITION, "status": status})).collect();
        let listed = if gated { json!([{"conditionType": CONNECTED_CONDITION}]) } else { json!([]) };
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7", "labels": labels},
            "spec": {"readinessGates": listed}, "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn what(pod: &Shown, isolated: IsolatedPods) -> Vec<&'static str> {
        wrong(pod, isolated, Timestamp::UNIX_EPOCH).into_iter().map(|(what, _)| what).collect()
    }

    #[test]
    fn marks_go_and_gates_open() {
        let marked = json!({ISOLATED_LABEL: "true", "app": "web"});
        let cut_off = pod(&marked, true, Some("False"));
        assert_eq!(what(&cut_off, IsolatedPods::Release), ["marks", "gates"]);
        let (_, change) = wrong(&cut_off, IsolatedPods::Release, Timestamp::UNIX_EPOCH).swap_remove(0);
        let Change::Marks(patch) = change else { panic!("{change:?}") };
        assert_eq!(patch["metadata"]["labels"], json!({ISOLATED_LABEL: null}));
        assert_eq!(what(&cut_off, IsolatedPods::Keep), [""; 0], "it is cut off still");
        let new = pod(&json!({}), true, None);
        assert_eq!(what(&new, IsolatedPods::Release), ["gates"]);
        assert_eq!(what(&new, IsolatedPods::Keep), ["gates"]);
        assert_eq!(what(&pod(&json!({"app": "web"}), true, Some("True")), IsolatedPods::Release), [""; 0]);
        assert_eq!(what(&pod(&json!({"app": "web"}), false, None), IsolatedPods::Release), [""; 0]);
    }
}
