//! Pods that no datapath covers, so that they can't be isolated.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{NAMESPACE, Release, delete, deployment, event, in_mall, is_terminated, pods, reason, touch};
use crate::cluster::Cluster;
use crate::in_cluster::pods::spec;
use crate::in_cluster::policy;
use crate::in_cluster::told::{condition, gone, is_there, status};

/// Makes the enforcer isolate by interfaces alone: a pod that has the node's own is not covered then.
fn by_interfaces_alone(cluster: &Cluster) -> Result<()> {
    const ARGUMENT: &str = "--datapath=tcx";
    let own = ["-n", NAMESPACE];
    let words = ["get", "daemonset", "ringfence-enforcer", "-o", "jsonpath={.spec.template.spec.containers[0].args}"];
    if cluster.kubectl(own.iter().chain(&words))?.contains(ARGUMENT) {
        return Ok(());
    }
    let patch = json!([{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": ARGUMENT}]);
    let words = ["patch", "daemonset", "ringfence-enforcer", "--type=json", "-p", &patch.to_string()];
    cluster.kubectl(own.iter().chain(&words))?;
    let words = ["rollout", "status", "daemonset/ringfence-enforcer", "--timeout=120s"];
    cluster.kubectl(own.iter().chain(&words)).map(drop)
}

/// A pod of a Deployment on the node's own network that may violate: name and UID. Its process is still there when user
/// space comes.
fn bare(cluster: &mut Cluster) -> Result<(String, String)> {
    let stays = "cp /bin/busybox /tmp/sleep; until [ -e /tmp/go ]; do sleep 0.1; done; while :; do /tmp/sleep 99; done";
    let mut spec = spec(stays);
    spec["hostNetwork"] = json!(true);
    cluster.apply(&deployment("bare", 1, "isolate", &spec).to_string())?;
    in_mall(cluster, &["rollout", "status", "deployment/bare", "--timeout=180s"])?;
    pods(cluster, "bare")?.into_iter().next().context("no pod")
}

/// Where isolation does not work termination takes its place, and where that is held back, too, the end of the process.
pub fn held(cluster: &mut Cluster, _: &Release) -> Result<()> {
    policy::change(cluster, &json!({"limits": {"minReadyReplicas": 1, "maxTerminations": null}}))?;
    by_interfaces_alone(cluster)?;
    let (pod, uid) = bare(cluster)?;
    let mut last = Value::Null;
    let told = cluster.wait_for("the failure in the ruleset's status", |cluster| {
        last = status(cluster, "rrs/isolated")?;
        let degraded = condition(&last, "Degraded");
        Ok(degraded["status"] == "True" && degraded["reason"] == "NodesFail" && last["failures"][0]["nodes"] == 1)
    });
    told.with_context(|| last.to_string())?;
    let why = last["failures"][0]["reason"].as_str().unwrap_or_default();
    ensure!(why.starts_with("no datapath covers some of its pods"), "{last}");
    ensure!(condition(&status(cluster, "rrs/terminated")?, "Degraded")["status"] == "False", "another one fails too");

    touch(cluster, &pod, "/tmp/go")?;
    let event = event(cluster, &uid, "what was done", |_| true)?;
    ensure!(event["mitigationHeld"] == json!({"mitigation": "terminate", "limit": "minReadyReplicas"}), "{event}");
    ensure!(event["mitigationDone"] == json!(["killed"]), "{event}");
    ensure!(event["mitigationFailed"][0].as_str().is_some_and(|why| why.contains("no datapath")), "{event}");
    ensure!(is_there(cluster, &uid)?, "it was ended");
    delete(cluster, "bare")?;
    cluster.wait_for("the end of the failure", |cluster| {
        let now = status(cluster, "rrs/isolated")?;
        Ok(condition(&now, "Degraded")["status"] == "False" && now["failures"].is_null())
    })
}

/// Where nothing holds it back, the pod goes, at the API server too, and what is told says why.
pub fn terminated(cluster: &mut Cluster, _: &Release) -> Result<()> {
    policy::change(cluster, &json!({"limits": {"minReadyReplicas": null, "maxTerminations": null}}))?;
    by_interfaces_alone(cluster)?;
    let (pod, uid) = bare(cluster)?;
    touch(cluster, &pod, "/tmp/go")?;
    let event = event(cluster, &uid, "its termination", is_terminated)?;
    ensure!(event["mitigation"] == "isolate" && event["mitigationHeld"].is_null(), "{event}");
    let done = event["mitigationDone"].as_array().context("nothing was done")?;
    ensure!(!done.contains(&json!("isolated")), "{event}");
    let why = "no datapath covers this container: it is terminated instead of isolated";
    ensure!(event["mitigationFailed"] == json!([why]), "{event}");
    gone(cluster, &uid)?;
    let note = reason(cluster, &pod, "PodTerminated")?;
    ensure!(note.starts_with("RF-901") && note.contains(why), "{note}");
    delete(cluster, "bare")
}
