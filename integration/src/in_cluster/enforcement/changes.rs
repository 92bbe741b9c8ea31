//! Labels, rulesets and the policy change, and running pods are governed by what is new.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{NAMESPACE, OBJECTS, Release, VALUES, delete, event, exec, field, pod, start};
use crate::cluster::{ADMINISTRATOR, Cluster};
use crate::in_cluster::audit::Audit;
use crate::in_cluster::pods::{DRIFT, DRIFT_NOW, spec};
use crate::in_cluster::told::{self, gone};

/// Violates fifty times a second.
const RAPIDLY: &str = "cp /bin/busybox /tmp/true; while :; do /tmp/true; usleep 20000; done";

/// What other labels ask for is done by the next violation, within a second after the API server was told of them.
pub fn labels_change(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let uid = start(cluster, &pod("relabelled", "log", &spec(RAPIDLY)))?;
    event(cluster, &uid, "RF-901")?;
    cluster.kubectl(["-n", "shop", "label", "pod", "relabelled", "on-drift=terminate", "--overwrite"])?;
    within_a_second(cluster, &uid, "labels of the pod", |about| {
        about["resource"] == "pods" && about["name"] == "relabelled" && about["subresource"].is_null()
    })?;
    gone(cluster, &uid)?;
    // The same by the labels of the namespace.
    cluster.kubectl(["label", "namespace", "shop", "env=test", "--overwrite"])?;
    let uid = start(cluster, &pod("elsewhere", "terminate", &spec(RAPIDLY)))?;
    event(cluster, &uid, "RF-901")?;
    cluster.kubectl(["label", "namespace", "shop", "env=prod", "--overwrite"])?;
    within_a_second(cluster, &uid, "labels of the namespace", |about| {
        about["resource"] == "namespaces" && about["name"] == "shop"
    })?;
    gone(cluster, &uid)
}

/// How long after the administrator's last request about something a pod was terminated: by the API server's clock, when
/// it got the request, and the kernel's. They are the same.
fn within_a_second(cluster: &mut Cluster, uid: &str, what: &str, about: impl Fn(&Value) -> bool) -> Result<()> {
    let ended = told::violation(cluster, NAMESPACE, uid, what, |event| event["mitigation"] == "terminate")?;
    let (requests, _) = Audit::since(cluster, 0)?;
    let by_hand = |request: &&Value| request["user"]["username"] == ADMINISTRATOR && request["verb"] == "patch";
    let mut requests = requests.iter().filter(by_hand).filter(|request| about(&request["objectRef"]));
    let asked = requests.next_back().with_context(|| format!("nobody has changed the {what}"))?;
    let time = |value: &Value| value.as_str().unwrap_or_default().parse::<Timestamp>();
    let took = time(&ended["eventTime"])?.duration_since(time(&asked["requestReceivedTimestamp"])?);
    println!("    {what}: in force after {} ms", took.as_millis());
    ensure!(took.is_positive() && took < SignedDuration::from_secs(1), "{what}: in force after {took:#}");
    Ok(())
}

pub fn ruleset_changes(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let uid = start(cluster, &pod("stricter", "log", &spec(DRIFT_NOW)))?;
    event(cluster, &uid, "RF-901")?;
    let stricter = r#"{"spec": {"rules": [{"rule": "RF-501", "mitigation": "log"}, {"rule": "RF-901", "mitigation": "terminate"}]}}"#;
    cluster.kubectl(["patch", "rrs", "everywhere", "--type=merge", "-p", stricter])?;
    gone(cluster, &uid)?;
    cluster.apply(OBJECTS).map(drop)
}

/// A policy that does not exist is made the active one: the last good one stays in force, also after everything has been
/// started anew, and pods keep their labels.
pub fn policy_missing(cluster: &mut Cluster, release: &Release) -> Result<()> {
    let policy = "{.metadata.labels.ringfence\\.dev/policy}";
    let uid = start(cluster, &pod("kept", "isolate", &spec(DRIFT)))?;
    ensure!(field(cluster, "kept", policy)? == "main", "it has no label");
    release.upgrade(cluster, &[&VALUES[..], &["policy.active=nosuch"]].concat())?;
    exec(cluster, "kept", "touch /tmp/go")?;
    let event = event(cluster, &uid, "RF-901")?;
    ensure!(event["mitigationDone"][0] == "isolated" && event["policyName"] == "main", "{event}");
    ensure!(field(cluster, "kept", policy)? == "main", "its label is gone");
    release.upgrade(cluster, &[&VALUES[..], &["policy.active=main"]].concat())?;
    delete(cluster, &["kept"])
}

/// Under the policy of the dry run nothing is ended.
pub fn policy_switch(cluster: &mut Cluster, release: &Release) -> Result<()> {
    release.upgrade(cluster, &[&VALUES[..], &["policy.active=dry-run"]].concat())?;
    let uid = start(cluster, &pod("dry", "terminate", &spec(DRIFT_NOW)))?;
    let event = event(cluster, &uid, "RF-901")?;
    ensure!(event["mitigation"] == "log" && event["policyName"] == "dry-run", "{event}");
    ensure!(field(cluster, "dry", "{.metadata.uid}")? == uid, "it was replaced");
    delete(cluster, &["dry"])
}
