//! Two nodes: the second is a VM whose kernel lets programs of the `lsm` tier in, with containerd, runc and a kubelet.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::account::Account;
use super::pods::{self, DRIFT, DRIFT_NOW, IMAGE, SERVER, spec};
use super::release::Release;
use super::told::{self, ENFORCERS, gone, is_there};
use super::{Context, OfRelease, Part, names_of, over_release};
use crate::cluster::{Cluster, Helm, NODE_NAME, SECOND_NODE};
use crate::harness::Image;
use crate::suite::Report;

pub const PART: Part = Part { names, run };

/// In this order: they share the release, and the last one removes it.
pub const TESTS: [(&str, OfRelease); 10] = [
    ("two-nodes/both-enforce", both_enforce),
    ("two-nodes/each-by-its-own-tiers", tiers),
    ("two-nodes/log", log),
    ("two-nodes/denied-under-containerd", denied),
    ("two-nodes/isolated-from-the-other-node", isolated),
    ("two-nodes/terminate", terminate),
    ("two-nodes/an-enforcer-stays-on-its-node", own_node),
    ("two-nodes/terminations-count-on-both", terminations),
    ("two-nodes/one-enforcer-killed", killed),
    ("two-nodes/switched-off-on-both", switched_off),
];

const OBJECTS: &str = include_str!("two_nodes/objects.yaml");
const NAMESPACE: &str = "pair";
const VALUES: [&str; 3] = ["policy.create=false", "policy.active=main", "crds.keep=false"];

/// Everything takes longer in a VM that is emulated.
const PATIENCE: &str = "--timeout=240s";

/// Classes of events that the `lsm` tier denies.
const DENIED: [&str; 3] = ["exec", "open", "network"];

fn names() -> Vec<String> {
    names_of(&TESTS)
}

fn run(context: &mut Context, report: &mut Report) {
    if TESTS.iter().all(|(name, _)| report.cannot(name)) {
        for (name, _) in TESTS {
            // Tells why.
            report.check(name, || Ok(()));
        }
        return;
    }
    over_release(context, report, ("two-nodes/installed", prepare), &TESTS);
    // It may have failed to come up.
    if context.cluster.has_second_node()
        && let Err(error) = context.cluster.remove_node()
    {
        report.fail("two-nodes/removed", &format!("{error:#}"));
    }
}

fn prepare(context: &mut Context) -> Result<Release> {
    let boot = context.boot.clone().context("there is no kernel")?;
    let mut images = context.images()?.to_vec();
    images.push(Image::busybox(IMAGE));
    context.cluster.add_node(&boot, &images.iter().collect::<Vec<_>>())?;
    let release = Release::prepare(context, Helm::V4, "ringfence", NAMESPACE)?.patient();
    let cluster = &mut context.cluster;
    release.install(cluster, &VALUES)?;
    cluster.apply(OBJECTS)?;
    cluster.kubectl(["-n", "kube-system", "wait", "--for=condition=Ready", PATIENCE, "pod/lens"])?;
    for node in [NODE_NAME, SECOND_NODE] {
        cluster.wait_for(&format!("the rulesets on {node}"), |cluster| {
            let names = status(cluster, node)?["rulesets"]["names"].clone();
            Ok(names.as_array().is_some_and(|names| names.len() == 4))
        })?;
    }
    Ok(release)
}

/// The enforcer's pod of a node.
fn enforcer(cluster: &Cluster, node: &str) -> Result<String> {
    let on = format!("--field-selector=spec.nodeName={node},status.phase=Running");
    let live = "jsonpath={.items[*].metadata.name}";
    let names = cluster.kubectl(["-n", NAMESPACE, "get", "pods", ENFORCERS, &on, "-o", live])?;
    ensure!(!names.is_empty() && !names.contains(' '), "enforcers on {node}: {names:?}");
    Ok(names)
}

/// What it says of itself.
fn status(cluster: &Cluster, node: &str) -> Result<Value> {
    let pod = enforcer(cluster, node)?;
    let said = cluster.kubectl(["-n", NAMESPACE, "exec", &pod, "--", "/ringfence", "status", "-o", "json"])?;
    Ok(serde_json::from_str(&said)?)
}

