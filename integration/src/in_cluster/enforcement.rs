//! Installed by the chart, webhook and all: pods of every kind break a rule, and the node answers.

mod changes;
mod interruptions;
mod isolation;
mod kinds;
mod spared;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use self::interruptions::runs;
use super::pods::{self, DRIFT, DRIFT_NOW, SERVER, spec};
use super::release::Release;
use super::told::{self, gone};
use super::{Context, OfRelease, Part, names_of, over_release, rights};
use crate::cluster::{Cluster, Helm};
use crate::suite::Report;

pub const PART: Part = Part { names, run };

/// In this order: they share the release, and the last one removes it.
const TESTS: [(&str, OfRelease); 25] = [
    ("enforcement/log", log),
    ("enforcement/isolate-and-release", isolate),
    ("enforcement/live-connections", isolation::live_connections),
    ("enforcement/isolation-exceptions", isolation::exceptions),
    ("enforcement/readiness-gate", readiness_gate),
    ("enforcement/terminate", terminate),
    ("enforcement/excluded-namespace", excluded),
    ("enforcement/kill-switch", spared::suspended),
    ("enforcement/own-and-static-pods", spared::own_and_static),
    ("enforcement/workloads", kinds::workloads),
    ("enforcement/host-network", kinds::host_network),
    ("enforcement/init-container", kinds::init_container),
    ("enforcement/several-containers", kinds::several_containers),
    ("enforcement/ephemeral-container", kinds::ephemeral_container),
    ("enforcement/first-instruction", kinds::first_instruction),
    ("enforcement/labels-change", changes::labels_change),
    ("enforcement/ruleset-changes", changes::ruleset_changes),
    ("enforcement/killed", interruptions::killed),
    ("enforcement/rolling-update", interruptions::rolling_update),
    ("enforcement/api-server-away", interruptions::api_server_away),
    ("enforcement/started-without-api-server", interruptions::started_alone),
    ("enforcement/policy-missing", changes::policy_missing),
    ("enforcement/policy-switch", changes::policy_switch),
    ("enforcement/rights", rights),
    ("enforcement/removed", removed),
];

const OBJECTS: &str = include_str!("enforcement/objects.yaml");

const NAMESPACE: &str = "guard";
/// The policies are the test's own, and nothing is kept afterwards.
const VALUES: [&str; 2] = ["policy.create=false", "crds.keep=false"];

fn names() -> Vec<String> {
    names_of(&TESTS)
}

fn run(context: &mut Context, report: &mut Report) {
    over_release(context, report, ("enforcement/installed", prepare), &TESTS);
}

fn prepare(context: &mut Context) -> Result<Release> {
    let release = Release::prepare(context, Helm::V4, "ringfence", NAMESPACE)?;
    let cluster = &mut context.cluster;
    // The policy is missing yet: all of it starts all the same.
    release.install(cluster, &[&VALUES[..], &["policy.active=main"]].concat())?;
    cluster.apply(OBJECTS)?;
    release.enforces(cluster, "everywhere")?;
    Ok(release)
}

fn rollout(cluster: &Cluster, namespace: &str, what: &str) -> Result<()> {
    cluster.kubectl(["-n", namespace, "rollout", "status", what, "--timeout=180s"]).map(drop)
}

fn pod(name: &str, on_drift: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name, "on-drift": on_drift}},
        "spec": spec,
    })
}

/// Makes a pod, and waits until it runs; returns its UID.
fn start(cluster: &Cluster, pod: &Value) -> Result<String> {
    start_all(cluster, std::slice::from_ref(pod))?;
    field(cluster, pod["metadata"]["name"].as_str().context("it has a name")?, "{.metadata.uid}")
}

/// Makes pods, and waits until all of them run.
fn start_all(cluster: &Cluster, pods: &[Value]) -> Result<()> {
    cluster.apply(&pods::list(pods))?;
    let name = |pod: &Value| format!("pod/{}", pod["metadata"]["name"].as_str().unwrap_or_default());
    let wait = ["-n", "shop", "wait", "--for=condition=Ready", "--timeout=180s"].map(str::to_owned);
    cluster.kubectl(wait.into_iter().chain(pods.iter().map(name))).map(drop)
}

/// The pod that others are reached from, and that serves. It stays.
fn peer(cluster: &Cluster) -> Result<()> {
    start(cluster, &pod("peer", "log", &spec(&format!("{SERVER} sleep 999999")))).map(drop)
}

