//! Tells the cluster what the node has to report, by an annotation of the enforcer's own pod: when that has changed, and
//! seldom.

use crate::agent::Command;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use ringfence_api::{NodeReport, names::REPORT_ANNOTATION};
use serde_json::json;
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// How often it is looked whether there is anything new.
const LOOK: Duration = Duration::from_secs(5);
/// Between two writes at least: there may be thousands of nodes.
const PAUSE: Duration = Duration::from_secs(30);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reports until the agent is gone.
pub async fn report(client: Client, namespace: String, pod: String, agent: mpsc::Sender<Command>) {
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let mut told: Option<(NodeReport, Instant)> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        if told.as_ref().is_some_and(|(_, at)| at.elapsed() < PAUSE) {
            continue;
        }
        let (answer, answered) = oneshot::channel();
        if agent.send(Command::Report(answer)).await.is_err() {
            return;
        }
        let report = match answered.await {
            Ok(Ok(report)) => report,
            Ok(Err(problem)) => {
                tracing::warn!("there is no report of this node: {problem}");
                continue;
            }
            Err(_) => return,
        };
        if told.as_ref().is_some_and(|(before, _)| *before == report) {
            continue;
        }
        let text = serde_json::to_string(&report).unwrap_or_default();
        let patch = Patch::Merge(json!({"metadata": {"annotations": {REPORT_ANNOTATION: text}}}));
        match tokio::time::timeout(PATIENCE, pods.patch_metadata(&pod, &PatchParams::default(), &patch)).await {
            Ok(Ok(_)) => told = Some((report, Instant::now())),
            Ok(Err(error)) => tracing::debug!(%error, "the report of this node can't be written, trying again"),
            Err(_) => tracing::debug!("the report of this node can't be written, trying again"),
        }
    }
}
