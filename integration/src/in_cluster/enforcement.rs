//! Installed by the chart, webhook and all: pods of every kind break a rule, and the node answers.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ringfence_control::Violation;
use serde_json::{Value, json};

use super::pods::{self, DRIFT, DRIFT_NOW, IMAGE, SERVER, container, spec};
use super::release::Release;
use super::told::{self, ENFORCERS, Logs, gone};
use super::{Context, OfRelease, Part, names_of, over_release, rights};
use crate::cluster::{Cluster, Helm};
use crate::journal::Journal;
use crate::suite::Report;

pub const PART: Part = Part { names, run };

/// In this order: they share the release, and the last one removes it.
const TESTS: [(&str, OfRelease); 21] = [
    ("enforcement/log", log),
    ("enforcement/isolate-and-release", isolate),
    ("enforcement/readiness-gate", readiness_gate),
    ("enforcement/terminate", terminate),
    ("enforcement/excluded-namespace", excluded),
    ("enforcement/workloads", workloads),
    ("enforcement/host-network", host_network),
    ("enforcement/init-container", init_container),
    ("enforcement/several-containers", several_containers),
    ("enforcement/ephemeral-container", ephemeral_container),
    ("enforcement/first-instruction", first_instruction),
    ("enforcement/labels-change", labels_change),
    ("enforcement/ruleset-changes", ruleset_changes),
    ("enforcement/killed", killed),
    ("enforcement/rolling-update", rolling_update),
    ("enforcement/api-server-away", api_server_away),
    ("enforcement/started-without-api-server", started_alone),
    ("enforcement/policy-missing", policy_missing),
    ("enforcement/policy-switch", policy_switch),
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
    cluster.apply(&pod.to_string())?;
    let name = pod["metadata"]["name"].as_str().context("it has a name")?;
    cluster.kubectl(["-n", "shop", "wait", "--for=condition=Ready", "--timeout=180s", &format!("pod/{name}")])?;
    field(cluster, name, "{.metadata.uid}")
}

fn field(cluster: &Cluster, pod: &str, path: &str) -> Result<String> {
    cluster.kubectl(["-n", "shop", "get", "pod", pod, "-o", &format!("jsonpath={path}")])
}