fn pod(name: &str, node: &str, on_drift: &str, script: &str) -> Value {
    let mut spec = spec(script);
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "fair", "labels": {"app": name, "on-drift": on_drift}},
        "spec": spec,
    })
}

/// Makes a pod, and waits until it runs; returns its UID.
fn start(cluster: &Cluster, pod: &Value) -> Result<String> {
    cluster.apply(&pod.to_string())?;
    let name = pod["metadata"]["name"].as_str().context("it has a name")?;
    cluster.kubectl(["-n", "fair", "wait", "--for=condition=Ready", PATIENCE, &format!("pod/{name}")])?;
    field(cluster, name, "{.metadata.uid}")
}

fn field(cluster: &Cluster, pod: &str, path: &str) -> Result<String> {
    cluster.kubectl(["-n", "fair", "get", "pod", pod, "-o", &format!("jsonpath={path}")])
}

fn exec(cluster: &Cluster, pod: &str, script: &str) -> Result<String> {
    cluster.kubectl(["-n", "fair", "exec", pod, "--", "sh", "-c", script])
}

fn delete(cluster: &Cluster, pods: &[&str]) -> Result<()> {
    let words = ["-n", "fair", "delete", "pod", "--force", "--ignore-not-found"];
    cluster.kubectl(words.iter().chain(pods)).map(drop)
}

fn event(cluster: &mut Cluster, uid: &str, rule: &str) -> Result<Value> {
    told::violation(cluster, NAMESPACE, uid, rule, |event| event["ruleId"] == rule)
}

/// In the second node, as its administrator.
fn on_second(cluster: &Cluster, script: &str) -> Result<String> {
    cluster.kubectl(["-n", "kube-system", "exec", "lens", "--", "sh", "-c", script])
}

/// Two kernels, one set of enforcers: it is ready on both, and pods of both are labelled.
fn both_enforce(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let ready = "jsonpath={.status.desiredNumberScheduled} {.status.numberReady}";
    let told = cluster.kubectl(["-n", NAMESPACE, "get", "daemonset", "ringfence-enforcer", "-o", ready])?;
    ensure!(told == "2 2", "of so many enforcers so many are ready: {told}");
    let kernels = [NODE_NAME, SECOND_NODE].map(|node| {
        let status = status(cluster, node)?;
        let kernel = "jsonpath={.status.nodeInfo.kernelVersion}";
        let told = cluster.kubectl(["get", "node", node, "-o", kernel])?;
        ensure!(status["kernel"] == told.as_str(), "{node}: {} is not {told}", status["kernel"]);
        Ok(told)
    });
    let [first, second] = kernels;
    ensure!(first? != second?, "both nodes have one kernel");
    let (want, _) = cluster.versions()?;
    let kubelet = "jsonpath={.status.nodeInfo.kubeletVersion}";
    let told = cluster.kubectl(["get", "node", SECOND_NODE, "-o", kubelet])?;
    ensure!(told == want, "the kubelet is {told}");
    Ok(())
}

/// The second denies by BPF LSM, whatever the first one's kernel allows.
fn tiers(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let lsm = on_second(cluster, "cat /proc/1/root/sys/kernel/security/lsm")?;
    ensure!(lsm.split(',').any(|name| name.trim() == "bpf"), "the VM has no BPF LSM: {lsm}");
    for node in [NODE_NAME, SECOND_NODE] {
        for class in DENIED {
            let tier = tier(cluster, node, class)?;
            let expected = if node == SECOND_NODE { tier == "lsm" } else { !tier.is_empty() };
            ensure!(expected, "class {class} of {node} is on tier {tier:?}");
        }
    }
    Ok(())
}

/// The tier of a class on a node, as its enforcer says.
fn tier(cluster: &Cluster, node: &str, class: &str) -> Result<String> {
    let status = status(cluster, node)?;
    let classes = status["classes"].as_array().context("no classes")?;
    let class = classes.iter().find(|found| found["class"] == class).context("no such class")?;
    Ok(class["tier"].as_str().unwrap_or_default().to_owned())
}

