//! Limits of terminations, and what statuses say about violations and failures: installed by the chart, on a real node.

mod replicas;
mod uncovered;
mod unheld;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::audit::Audit;
use super::pods::{DRIFT_NOW, spec};
use super::release::Release;
use super::told::{self, condition, gone, is_there, status};
use super::{Context, OfRelease, Part, names_of, over_release, policy};
use crate::cluster::{Cluster, Helm, succeed};
use crate::suite::Report;

pub const PART: Part = Part { names, run };

/// In this order: they share the release, and the last one removes it.
const TESTS: [(&str, OfRelease); 12] = [
    ("limits/statuses-count-violations", violations),
    ("limits/dry-run-says-what-it-held-back", dry_run),
    ("limits/ready-replicas-stay", replicas::stay),
    ("limits/webhook-away", replicas::webhook_away),
    ("limits/so-many-terminations-in-the-window", terminations),
    ("limits/quiet-minute", quiet),
    ("limits/nobody-forges-them", forged),
    ("limits/fields-are-checked", checked),
    ("limits/isolation-that-does-not-hold", unheld::held_and_terminated),
    ("limits/without-a-datapath-only-the-process", uncovered::held),
    ("limits/without-a-datapath-the-pod-goes", uncovered::terminated),
    ("limits/removed", removed),
];

const OBJECTS: &str = include_str!("limits/objects.yaml");
const NAMESPACE: &str = "bounds";
/// The policy is the test's own, and nothing is kept afterwards.
const VALUES: [&str; 3] = ["policy.create=false", "policy.active=main", "crds.keep=false"];

fn names() -> Vec<String> {
    names_of(&TESTS)
}

fn run(context: &mut Context, report: &mut Report) {
    over_release(context, report, ("limits/installed", prepare), &TESTS);
}

fn prepare(context: &mut Context) -> Result<Release> {
    let release = Release::prepare(context, Helm::V4, "ringfence", NAMESPACE)?;
    let cluster = &mut context.cluster;
    release.install(cluster, &VALUES)?;
    cluster.apply(OBJECTS)?;
    release.enforces(cluster, "everywhere")?;
    Ok(release)
}

fn deployment(name: &str, replicas: u32, on_drift: &str, spec: &Value) -> Value {
    let labels = json!({"app": name, "on-drift": on_drift});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "mall"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    })
}

fn in_mall(cluster: &Cluster, words: &[&str]) -> Result<String> {
    cluster.kubectl(["-n", "mall"].iter().chain(words))
}

/// The pods of a Deployment that run, oldest first: name and UID.
fn pods(cluster: &Cluster, app: &str) -> Result<Vec<(String, String)>> {
    let path = "jsonpath={range .items[?(@.status.phase==\"Running\")]}{.metadata.name} {.metadata.uid}{\"\\n\"}{end}";
    let selector = format!("--selector=app={app}");
    let text = in_mall(cluster, &["get", "pods", &selector, "--sort-by=.metadata.creationTimestamp", "-o", path])?;
    Ok(text.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect())
}

fn touch(cluster: &Cluster, pod: &str, file: &str) -> Result<()> {
    in_mall(cluster, &["exec", pod, "-c", "main", "--", "touch", file]).map(drop)
}

/// A label of a pod; empty: there is none.
fn label(cluster: &Cluster, pod: &str, label: &str) -> Result<String> {
    in_mall(cluster, &["get", "pod", pod, "-o", &format!("jsonpath={{.metadata.labels.ringfence\\.dev/{label}}}")])
}

/// Everything that the enforcers have reported which run now.
fn events(cluster: &Cluster) -> Result<Vec<Value>> {
    told::violations(cluster, NAMESPACE)
}

/// The first event of a pod that is as wanted.
fn event(cluster: &mut Cluster, uid: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    told::violation(cluster, NAMESPACE, uid, what, wanted)
}

fn is_terminated(event: &Value) -> bool {
    event["mitigationDone"].as_array().is_some_and(|all| all.iter().any(|done| done == "terminated"))
}