fn exec(cluster: &Cluster, pod: &str, script: &str) -> Result<String> {
    cluster.kubectl(["-n", "shop", "exec", pod, "-c", "main", "--", "sh", "-c", script])
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
    start(cluster, &pod("peer", "log", &spec(&format!("{SERVER} sleep 999999"))))?;
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
    delete(cluster, &["cut", "peer"])
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

/// Each of these makes pods; the first one of each is ended, and where a controller keeps a number of them, replaced.
fn workloads(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let template = |name: &str, restart: &str| {
        let mut spec = spec(DRIFT);
        spec["restartPolicy"] = json!(restart);
        json!({"metadata": {"labels": {"app": name, "on-drift": "terminate"}}, "spec": spec})
    };
    let selector = |name: &str| json!({"matchLabels": {"app": name}});
    let objects = [
        (
            "deployment",
            "apps/v1",
            "Deployment",
            json!({"replicas": 1, "selector": selector("deployment"), "template": template("deployment", "Always")}),
        ),
        (
            "daemonset",
            "apps/v1",
            "DaemonSet",
            json!({"selector": selector("daemonset"), "template": template("daemonset", "Always")}),
        ),
        (
            "statefulset",
            "apps/v1",
            "StatefulSet",
            json!({"serviceName": "none", "selector": selector("statefulset"), "template": template("statefulset", "Always")}),
        ),
        ("job", "batch/v1", "Job", json!({"backoffLimit": 4, "template": template("job", "Never")})),
    ];
    for (name, version, kind, spec) in objects {
        let object =
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        cluster.apply(&object.to_string())?;
        let selector = format!("--selector=app={name}");
        let first =
            |path: &str| ["-n", "shop", "get", "pods", &selector, "-o", &format!("jsonpath={path}")].map(str::to_owned);
        cluster.wait_for(&format!("a pod of the {kind}"), |cluster| {
            Ok(cluster.kubectl(first("{.items[0].status.phase}")).is_ok_and(|phase| phase == "Running"))
        })?;
        let pod = cluster.kubectl(first("{.items[0].metadata.name}"))?;
        let uid = cluster.kubectl(first("{.items[0].metadata.uid}"))?;
        exec(cluster, &pod, "touch /tmp/go")?;
        event(cluster, &uid, "RF-901")?;
        gone(cluster, &uid)?;
        cluster.wait_for(&format!("another pod of the {kind}"), |cluster| {
            Ok(cluster.kubectl(first("{.items[0].metadata.uid}")).is_ok_and(|other| !other.is_empty() && other != uid))
        })?;
        cluster.kubectl(["-n", "shop", "delete", kind, name, "--cascade=foreground", "--wait=false"])?;
    }
    Ok(())
}

fn host_network(cluster: &mut Cluster, _: &Release) -> Result<()> {
    for (on_drift, done) in [("isolate", "isolated"), ("terminate", "terminated")] {
        let mut spec = spec(DRIFT);
        spec["hostNetwork"] = json!(true);
        let name = format!("host-{on_drift}");
        let uid = start(cluster, &pod(&name, on_drift, &spec))?;
        exec(cluster, &name, "touch /tmp/go")?;
        let event = event(cluster, &uid, "RF-901")?;
        let all = event["mitigationDone"].as_array().is_some_and(|all| all.iter().any(|one| one == done));
        ensure!(all, "{event}");
        if on_drift == "terminate" {
            gone(cluster, &uid)?;
        } else {
            // The node itself has its network still.
            ensure!(cluster.kubectl(["get", "--raw", "/readyz"])? == "ok", "the API server");
            delete(cluster, &[&name])?;
        }
    }
    Ok(())
}

fn init_container(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let mut spec = spec("sleep 999999");
    spec["initContainers"] = json!([container("first", DRIFT_NOW)]);
    cluster.apply(&pod("init", "terminate", &spec).to_string())?;
    let uid = field(cluster, "init", "{.metadata.uid}")?;
    let event = event(cluster, &uid, "RF-901")?;
    ensure!(event["containerName"] == "first", "{event}");
    gone(cluster, &uid)
}

fn several_containers(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let mut spec = spec(DRIFT);
    spec["containers"].as_array_mut().context("a list")?.push(container("beside", "sleep 999999"));
    let uid = start(cluster, &pod("several", "terminate", &spec))?;
    exec(cluster, "several", "touch /tmp/go")?;
    ensure!(event(cluster, &uid, "RF-901")?["containerName"] == "main", "not by its name");
    gone(cluster, &uid)
}

fn ephemeral_container(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let uid = start(cluster, &pod("debugged", "terminate", &spec("sleep 999999")))?;
    let debug =
        ["-n", "shop", "debug", "debugged", "--image", IMAGE, "--image-pull-policy=Never", "--container=visitor"];
    cluster.kubectl(debug.iter().chain(&["--profile=general", "--", "sh", "-c", DRIFT_NOW]))?;
    ensure!(event(cluster, &uid, "RF-901")?["containerName"] == "visitor", "not by its name");
    gone(cluster, &uid)
}

/// Fifty pods whose first instruction is the violation.
fn first_instruction(cluster: &mut Cluster, _: &Release) -> Result<()> {
    const PODS: usize = 50;
    let mut spec = spec("");
    spec["containers"][0]["command"] = json!(["cat", "/etc/shadow"]);
    spec["restartPolicy"] = json!("Never");
    let template = json!({"metadata": {"labels": {"app": "first"}}, "spec": spec});
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "first", "namespace": "shop"},
        "spec": {"completions": PODS, "parallelism": 10, "template": template},
    });
    cluster.apply(&job.to_string())?;
    cluster.kubectl(["-n", "shop", "wait", "--for=condition=Complete", "--timeout=180s", "job/first"])?;
    let uids = ["-n", "shop", "get", "pods", "--selector=app=first", "-o", "jsonpath={.items[*].metadata.uid}"];
    let uids = cluster.kubectl(uids)?;
    let uids: Vec<&str> = uids.split(' ').collect();
    ensure!(uids.len() == PODS, "{} pods", uids.len());
    let mut missed = Vec::new();
    let waited = cluster.wait_for("all of them in the log", |cluster| {
        let events = events(cluster)?;
        let told = |uid: &str| events.iter().any(|event| event["k8sPodId"] == uid && event["ruleId"] == "RF-501");
        missed = uids.iter().filter(|uid| !told(uid)).map(ToString::to_string).collect();
        Ok(missed.is_empty())
    });
    ensure!(missed.is_empty(), "{} of {PODS} were missed: {missed:?}", missed.len());
    waited?;
    cluster.kubectl(["-n", "shop", "delete", "job", "first", "--wait=false"]).map(drop)
}