fn field(cluster: &Cluster, pod: &str, path: &str) -> Result<String> {
    cluster.kubectl(["-n", "shop", "get", "pod", pod, "-o", &format!("jsonpath={path}")])
}

fn exec(cluster: &Cluster, pod: &str, script: &str) -> Result<String> {
    exec_in(cluster, pod, "main", script)
}

fn exec_in(cluster: &Cluster, pod: &str, container: &str, script: &str) -> Result<String> {
    cluster.kubectl(["-n", "shop", "exec", pod, "-c", container, "--", "sh", "-c", script])
}

/// Everything that the enforcer has reported.
fn events(cluster: &Cluster) -> Result<Vec<Value>> {
    told::violations(cluster, NAMESPACE)
}

/// The first event of a pod for a rule.
fn event(cluster: &mut Cluster, uid: &str, rule: &str) -> Result<Value> {
    told::violation(cluster, NAMESPACE, uid, rule, |event| event["ruleId"] == rule)
}

fn reason(cluster: &mut Cluster, pod: &str, reason: &str) -> Result<()> {
    told::event(cluster, "shop", pod, reason).map(drop)
}

fn delete(cluster: &Cluster, pods: &[&str]) -> Result<()> {
    let words = ["-n", "shop", "delete", "pod", "--force", "--ignore-not-found"];
    cluster.kubectl(words.iter().chain(pods)).map(drop)
}

fn log(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let uid = start(cluster, &pod("logged", "log", &spec(DRIFT_NOW)))?;
    let event = event(cluster, &uid, "RF-901")?;
    for (key, value) in [
        ("mitigation", "log"),
        ("node", crate::cluster::NODE_NAME),
        ("policyName", "main"),
        ("ruleSetName", "everywhere"),
        ("k8sNamespace", "shop"),
        ("k8sPodName", "logged"),
        ("containerName", "main"),
        ("objectFilePath", "/tmp/true"),
    ] {
        ensure!(event[key] == value, "{key} is {} instead of {value}", event[key]);
    }
    let id = field(cluster, "logged", "{.status.containerStatuses[0].containerID}")?;
    ensure!(id == format!("containerd://{}", event["containerId"].as_str().unwrap_or_default()), "{id}: {event}");
    reason(cluster, "logged", "RulesetViolation")?;
    ensure!(field(cluster, "logged", "{.metadata.uid}")? == uid, "it was replaced");
    delete(cluster, &["logged"])
}

/// Whether `from` gets an answer of the web server of `to`.
fn reaches(cluster: &Cluster, from: &str, to: &str) -> bool {
    pods::reaches(cluster, "shop", from, to)
}

fn isolate(cluster: &mut Cluster, _: &Release) -> Result<()> {
    peer(cluster)?;
    let uid = start(cluster, &pod("cut", "isolate", &spec(&format!("{SERVER} {DRIFT}"))))?;
    let (cut, peer) = (field(cluster, "cut", "{.status.podIP}")?, field(cluster, "peer", "{.status.podIP}")?);
    cluster.wait_for("both servers", |cluster| Ok(reaches(cluster, "peer", &cut) && reaches(cluster, "cut", &peer)))?;

    exec(cluster, "cut", "touch /tmp/go")?;
    let event = event(cluster, &uid, "RF-901")?;
    ensure!(event["mitigationDone"][0] == "isolated", "{event}");
    ensure!(event["latencyNs"].as_u64().is_some_and(|latency| latency > 0), "{event}");
    ensure!(!reaches(cluster, "peer", &cut), "a peer reaches it");
    ensure!(!reaches(cluster, "cut", &peer), "it reaches a peer");
    let label = "{.metadata.labels.ringfence\\.dev/isolated}";
    cluster.wait_for("the label", |cluster| Ok(field(cluster, "cut", label)? == "true"))?;
    ensure!(field(cluster, "cut", "{.metadata.annotations.ringfence\\.dev/isolated-by}")? == "RF-901", "by whom?");
    reason(cluster, "cut", "PodIsolated")?;

    // It goes on violating: it must be something else by then.
    cluster.kubectl(["-n", "shop", "label", "pod", "cut", "on-drift-", "ringfence.dev/isolated-"])?;
    cluster.wait_for("its network", |cluster| Ok(reaches(cluster, "peer", &cut) && reaches(cluster, "cut", &peer)))?;
    reason(cluster, "cut", "PodReleased")?;
    let annotations = "{.metadata.annotations.ringfence\\.dev/isolated-by}";
    cluster.wait_for("its annotations", |cluster| Ok(field(cluster, "cut", annotations)?.is_empty()))?;
    delete(cluster, &["cut"])
}