fn log(cluster: &mut Cluster, _: &Release) -> Result<()> {
    for node in [NODE_NAME, SECOND_NODE] {
        let name = format!("logged-on-{node}");
        let uid = start(cluster, &pod(&name, node, "log", DRIFT_NOW))?;
        let label = field(cluster, &name, "{.metadata.labels.ruleset\\.ringfence\\.dev/everywhere}")?;
        ensure!(label == "1", "the label of {name} is {label:?}");
        let event = event(cluster, &uid, "RF-901")?;
        let pod = name.as_str();
        for (key, value) in [
            ("mitigation", "log"),
            ("node", node),
            ("policyName", "main"),
            ("ruleSetName", "everywhere"),
            ("k8sNamespace", "fair"),
            ("k8sPodName", pod),
            ("containerName", "main"),
            ("objectFilePath", "/tmp/true"),
            ("tier", &tier(cluster, node, "exec")?),
        ] {
            ensure!(event[key] == value, "{key} is {} instead of {value}", event[key]);
        }
        let id = field(cluster, &name, "{.status.containerStatuses[0].containerID}")?;
        ensure!(id == format!("containerd://{}", event["containerId"].as_str().unwrap_or_default()), "{id}: {event}");
        told::event(cluster, "fair", &name, "RulesetViolation")?;
        delete(cluster, &[&name])?;
    }
    Ok(())
}

/// What the second node denies fails, and whoever tried it lives on; no instruction of the program runs.
fn denied(cluster: &mut Cluster, _: &Release) -> Result<()> {
    const TRY: &str = "cp /bin/busybox /tmp/true; until [ -e /tmp/go ]; do sleep 0.1; done; \
                       /tmp/true; echo exec $?; cat /etc/shadow; echo open $?; sleep 999999";
    let uid = start(cluster, &pod("tries", SECOND_NODE, "block", TRY))?;
    exec(cluster, "tries", "touch /tmp/go")?;
    let mut said = String::new();
    cluster.wait_for("both attempts", |cluster| {
        said = cluster.kubectl(["-n", "fair", "logs", "tries"])?;
        // Not what it says of the file.
        Ok(said.lines().any(|line| line.starts_with("open ")))
    })?;
    // The last one first: then the others are told, too.
    for (rule, operation) in [("RF-501", "open"), ("RF-901", "exec")] {
        let event = event(cluster, &uid, rule)?;
        ensure!(event["tier"] == "lsm" && event["mitigationDone"] == json!(["denied"]), "{event}");
        ensure!(event["operation"] == operation, "{rule}: not {operation}: {event}");
        let all = told::violations(cluster, NAMESPACE)?;
        let all = all.iter().filter(|event| event["k8sPodId"] == uid && event["ruleId"] == rule);
        ensure!(all.count() == 1, "one attempt was told more than once: {rule}");
    }
    // What a shell says of a program that may not be started.
    ensure!(said.contains("exec 126") && said.contains("open 1"), "it went on otherwise: {said}");
    ensure!(said.matches("not permitted").count() == 2, "not for want of permission: {said}");
    ensure!(field(cluster, "tries", "{.status.containerStatuses[0].restartCount}")? == "0", "it was killed");
    delete(cluster, &["tries"])
}

/// On either node in turn: who is cut off neither reaches the other node's pods nor is reached by them.
fn isolated(cluster: &mut Cluster, _: &Release) -> Result<()> {
    for (own, other) in [(SECOND_NODE, NODE_NAME), (NODE_NAME, SECOND_NODE)] {
        start(cluster, &pod("peer", other, "log", &format!("{SERVER} sleep 999999")))?;
        let uid = start(cluster, &pod("cut", own, "isolate", &format!("{SERVER} {DRIFT}")))?;
        let (cut, peer) = (field(cluster, "cut", "{.status.podIP}")?, field(cluster, "peer", "{.status.podIP}")?);
        let in_touch = |cluster: &Cluster| {
            pods::reaches(cluster, "fair", "peer", &cut) && pods::reaches(cluster, "fair", "cut", &peer)
        };
        cluster.wait_for("both servers", |cluster| Ok(in_touch(cluster)))?;
        exec(cluster, "cut", "touch /tmp/go")?;
        let event = event(cluster, &uid, "RF-901")?;
        ensure!(event["mitigationDone"][0] == "isolated" && event["node"] == own, "{event}");
        ensure!(!pods::reaches(cluster, "fair", "peer", &cut), "a peer reaches it on {own}");
        ensure!(!pods::reaches(cluster, "fair", "cut", &peer), "it reaches a peer from {own}");
        let label = "{.metadata.labels.ringfence\\.dev/isolated}";
        cluster.wait_for("the label", |cluster| Ok(field(cluster, "cut", label)? == "true"))?;
        told::event(cluster, "fair", "cut", "PodIsolated")?;
        // It goes on violating: it must be something else by then.
        cluster.kubectl(["-n", "fair", "label", "pod", "cut", "on-drift-", "ringfence.dev/isolated-"])?;
        cluster.wait_for("its network", |cluster| Ok(in_touch(cluster)))?;
        delete(cluster, &["cut", "peer"])?;
    }
    Ok(())
}