fn labels_change(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let uid = start(cluster, &pod("relabelled", "log", &spec(DRIFT_NOW)))?;
    event(cluster, &uid, "RF-901")?;
    cluster.kubectl(["-n", "shop", "label", "pod", "relabelled", "on-drift=terminate", "--overwrite"])?;
    gone(cluster, &uid)?;
    // The same by the labels of the namespace.
    cluster.kubectl(["label", "namespace", "shop", "env=test", "--overwrite"])?;
    let uid = start(cluster, &pod("elsewhere", "terminate", &spec(DRIFT_NOW)))?;
    event(cluster, &uid, "RF-901")?;
    cluster.kubectl(["label", "namespace", "shop", "env=prod", "--overwrite"])?;
    gone(cluster, &uid)
}

fn ruleset_changes(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let uid = start(cluster, &pod("stricter", "log", &spec(DRIFT_NOW)))?;
    event(cluster, &uid, "RF-901")?;
    let stricter = r#"{"spec": {"rules": [{"rule": "RF-501", "mitigation": "log"}, {"rule": "RF-901", "mitigation": "terminate"}]}}"#;
    cluster.kubectl(["patch", "rrs", "everywhere", "--type=merge", "-p", stricter])?;
    gone(cluster, &uid)?;
    cluster.apply(OBJECTS).map(drop)
}

fn killed(cluster: &mut Cluster, _: &Release) -> Result<()> {
    start(cluster, &pod("peer", "log", &spec(&format!("{SERVER} sleep 999999"))))?;
    let uid = start(cluster, &pod("cut", "isolate", &spec(DRIFT)))?;
    let peer = field(cluster, "peer", "{.status.podIP}")?;
    cluster.wait_for("the server", |cluster| Ok(reaches(cluster, "cut", &peer)))?;
    // Nobody comes back for the time being.
    let nowhere = r#"{"spec": {"template": {"spec": {"nodeSelector": {"no": "node"}}}}}"#;
    cluster.kubectl(["-n", NAMESPACE, "patch", "daemonset", "ringfence-enforcer", "-p", nowhere])?;
    cluster.kubectl(["-n", NAMESPACE, "delete", "pods", ENFORCERS, "--force", "--ignore-not-found"])?;
    cluster.wait_for("no enforcer", |_| Ok(!runs("/enforcer")?))?;

    exec(cluster, "cut", "touch /tmp/go")?;
    cluster.wait_for("the isolation", |cluster| Ok(!reaches(cluster, "cut", &peer)))?;
    let back = r#"{"spec": {"template": {"spec": {"nodeSelector": null}}}}"#;
    cluster.kubectl(["-n", NAMESPACE, "patch", "daemonset", "ringfence-enforcer", "-p", back])?;
    rollout(cluster, NAMESPACE, "daemonset/ringfence-enforcer")?;
    let event = event(cluster, &uid, "RF-901")?;
    ensure!(event["mitigationDone"][0] == "isolated", "{event}");
    ensure!(!reaches(cluster, "cut", &peer), "the new enforcer released it");
    let label = "{.metadata.labels.ringfence\\.dev/isolated}";
    cluster.wait_for("the label", |cluster| Ok(field(cluster, "cut", label)? == "true"))?;
    delete(cluster, &["cut", "peer"])
}

/// Whether a process of this machine has the program.
fn runs(program: &str) -> Result<bool> {
    Ok(!processes(program)?.is_empty())
}

/// Processes of this machine that have the program.
fn processes(program: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if command.split(|byte| *byte == 0).next() == Some(program.as_bytes()) {
            found.extend(process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        }
    }
    Ok(found)
}