/// A pod with our gate is an endpoint of its Service while it has its network.
fn readiness_gate(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let mut spec = spec(DRIFT);
    spec["readinessGates"] = json!([{"conditionType": "ringfence.dev/connected"}]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "gated", "namespace": "shop"},
        "spec": {"selector": {"app": "gated"}, "ports": [{"port": 80}]},
    });
    cluster.apply(&service.to_string())?;
    // Ready: the gate is open.
    let uid = start(cluster, &pod("gated", "isolate", &spec))?;
    let ready = "jsonpath={.items[*].endpoints[*].conditions.ready}";
    let slices = ["-n", "shop", "get", "endpointslices", "-l", "kubernetes.io/service-name=gated", "-o", ready];
    cluster.wait_for("an endpoint", |cluster| Ok(cluster.kubectl(slices)? == "true"))?;
    exec(cluster, "gated", "touch /tmp/go")?;
    event(cluster, &uid, "RF-901")?;
    cluster.wait_for("no endpoint", |cluster| Ok(cluster.kubectl(slices)? == "false"))?;
    // It goes on violating: it must be something else by then.
    cluster.kubectl(["-n", "shop", "label", "pod", "gated", "on-drift-", "ringfence.dev/isolated-"])?;
    cluster.wait_for("the endpoint again", |cluster| Ok(cluster.kubectl(slices)? == "true"))?;
    cluster.kubectl(["-n", "shop", "delete", "service", "gated"])?;
    delete(cluster, &["gated"])
}

fn terminate(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let uid = start(cluster, &pod("ended", "terminate", &spec(DRIFT)))?;
    exec(cluster, "ended", "touch /tmp/go")?;
    let event = event(cluster, &uid, "RF-901")?;
    ensure!(event["mitigationDone"] == json!(["isolated", "killed", "terminated"]), "{event}");
    gone(cluster, &uid)?;
    reason(cluster, "ended", "PodTerminated")
}

fn excluded(cluster: &mut Cluster, _: &Release) -> Result<()> {
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: excluded, labels: {env: prod}}}")?;
    let mut free = pod("free", "terminate", &spec(DRIFT_NOW));
    free["metadata"]["namespace"] = json!("excluded");
    cluster.wait_for("its service account", |cluster| {
        Ok(cluster.kubectl(["-n", "excluded", "get", "serviceaccount", "default"]).is_ok())
    })?;
    cluster.apply(&free.to_string())?;
    cluster.kubectl(["-n", "excluded", "wait", "--for=condition=Ready", "--timeout=180s", "pod/free"])?;
    // A witness that comes later: what the first one did would have been reported before.
    let uid = start(cluster, &pod("witness", "log", &spec(DRIFT_NOW)))?;
    event(cluster, &uid, "RF-901")?;
    let told = events(cluster)?.into_iter().find(|event| event["k8sPodName"] == "free");
    ensure!(told.is_none(), "{told:?}");
    cluster.kubectl(["-n", "excluded", "exec", "free", "--", "true"])?;
    cluster.kubectl(["delete", "namespace", "excluded", "--wait=false"])?;
    delete(cluster, &["witness"])
}

/// What the roles of the chart grant is used, but for what only other servers and other moments need.
fn rights(cluster: &mut Cluster, _: &Release) -> Result<()> {
    rights::check(cluster, NAMESPACE, "ringfence-enforcer", &[])?;
    // A namespace that is newer than the watch; the node of an enforcer whose token does not say it (before 1.30).
    rights::check(cluster, NAMESPACE, "ringfence-webhook", &["get namespaces", "get pods"])
}

/// After `helm uninstall` nothing is left in the kernel.
fn removed(cluster: &mut Cluster, release: &Release) -> Result<()> {
    release.uninstall(cluster)?;
    cluster.wait_for("no enforcer", |_| Ok(!runs("/enforcer")?))?;
    let pinned = cluster.within(|| Ok(Path::new("/sys/fs/bpf/ringfence").exists()))?;
    ensure!(!pinned, "there are pins");
    cluster.kubectl(["delete", "namespace", "shop", NAMESPACE, "--timeout=120s"]).map(drop)
}