fn terminate(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let uid = start(cluster, &pod("ended", SECOND_NODE, "terminate", DRIFT))?;
    exec(cluster, "ended", "touch /tmp/go")?;
    let event = event(cluster, &uid, "RF-901")?;
    let all = event["mitigationDone"].as_array().context("nothing was done")?;
    ensure!(event["tier"] == "lsm" && all.iter().any(|done| done == "terminated"), "{event}");
    gone(cluster, &uid)?;
    told::event(cluster, "fair", "ended", "PodTerminated").map(drop)
}

/// With a token as an enforcer of its node has it.
fn own_node(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let victim = |node: &str| format!("victim-on-{node}");
    for node in [NODE_NAME, SECOND_NODE] {
        start(cluster, &pod(&victim(node), node, "log", "sleep 999999"))?;
    }
    let isolate = json!({"metadata": {
        "labels": {"ringfence.dev/isolated": "true"},
        "annotations": {"ringfence.dev/isolated-by": "RF-901", "ringfence.dev/isolated-at": "2026-11-28T00:00:00Z"},
    }});
    let both = [(NODE_NAME, SECOND_NODE), (SECOND_NODE, NODE_NAME)];
    for (node, other) in both {
        let enforcer = Account::of_enforcers(cluster, NAMESPACE, Some(&enforcer(cluster, node)?), "fair")?;
        let refusal = format!("is on node '{other}': only that node's enforcer may change it");
        let patched = enforcer.patch(&victim(other), &isolate);
        let deleted = enforcer.kubectl(&["delete", "pod", &victim(other), "--wait=false"]);
        for result in [patched, deleted] {
            let Err(error) = result else { bail!("the enforcer of {node} may change a pod of {other}") };
            let error = format!("{error:#}");
            ensure!(error.contains(&refusal), "{refusal:?} is not in: {error}");
        }
    }
    for (node, _) in both {
        let enforcer = Account::of_enforcers(cluster, NAMESPACE, Some(&enforcer(cluster, node)?), "fair")?;
        enforcer.patch(&victim(node), &isolate).context("on its own node")?;
        delete(cluster, &[&victim(node)])?;
    }
    Ok(())
}

/// Makes a Deployment with one pod on each node, whose pods are terminated; returns names and UIDs, the first node's first.
fn stall(cluster: &Cluster, name: &str) -> Result<[(String, String); 2]> {
    let mut spec = spec(DRIFT);
    spec["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": name}},
    }]);
    let labels = json!({"app": name, "on-drift": "terminate"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "fair"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    });
    cluster.apply(&deployment.to_string())?;
    cluster.kubectl(["-n", "fair", "rollout", "status", &format!("deployment/{name}"), PATIENCE])?;
    let on = |node| -> Result<(String, String)> {
        let selector = format!("--field-selector=spec.nodeName={node}");
        let path = "jsonpath={.items[*].metadata.name} {.items[*].metadata.uid}";
        let text =
            cluster.kubectl(["-n", "fair", "get", "pods", "-l", &format!("app={name}"), &selector, "-o", path])?;
        let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        let [pod, uid] = <[String; 2]>::try_from(words).map_err(|words| anyhow!("on {node}: {words:?}"))?;
        Ok((pod, uid))
    };
    Ok([on(NODE_NAME)?, on(SECOND_NODE)?])
}

fn terminated(event: &Value) -> bool {
    event["mitigationDone"].as_array().is_some_and(|all| all.iter().any(|done| done == "terminated"))
}