/// Again and again what is blocked, and what came of it: not once is it let through while enforcers are exchanged.
fn rolling_update(cluster: &mut Cluster, _: &Release) -> Result<()> {
    const LOOP: &str = "cp /bin/busybox /tmp/true; until [ -e /tmp/go ]; do sleep 0.1; done; n=0; \
                        while :; do if /tmp/true; then echo through; fi; n=$((n+1)); echo $n > /tmp/tries; \
                        usleep 20000; done 2>/dev/null";
    let uid = start(cluster, &pod("tries", "block", &spec(LOOP)))?;
    exec(cluster, "tries", "touch /tmp/go")?;
    event(cluster, &uid, "RF-901")?;
    // The file is empty while it is written.
    let number = "until n=$(cat /tmp/tries) && [ -n \"$n\" ]; do :; done; echo $n";
    let tries = |cluster: &Cluster| -> Result<u64> { Ok(exec(cluster, "tries", number)?.trim().parse()?) };
    let mut seen = tries(cluster)?;
    for _ in 0..3 {
        // What the one that ends has told goes with its pod.
        let journal = Journal::default();
        let _logs = Logs::follow(cluster, NAMESPACE, &journal)?;
        journal.wait_for("what it has told", |_| true)?;
        cluster.kubectl(["-n", NAMESPACE, "rollout", "restart", "daemonset/ringfence-enforcer"])?;
        // Pods that come while the one has gone and the other is not there yet.
        let early: Vec<String> = ["early-1", "early-2", "early-3"].map(str::to_owned).to_vec();
        for name in &early {
            let mut spec = spec("");
            spec["containers"][0]["command"] = json!(["cat", "/etc/shadow"]);
            spec["restartPolicy"] = json!("Never");
            cluster.apply(&pod(name, "log", &spec).to_string())?;
        }
        rollout(cluster, NAMESPACE, "daemonset/ringfence-enforcer")?;
        for name in &early {
            let uid = field(cluster, name, "{.metadata.uid}")?;
            cluster.wait_for(&format!("RF-501 of pod {name}, {uid}, by either enforcer"), |cluster| {
                let of_it = |event: &Violation| {
                    event.rule_id.to_string() == "RF-501"
                        && event.k8s_pod_id.as_ref().is_some_and(|id| id.to_string() == uid)
                };
                let by_the_next = |event: &Value| event["k8sPodId"] == uid && event["ruleId"] == "RF-501";
                Ok(!journal.all(of_it).is_empty() || events(cluster)?.iter().any(by_the_next))
            })?;
        }
        delete(cluster, &early.iter().map(String::as_str).collect::<Vec<_>>())?;
        let now = tries(cluster)?;
        ensure!(now > seen, "nothing was tried during the update");
        seen = now;
    }
    let said = cluster.kubectl(["-n", "shop", "logs", "tries"])?;
    ensure!(said.trim().is_empty(), "let through {} times in {seen} tries", said.lines().count());
    delete(cluster, &["tries"])
}

/// The node goes on without the API server; what it had to say is said afterwards.
fn api_server_away(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let waits = "cp /bin/busybox /tmp/true; sleep 8; while :; do /tmp/true; sleep 1; done";
    let uid = start(cluster, &pod("alone", "terminate", &spec(waits)))?;
    let marker = "cp /bin/busybox /tmp/true; sleep 8; while :; do /tmp/true; sleep 1; done";
    let cut = start(cluster, &pod("alone-too", "isolate", &spec(marker)))?;
    cluster.kill("kube-apiserver")?;
    let log = cluster.state().join("pods");
    cluster.wait_for("both in the enforcer's log", |_| {
        let text = enforcer_log(&log)?;
        Ok([&uid, &cut].iter().all(|uid| text.lines().any(|line| line.contains(*uid) && line.contains("isolated"))))
    })?;
    cluster.restart("kube-apiserver")?;
    cluster.wait_for("the API server", |cluster| Ok(cluster.kubectl(["get", "--raw", "/readyz"]).is_ok()))?;
    gone(cluster, &uid)?;
    let label = "{.metadata.labels.ringfence\\.dev/isolated}";
    cluster.wait_for("the label", |cluster| Ok(field(cluster, "alone-too", label)? == "true"))?;
    reason(cluster, "alone-too", "PodIsolated")?;
    delete(cluster, &["alone-too"])
}