fn held(event: &Value) -> bool {
    !event["mitigationHeld"].is_null()
}

/// A Kubernetes Event of a pod; returns what it says.
fn reason(cluster: &mut Cluster, pod: &str, reason: &str) -> Result<String> {
    told::event(cluster, "mall", pod, reason)
}

fn delete(cluster: &mut Cluster, deployment: &str) -> Result<()> {
    in_mall(cluster, &["delete", "deployment", deployment, "--cascade=foreground", "--wait=false"])?;
    cluster.wait_for("the end of its pods", |cluster| {
        Ok(in_mall(cluster, &["get", "pods", "-o", "name", &format!("--selector=app={deployment}")])?.is_empty())
    })
}

/// What nodes count is in the statuses, begins anew with another version, and outlives an enforcer.
fn violations(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let thrice = "cp /bin/busybox /tmp/true; for i in 1 2 3; do /tmp/true; done; sleep 999999";
    cluster.apply(&deployment("counted", 1, "log", &spec(thrice)).to_string())?;
    let count = |cluster: &Cluster, what: &str| Ok::<_, anyhow::Error>(status(cluster, what)?["violations"].clone());
    let mut last = String::new();
    let counted = cluster.wait_for("three violations", |cluster| {
        let all = ["rrs/everywhere", "rpol/main", "rrs/terminated"].map(|what| count(cluster, what));
        let [everywhere, main, terminated] = all.map(|counts| counts.map(|counts| counts["count"].as_u64()));
        let (everywhere, main, terminated) = (everywhere?, main?, terminated?);
        last = format!("{everywhere:?} {main:?} {terminated:?}");
        Ok((everywhere, main, terminated) == (Some(3), Some(3), Some(0)))
    });
    counted.with_context(|| last.clone())?;
    let since = count(cluster, "rrs/everywhere")?["since"].clone();
    ensure!(since.as_str().is_some_and(|since| since.ends_with('Z')), "since {since}");
    let degraded = status(cluster, "rrs/everywhere")?;
    ensure!(condition(&degraded, "Degraded")["status"] == "False", "{degraded}");

    cluster.kubectl(["patch", "rrs", "everywhere", "--type=merge", "-p", r#"{"spec": {"description": "anew"}}"#])?;
    cluster.wait_for("nothing counted of the new version", |cluster| {
        Ok(count(cluster, "rrs/everywhere")?["count"] == 0 && count(cluster, "rpol/main")?["count"] == 3)
    })?;
    restart(cluster, "daemonset/ringfence-enforcer")?;
    let mut pod = in_mall(cluster, &["get", "pods", "--selector=app=counted", "-o", "name"])?;
    pod = pod.trim().trim_start_matches("pod/").to_owned();
    in_mall(cluster, &["exec", &pod, "-c", "main", "--", "/tmp/true"])?;
    cluster.wait_for("one more, counted by the next enforcer", |cluster| {
        Ok(count(cluster, "rrs/everywhere")?["count"] == 1 && count(cluster, "rpol/main")?["count"] == 4)
    })?;
    delete(cluster, "counted")
}

fn restart(cluster: &Cluster, what: &str) -> Result<()> {
    cluster.kubectl(["-n", NAMESPACE, "rollout", "restart", what])?;
    cluster.kubectl(["-n", NAMESPACE, "rollout", "status", what, "--timeout=120s"]).map(drop)
}

fn dry_run(cluster: &mut Cluster, _: &Release) -> Result<()> {
    policy::change(cluster, &json!({"maxMitigation": "log"}))?;
    cluster.apply(&deployment("dry", 1, "terminate", &spec(DRIFT_NOW)).to_string())?;
    let mut found = Vec::new();
    cluster.wait_for("a pod", |cluster| {
        found = pods(cluster, "dry")?;
        Ok(!found.is_empty())
    })?;
    let (pod, uid) = &found[0];
    let event = event(cluster, uid, "what was held back", held)?;
    ensure!(event["mitigation"] == "log", "{event}");
    ensure!(event["mitigationHeld"] == json!({"mitigation": "terminate", "limit": "maxMitigation"}), "{event}");
    let note = reason(cluster, pod, "MitigationHeld")?;
    ensure!(note.starts_with("terminate held back by maxMitigation: RF-901"), "{note}");
    reason(cluster, pod, "RulesetViolation")?;
    ensure!(is_there(cluster, uid)?, "it was ended all the same");
    delete(cluster, "dry")?;
    policy::change(cluster, &json!({"maxMitigation": "terminate"}))
}

/// Whoever replaces a violator violates too: it ends with the third.
fn terminations(cluster: &mut Cluster, _: &Release) -> Result<()> {
    policy::change(
        cluster,
        &json!({"limits": {"minReadyReplicas": null, "maxTerminations": 2, "terminationWindowSeconds": 3600}}),
    )?;
    cluster.apply(&deployment("loop", 1, "terminate", &spec(DRIFT_NOW)).to_string())?;
    let mut third = None;
    cluster.wait_for("one that is held", |cluster| {
        let held =
            |event: &Value| event["k8sPodName"].as_str().is_some_and(|pod| pod.starts_with("loop-")) && held(event);
        third = events(cluster)?.into_iter().find(held);
        Ok(third.is_some())
    })?;
    let third = third.context("it was just found")?;
    ensure!(third["mitigationHeld"] == json!({"mitigation": "terminate", "limit": "maxTerminations"}), "{third}");
    let ended = |cluster: &Cluster| -> Result<BTreeSet<String>> {
        let of = |event: &Value| event["k8sPodName"].as_str().is_some_and(|pod| pod.starts_with("loop-"));
        let events = events(cluster)?.into_iter().filter(|event| of(event) && is_terminated(event));
        Ok(events.filter_map(|event| event["k8sPodId"].as_str().map(str::to_owned)).collect())
    };
    let before = ended(cluster)?;
    ensure!(before.len() == 2, "{before:?}");
    let (pod, uid) = (third["k8sPodName"].as_str().unwrap_or_default(), third["k8sPodId"].as_str().unwrap_or_default());
    cluster.wait_for("the label of none", |cluster| Ok(label(cluster, pod, "terminations-left")? == "0"))?;
    let note = reason(cluster, pod, "MitigationHeld")?;
    ensure!(note.starts_with("terminate held back by maxTerminations: RF-901"), "{note}");

    // Neither another leader nor another enforcer begins anew.
    restart(cluster, "deployment/ringfence-webhook")?;
    restart(cluster, "daemonset/ringfence-enforcer")?;
    event(cluster, uid, "that it is held again", held)?;
    thread::sleep(Duration::from_secs(12));
    ensure!(is_there(cluster, uid)? && ended(cluster)?.is_empty(), "its limit was forgotten");
    ensure!(label(cluster, pod, "terminations-left")? == "0", "the label is gone");

    policy::change(cluster, &json!({"limits": {"terminationWindowSeconds": 1}}))?;
    gone(cluster, uid).context("the window is over")?;
    delete(cluster, "loop")
}

/// Nothing happens, so nothing is written, but for the lease.
fn quiet(cluster: &mut Cluster, _: &Release) -> Result<()> {
    policy::change(
        cluster,
        &json!({"limits": {"minReadyReplicas": 1, "maxTerminations": 2, "terminationWindowSeconds": 600}}),
    )?;
    cluster.apply(&deployment("calm", 2, "terminate", &spec("sleep 999999")).to_string())?;
    in_mall(cluster, &["rollout", "status", "deployment/calm", "--timeout=180s"])?;
    // What went before may still be on its way into reports and statuses.
    thread::sleep(Duration::from_secs(45));
    let (_, start) = Audit::since(cluster, 0)?;
    thread::sleep(Duration::from_mins(1));
    let (events, _) = Audit::since(cluster, start)?;
    ensure!(!events.is_empty(), "the audit log does not grow");
    let prefix = format!("system:serviceaccount:{NAMESPACE}:ringfence-");
    let ours = events.iter().filter(|event| {
        event["user"]["username"].as_str().is_some_and(|user| user.starts_with(&prefix))
            && event["objectRef"]["resource"] != "leases"
    });
    let writes: Vec<_> = ours
        .filter(|event| !["get", "list", "watch"].iter().any(|verb| event["verb"] == *verb))
        .map(|event| format!("{} {} {}", event["user"]["username"], event["verb"], event["objectRef"]))
        .collect();
    ensure!(writes.is_empty(), "{} writes: {}", writes.len(), writes.join("; "));
    Ok(())
}

const MALLORY: &str = "--as=system:serviceaccount:mall:mallory";

/// A limit of one's own making would spare one's own pod. After [`quiet`], which leaves two pods.
fn forged(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let (pod, _) = pods(cluster, "calm")?.into_iter().next().context("no pod")?;
    cluster.wait_for("its label", |cluster| Ok(label(cluster, &pod, "spare-replicas")? == "1"))?;
    for words in [
        &["label", "pod", &pod, "ringfence.dev/spare-replicas=0", "--overwrite"][..],
        &["label", "pod", &pod, "ringfence.dev/spare-replicas-"],
        &["label", "pod", &pod, "ringfence.dev/terminations-left=0"],
        &["annotate", "pod", &pod, "ringfence.dev/terminated-by=RF-901"],
    ] {
        let Err(error) = in_mall(cluster, &[&[MALLORY], words].concat()) else { bail!("{words:?} was allowed") };
        let error = format!("{error:#}");
        ensure!(error.contains("denied the request") && error.contains("metadata."), "{words:?}: {error}");
    }
    in_mall(cluster, &[MALLORY, "label", "pod", &pod, "team=a"]).context("what is not ours")?;
    let mut new = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "forged", "namespace": "mall"}, "spec": spec("true")});
    new["metadata"]["labels"] = json!({"on-drift": "terminate", "ringfence.dev/spare-replicas": "0"});
    new["metadata"]["annotations"] = json!({"ringfence.dev/terminated-by": "RF-901"});
    let mut kubectl = cluster.command(cluster.kubectl_program());
    kubectl.args([MALLORY, "create", "--dry-run=server", "-o", "json", "-f", "-"]);
    let made: Value = serde_json::from_str(&succeed(&mut kubectl, Some(&new.to_string()))?)?;
    let metadata = made["metadata"].to_string();
    ensure!(!metadata.contains("spare-replicas") && !metadata.contains("terminated-by"), "{metadata}");
    let mut template = deployment("forged", 1, "terminate", &spec("true"));
    template["spec"]["template"]["metadata"]["labels"]["ringfence.dev/spare-replicas"] = json!("0");
    let mut kubectl = cluster.command(cluster.kubectl_program());
    kubectl.args([MALLORY, "create", "-f", "-"]);
    let Err(error) = succeed(&mut kubectl, Some(&template.to_string())) else { bail!("the template was taken") };
    let error = format!("{error:#}");
    ensure!(error.contains("spec.template.metadata.labels[ringfence.dev/spare-replicas]"), "{error}");
    delete(cluster, "calm")
}

fn checked(cluster: &mut Cluster, _: &Release) -> Result<()> {
    for (limits, part) in [
        (json!({"maxTerminations": 0}), "spec.limits.maxTerminations"),
        (json!({"terminationWindowSeconds": 0}), "spec.limits.terminationWindowSeconds"),
        (json!({"minReadyReplicas": -1}), "spec.limits.minReadyReplicas"),
        (json!({"minReadyReplicas": "half"}), "spec.limits.minReadyReplicas"),
    ] {
        let Err(error) = policy::change(cluster, &json!({"limits": limits})) else { bail!("{limits} was taken") };
        ensure!(format!("{error:#}").contains(part), "{error:#}");
    }
    Ok(())
}

fn removed(cluster: &mut Cluster, release: &Release) -> Result<()> {
    release.uninstall(cluster)?;
    cluster.kubectl(["delete", "namespace", "mall", NAMESPACE, "--timeout=120s"]).map(drop)
}