/// What one node terminated counts on the other; where both do so in one moment it is one more.
fn terminations(cluster: &mut Cluster, _: &Release) -> Result<()> {
    const LEFT: &str = "{.metadata.labels.ringfence\\.dev/terminations-left}";
    let held = json!({"mitigation": "terminate", "limit": "maxTerminations"});
    let one = r#"{"spec": {"limits": {"maxTerminations": 1, "terminationWindowSeconds": 3600}}}"#;
    cluster.kubectl(["patch", "rpol", "main", "--type=merge", "-p", one])?;
    let [(here, here_uid), (there, there_uid)] = stall(cluster, "stall")?;
    exec(cluster, &here, "touch /tmp/go")?;
    told::violation(cluster, NAMESPACE, &here_uid, "its termination", terminated)?;
    gone(cluster, &here_uid)?;
    cluster.wait_for("the label of none", |cluster| Ok(field(cluster, &there, LEFT)? == "0"))?;
    exec(cluster, &there, "touch /tmp/go")?;
    let event = told::violation(cluster, NAMESPACE, &there_uid, "what it did", |_| true)?;
    ensure!(event["mitigationHeld"] == held && event["node"] == SECOND_NODE, "{event}");
    told::event(cluster, "fair", &there, "MitigationHeld")?;
    ensure!(is_there(cluster, &there_uid)?, "the second node did not know of the first");

    let both = stall(cluster, "booth")?;
    let shared: &Cluster = cluster;
    thread::scope(|scope| {
        for (pod, _) in &both {
            // One that is ended at once may not answer.
            scope.spawn(move || exec(shared, pod, "touch /tmp/go"));
        }
    });
    let mut ended = 0;
    for (_, uid) in &both {
        let event = told::violation(cluster, NAMESPACE, uid, "what it did", |_| true)?;
        ensure!(terminated(&event) || event["mitigationHeld"] == held, "{event}");
        ended += u32::from(terminated(&event));
    }
    ensure!((1..=2).contains(&ended), "{ended} pods were terminated");
    // Whoever replaces them has no more.
    let selector = ["-n", "fair", "get", "pods", "-l", "app=booth", "-o", "jsonpath={.items[*].metadata.name}"];
    cluster.wait_for("labels of none", |cluster| {
        let pods = cluster.kubectl(selector)?;
        let left = pods.split_whitespace().map(|pod| Ok(field(cluster, pod, LEFT).unwrap_or_default() == "0"));
        Ok(!pods.is_empty() && left.collect::<Result<Vec<_>>>()?.into_iter().all(|none| none))
    })?;
    for name in ["stall", "booth"] {
        cluster.kubectl(["-n", "fair", "delete", "deployment", name, "--wait=false"])?;
        let selector = format!("--selector=app={name}");
        cluster.kubectl(["-n", "fair", "delete", "pods", &selector, "--force", "--ignore-not-found"])?;
    }
    let none = r#"{"spec": {"limits": {"maxTerminations": null}}}"#;
    cluster.kubectl(["patch", "rpol", "main", "--type=merge", "-p", none]).map(drop)
}

