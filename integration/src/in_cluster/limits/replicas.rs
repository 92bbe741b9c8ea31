//! Ready replicas that a workload keeps.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::{Release, delete, deployment, event, in_mall, is_terminated, label, pods, reason, touch};
use crate::cluster::Cluster;
use crate::in_cluster::pods::{DRIFT, spec};
use crate::in_cluster::policy;
use crate::in_cluster::told::{gone, is_there};

/// A Deployment of two pods that may violate, both of which are ready: names and UIDs.
fn two(cluster: &mut Cluster, name: &str) -> Result<[(String, String); 2]> {
    let mut spec = spec(DRIFT);
    spec["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1});
    cluster.apply(&deployment(name, 2, "terminate", &spec).to_string())?;
    let mut both = Vec::new();
    cluster.wait_for("two pods", |cluster| {
        both = pods(cluster, name)?;
        Ok(both.len() == 2)
    })?;
    for (pod, _) in &both {
        touch(cluster, pod, "/tmp/ready")?;
    }
    cluster.wait_for("the label of one spare replica", |cluster| {
        both.iter().try_fold(true, |all, (pod, _)| Ok(all && spare(cluster, pod)? == "1"))
    })?;
    both.try_into().or_else(|both| bail!("{both:?}"))
}

fn spare(cluster: &Cluster, pod: &str) -> Result<String> {
    label(cluster, pod, "spare-replicas")
}

/// One of two goes, the other one is only cut off.
fn one_goes(cluster: &mut Cluster, both: &[(String, String); 2]) -> Result<()> {
    let [(first, first_uid), (second, second_uid)] = both;
    touch(cluster, first, "/tmp/go")?;
    event(cluster, first_uid, "the termination of the first", is_terminated)?;
    // The node itself knows, before anybody else does.
    touch(cluster, second, "/tmp/go")?;
    let expected = json!({"mitigation": "terminate", "limit": "minReadyReplicas"});
    let event_of_second = event(cluster, second_uid, "what the second did", |_| true)?;
    ensure!(event_of_second["mitigationHeld"] == expected, "{event_of_second}");
    ensure!(event_of_second["mitigation"] == "isolate", "{event_of_second}");
    ensure!(event_of_second["mitigationDone"] == json!(["isolated"]), "{event_of_second}");
    gone(cluster, first_uid)
}

/// Two replicas, one of which has to stay.
pub fn stay(cluster: &mut Cluster, _: &Release) -> Result<()> {
    policy::change(cluster, &json!({"limits": {"minReadyReplicas": 1}}))?;
    let both = two(cluster, "web")?;
    one_goes(cluster, &both)?;
    let (second, second_uid) = &both[1];
    cluster.wait_for("the label of none", |cluster| Ok(spare(cluster, second)? == "0"))?;
    cluster.wait_for("its isolation", |cluster| Ok(label(cluster, second, "isolated")? == "true"))?;
    let note = reason(cluster, second, "MitigationHeld")?;
    ensure!(note.starts_with("terminate held back by minReadyReplicas: RF-901"), "{note}");
    reason(cluster, second, "PodIsolated")?;

    // It is cut off, so one that replaces the first does not make it one too many.
    let mut others = Vec::new();
    cluster.wait_for("the first one's successor", |cluster| {
        others = pods(cluster, "web")?.into_iter().filter(|(_, uid)| uid != second_uid).collect();
        Ok(!others.is_empty())
    })?;
    touch(cluster, &others[0].0, "/tmp/ready")?;
    in_mall(cluster, &["wait", "--for=condition=Ready", "--timeout=180s", &format!("pod/{}", others[0].0)])?;
    // For longer than a node takes its own terminations into account.
    thread::sleep(Duration::from_secs(12));
    ensure!(spare(cluster, second)? == "0" && is_there(cluster, second_uid)?, "it was given up");
    // Another one does.
    in_mall(cluster, &["scale", "deployment/web", "--replicas=3"])?;
    cluster.wait_for("a third one", |cluster| {
        others = pods(cluster, "web")?.into_iter().filter(|(_, uid)| uid != second_uid).collect();
        Ok(others.len() == 2)
    })?;
    for (pod, _) in &others {
        touch(cluster, pod, "/tmp/ready")?;
    }
    event(cluster, second_uid, "the termination of the second", is_terminated)?;
    gone(cluster, second_uid)?;
    delete(cluster, "web")
}

/// While the webhook is away, its last word counts, and what it has said nothing of is isolated.
pub fn webhook_away(cluster: &mut Cluster, release: &Release) -> Result<()> {
    policy::change(cluster, &json!({"limits": {"minReadyReplicas": 1}}))?;
    let both = two(cluster, "alone")?;
    release.take_webhook_away(cluster)?;
    one_goes(cluster, &both)?;
    ensure!(spare(cluster, &both[1].0)? == "1", "somebody has written its label");
    let mut successor = None;
    cluster.wait_for("the first one's successor", |cluster| {
        successor = pods(cluster, "alone")?.into_iter().find(|pod| !both.contains(pod));
        Ok(successor.is_some())
    })?;
    let (pod, uid) = successor.context("it was just found")?;
    ensure!(spare(cluster, &pod)?.is_empty(), "somebody has labelled it");
    touch(cluster, &pod, "/tmp/ready")?;
    in_mall(cluster, &["wait", "--for=condition=Ready", "--timeout=180s", &format!("pod/{pod}")])?;
    touch(cluster, &pod, "/tmp/go")?;
    let event = event(cluster, &uid, "what it did", |_| true)?;
    let expected = json!({"mitigation": "terminate", "limit": "minReadyReplicas"});
    ensure!(event["mitigationHeld"] == expected && event["mitigationDone"] == json!(["isolated"]), "{event}");
    release.bring_webhook_back(cluster)?;
    delete(cluster, "alone")
}
