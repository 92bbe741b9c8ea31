//! What is told about pods: by enforcers in their logs, by Kubernetes Events, and by the API server.

use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::journal::Journal;

/// Of enforcers' pods.
pub const ENFORCERS: &str = "--selector=app.kubernetes.io/name=ringfence-enforcer";

/// `kubectl logs --follow` of one enforcer of a namespace, ended with this.
pub struct Logs(Child);

impl Logs {
    /// Into a journal, from the beginning, also while the enforcer ends.
    pub fn follow(cluster: &Cluster, namespace: &str, journal: &Journal) -> Result<Self> {
        let mut kubectl = cluster.command(cluster.kubectl_program());
        kubectl.args(["-n", namespace, "logs", "--follow", "daemonset/ringfence-enforcer"]);
        let mut child = kubectl.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        journal.follow(child.stdout.take().context("no output")?);
        Ok(Self(child))
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        // It may have ended by itself, with the pod.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the pods of a selector have logged that are there now.
pub fn logs(cluster: &Cluster, namespace: &str, selector: &str) -> Result<String> {
    let mut said = cluster.kubectl(["-n", namespace, "logs", selector, "--tail=-1"]);
    // kubectl lists the pods first, and one of them may be gone by the time that it is asked.
    for _ in 0..20 {
        if !said.as_ref().is_err_and(|error| format!("{error:#}").contains("NotFound")) {
            break;
        }
        thread::sleep(Duration::from_millis(250));
        said = cluster.kubectl(["-n", namespace, "logs", selector, "--tail=-1"]);
    }
    said
}

/// Every violation that the enforcers of a namespace have reported which still have logs.
pub fn violations(cluster: &Cluster, namespace: &str) -> Result<Vec<Value>> {
    let text = logs(cluster, namespace, ENFORCERS)?;
    Ok(text.lines().filter(|line| line.starts_with('{')).filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The first violation of a pod that is as wanted.
pub fn violation(
    cluster: &mut Cluster,
    namespace: &str,
    uid: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let mut found = None;
    let result = cluster.wait_for(&format!("{what} of pod {uid}"), |cluster| {
        found = violations(cluster, namespace)?.into_iter().find(|event| event["k8sPodId"] == uid && wanted(event));
        Ok(found.is_some())
    });
    if result.is_err() {
        let all = violations(cluster, namespace)?.into_iter().filter(|event| event["k8sPodId"] == uid);
        let all: Vec<_> = all.collect();
        result.with_context(|| format!("what is told of pod {uid}: {all:?}"))?;
    }
    found.context("it was just found")
}

/// Waits for a Kubernetes Event of a pod; returns what it says.
pub fn event(cluster: &mut Cluster, namespace: &str, pod: &str, reason: &str) -> Result<String> {
    let selector = format!("--field-selector=involvedObject.name={pod},reason={reason}");
    let mut note = String::new();
    cluster.wait_for(&format!("an Event {reason} of pod {pod}"), |cluster| {
        note = cluster.kubectl(["-n", namespace, "get", "events", &selector, "-o", "jsonpath={.items[*].message}"])?;
        Ok(!note.is_empty())
    })?;
    Ok(note)
}

/// The status of a ruleset or policy, such as `rrs/base`.
pub fn status(cluster: &Cluster, what: &str) -> Result<Value> {
    let object: Value = serde_json::from_str(&cluster.kubectl(["get", what, "-o", "json"])?)?;
    Ok(object["status"].clone())
}

/// A condition of a status; null: it has none of the kind.
pub fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let all = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// Whether a pod (by its UID) is there.
pub fn is_there(cluster: &Cluster, uid: &str) -> Result<bool> {
    let uids = cluster.kubectl(["get", "pods", "--all-namespaces", "-o", "jsonpath={.items[*].metadata.uid}"])?;
    Ok(uids.split(' ').any(|other| other == uid))
}

/// Waits until it is not.
pub fn gone(cluster: &mut Cluster, uid: &str) -> Result<()> {
    cluster.wait_for(&format!("the end of pod {uid}"), |cluster| Ok(!is_there(cluster, uid)?))
}