/// The second node enforces without its enforcer, the first notices nothing, and the next one tells what happened.
fn killed(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let first = enforcer(cluster, NODE_NAME)?;
    let restarts = |cluster: &Cluster, pod: &str| {
        let path = "jsonpath={.status.containerStatuses[0].restartCount}";
        cluster.kubectl(["-n", NAMESPACE, "get", "pod", pod, "-o", path])
    };
    let before = restarts(cluster, &first)?;
    start(cluster, &pod("peer", NODE_NAME, "log", &format!("{SERVER} sleep 999999")))?;
    let uid = start(cluster, &pod("cut", SECOND_NODE, "isolate", DRIFT))?;
    let peer = field(cluster, "peer", "{.status.podIP}")?;
    cluster.wait_for("the server", |cluster| Ok(pods::reaches(cluster, "fair", "cut", &peer)))?;
    let second = enforcer(cluster, SECOND_NODE)?;
    // Whoever the kubelet starts in its place is killed too, as long as the file is there.
    on_second(
        cluster,
        "touch /tmp/kill; (while [ -e /tmp/kill ]; do kill -9 $(pidof enforcer); sleep 0.1; done) >/dev/null 2>&1 &",
    )?;
    let before_second = restarts(cluster, &second)?;
    cluster.wait_for("the end of an enforcer", |cluster| Ok(restarts(cluster, &second)? != before_second))?;
    exec(cluster, "cut", "touch /tmp/go")?;
    cluster.wait_for("the isolation", |cluster| Ok(!pods::reaches(cluster, "fair", "cut", &peer)))?;

    let witness = start(cluster, &pod("witness", NODE_NAME, "log", DRIFT_NOW))?;
    ensure!(event(cluster, &witness, "RF-901")?["node"] == NODE_NAME, "not by the first node");
    ensure!(enforcer(cluster, NODE_NAME)? == first && restarts(cluster, &first)? == before, "the first was restarted");

    on_second(cluster, "rm /tmp/kill")?;
    let ready = "jsonpath={.status.containerStatuses[0].ready}";
    cluster.wait_for("the enforcer again", |cluster| {
        Ok(cluster.kubectl(["-n", NAMESPACE, "get", "pod", &second, "-o", ready])? == "true")
    })?;
    let event = event(cluster, &uid, "RF-901")?;
    ensure!(event["mitigationDone"][0] == "isolated" && event["node"] == SECOND_NODE, "{event}");
    let label = "{.metadata.labels.ringfence\\.dev/isolated}";
    cluster.wait_for("the label", |cluster| Ok(field(cluster, "cut", label)? == "true"))?;
    ensure!(!pods::reaches(cluster, "fair", "cut", &peer), "the new enforcer released it");
    delete(cluster, &["cut", "peer", "witness"])
}

/// Names of programs that the second node's kernel has in machine code. Those of its runtime have none.
fn loaded(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let text = on_second(cluster, "grep -F '[bpf]' /proc/kallsyms || true")?;
    let symbols = text.lines().filter_map(|line| line.split_whitespace().nth(2)?.strip_prefix("bpf_prog_"));
    // After the program's tag.
    Ok(symbols.filter_map(|symbol| symbol.split_once('_')).map(|(_, name)| name.to_owned()).collect())
}

/// Neither node keeps a program or a pin; what was isolated is not any more.
fn switched_off(cluster: &mut Cluster, release: &Release) -> Result<()> {
    const PINS: &str = "/sys/fs/bpf/ringfence";
    start(cluster, &pod("peer", NODE_NAME, "log", &format!("{SERVER} sleep 999999")))?;
    let uid = start(cluster, &pod("cut", SECOND_NODE, "isolate", DRIFT))?;
    let peer = field(cluster, "peer", "{.status.podIP}")?;
    cluster.wait_for("the server", |cluster| Ok(pods::reaches(cluster, "fair", "cut", &peer)))?;
    exec(cluster, "cut", "touch /tmp/go")?;
    event(cluster, &uid, "RF-901")?;
    ensure!(!pods::reaches(cluster, "fair", "cut", &peer), "it is not cut off");
    ensure!(on_second(cluster, &format!("ls {PINS} | wc -l"))?.trim() != "0", "nothing is pinned");
    let before = loaded(cluster)?;
    ensure!(before.len() > 5, "programs of the second node: {before:?}");

    release.upgrade(cluster, &[&VALUES[..], &["runtimeSecurity.enabled=false"]].concat())?;
    cluster.wait_for("no enforcers", |cluster| {
        Ok(cluster.kubectl(["-n", NAMESPACE, "get", "pods", ENFORCERS, "-o", "name"])?.is_empty())
    })?;
    let here = cluster.within(|| Ok(Path::new(PINS).exists()))?;
    let there = on_second(cluster, &format!("ls -d {PINS} 2>/dev/null || true"))?;
    ensure!(!here && there.is_empty(), "pins are left: {here} {there}");
    let mut left = BTreeSet::new();
    let unloaded = cluster.wait_for("the second node's kernel without our programs", |cluster| {
        left = loaded(cluster)?;
        Ok(left.is_disjoint(&before))
    });
    unloaded.with_context(|| format!("{left:?}"))?;
    cluster.wait_for("its network", |cluster| Ok(pods::reaches(cluster, "fair", "cut", &peer)))?;
    delete(cluster, &["cut", "peer"])?;
    release.uninstall(cluster)?;
    cluster.kubectl(["-n", "kube-system", "delete", "pod", "lens", "--force"])?;
    cluster.kubectl(["delete", "namespace", "fair", NAMESPACE, "--timeout=120s"]).map(drop)
}