/// An enforcer that starts while the API server is away enforces what was in force, each pod by its own labels, and makes
/// up for the rest.
fn started_alone(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let folder = cluster.state().join("tmp/trigger");
    std::fs::create_dir_all(&folder)?;
    let waiting = |go: &str| {
        let script = format!(
            "cp /bin/busybox /tmp/true; until [ -e /trigger/{go} ]; do sleep 0.1; done; while :; do /tmp/true; sleep 1; done"
        );
        let mut spec = spec(&script);
        spec["volumes"] = json!([{"name": "trigger", "hostPath": {"path": folder}}]);
        spec["containers"][0]["volumeMounts"] = json!([{"name": "trigger", "mountPath": "/trigger"}]);
        spec
    };
    let ended = start(cluster, &pod("ended-alone", "terminate", &waiting("go")))?;
    let cut = start(cluster, &pod("cut-alone", "isolate", &waiting("go")))?;
    let log = cluster.state().join("pods");
    let alone = |text: &str| text.lines().filter(|line| line.contains("the API server does not answer")).count();
    let before = alone(&enforcer_log(&log)?);
    cluster.kill("kube-apiserver")?;
    for enforcer in processes("/enforcer")? {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(enforcer), nix::sys::signal::Signal::SIGKILL)?;
    }
    cluster.wait_for("another enforcer", |_| Ok(alone(&enforcer_log(&log)?) > before))?;
    std::fs::write(folder.join("go"), "")?;
    let told = |text: &str, uid: &str, done: &str| text.lines().any(|line| line.contains(uid) && line.contains(done));
    cluster.wait_for("both in the enforcer's log", |_| {
        let text = enforcer_log(&log)?;
        Ok(told(&text, &ended, "\"terminated\"") && told(&text, &cut, "\"isolated\""))
    })?;
    // What is still to be said outlives the enforcer too.
    for enforcer in processes("/enforcer")? {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(enforcer), nix::sys::signal::Signal::SIGKILL)?;
    }
    cluster.restart("kube-apiserver")?;
    cluster.wait_for("the API server", |cluster| Ok(cluster.kubectl(["get", "--raw", "/readyz"]).is_ok()))?;
    gone(cluster, &ended)?;
    let label = "{.metadata.labels.ringfence\\.dev/isolated}";
    cluster.wait_for("the label", |cluster| Ok(field(cluster, "cut-alone", label)? == "true"))?;
    rollout(cluster, NAMESPACE, "daemonset/ringfence-enforcer")?;
    std::fs::remove_dir_all(&folder)?;
    delete(cluster, &["cut-alone"])
}

/// A policy that does not exist is made the active one: the last good one stays in force, also after everything has been
/// started anew, and pods keep their labels.
fn policy_missing(cluster: &mut Cluster, release: &Release) -> Result<()> {
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

/// The enforcer's log where the kubelet keeps it: there is no API server to ask.
fn enforcer_log(pods: &Path) -> Result<String> {
    let mut text = String::new();
    for pod in std::fs::read_dir(pods)?.flatten() {
        if pod.file_name().to_string_lossy().starts_with("guard_ringfence-enforcer") {
            // Those that are full are compressed.
            let files = std::fs::read_dir(pod.path().join("enforcer"))?.flatten().map(|file| file.path());
            for file in files.filter(|file| file.extension().is_some_and(|end| end == "log")) {
                text.push_str(&std::fs::read_to_string(file)?);
            }
        }
    }
    Ok(text)
}

/// Under the policy of the dry run nothing is ended.
fn policy_switch(cluster: &mut Cluster, release: &Release) -> Result<()> {
    release.upgrade(cluster, &[&VALUES[..], &["policy.active=dry-run"]].concat())?;
    let uid = start(cluster, &pod("dry", "terminate", &spec(DRIFT_NOW)))?;
    let event = event(cluster, &uid, "RF-901")?;
    ensure!(event["mitigation"] == "log" && event["policyName"] == "dry-run", "{event}");
    ensure!(field(cluster, "dry", "{.metadata.uid}")? == uid, "it was replaced");
    delete(cluster, &["dry"])
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
