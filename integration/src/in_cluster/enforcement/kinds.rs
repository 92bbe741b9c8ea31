//! Pods of every kind, three of each side by side: one is logged, one cut off, one ended.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Release, event, events, exec_in, peer, pod, reason};
use crate::cluster::Cluster;
use crate::in_cluster::pods::{self, DRIFT, DRIFT_NOW, IMAGE, SERVER, container, spec};
use crate::in_cluster::told::{gone, is_there};

/// What the label `on-drift` asks for, and what is done then.
const ANSWERS: [(&str, &[&str]); 3] =
    [("log", &[]), ("isolate", &["isolated"]), ("terminate", &["isolated", "killed", "terminated"])];

/// A pod that breaks a rule, or is about to.
#[derive(Debug)]
struct Violator {
    on_drift: String,
    name: String,
    uid: String,
    address: String,
}

impl Violator {
    /// Where it serves its page.
    fn server(&self) -> String {
        format!("{}:8080", self.address)
    }
}

/// Three pods of a kind, one for each answer.
fn three(kind: &str, spec: &Value) -> Vec<Value> {
    let one = |(on_drift, _): &(&str, &[&str])| {
        let mut pod = pod(&format!("{kind}-{on_drift}"), on_drift, spec);
        pod["metadata"]["labels"]["kind"] = json!(kind);
        pod
    };
    ANSWERS.iter().map(one).collect()
}

/// The pods of a kind, once there are so many of which a container runs.
fn violators(cluster: &mut Cluster, kind: &str, number: usize) -> Result<Vec<Violator>> {
    let selector = format!("--selector=kind={kind}");
    let runs = |pod: &Value| {
        let of = |key: &str| pod["status"][key].as_array().cloned().unwrap_or_default();
        [of("initContainerStatuses"), of("containerStatuses")]
            .concat()
            .iter()
            .any(|it| it["state"]["running"].is_object())
    };
    let mut found = Vec::new();
    cluster.wait_for(&format!("{number} pods of kind {kind}"), |cluster| {
        let text = cluster.kubectl(["-n", "shop", "get", "pods", &selector, "-o", "json"])?;
        let pods: Value = serde_json::from_str(&text)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let violator = |pod: &Value| Violator {
            on_drift: text(&pod["metadata"]["labels"]["on-drift"]),
            name: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            address: text(&pod["status"]["podIP"]),
        };
        let pods = pods["items"].as_array().context("no list")?;
        found = pods.iter().filter(|pod| runs(pod)).map(violator).collect();
        Ok(found.len() == number && found.iter().all(|it| !it.address.is_empty()))
    })?;
    Ok(found)
}

/// Waits until the peer gets the page of all of them.
fn served(cluster: &mut Cluster, violators: &[Violator]) -> Result<()> {
    peer(cluster)?;
    let servers: Vec<_> = violators.iter().map(Violator::server).collect();
    let servers: Vec<_> = servers.iter().map(String::as_str).collect();
    cluster.wait_for("the pages of all violators", |cluster| {
        Ok(pods::reached(cluster, "shop", "peer", &servers).iter().all(|reached| *reached))
    })
}

/// Each was answered as its label says and no other way, for what its container did: by what is told, at the API server
/// and, if they serve a page, by traffic.
fn answered(cluster: &mut Cluster, violators: &[Violator], container: &str, serving: bool) -> Result<()> {
    for violator in violators {
        let event = event(cluster, &violator.uid, "RF-901")?;
        let (_, done) = ANSWERS.iter().find(|(on_drift, _)| *on_drift == violator.on_drift).context("no answer")?;
        let told = event["mitigationDone"].as_array().cloned().unwrap_or_default();
        ensure!(event["mitigation"] == *violator.on_drift && told == *done, "{violator:?}: {event}");
        ensure!(event["containerName"] == container, "{violator:?} did it in {}", event["containerName"]);
    }
    for violator in violators {
        let (name, uid) = (violator.name.as_str(), &violator.uid);
        let mark = |cluster: &Cluster| super::field(cluster, name, "{.metadata.labels.ringfence\\.dev/isolated}");
        match violator.on_drift.as_str() {
            "log" => {
                reason(cluster, name, "RulesetViolation")?;
                ensure!(mark(cluster)?.is_empty() && is_there(cluster, uid)?, "{name} was not only logged");
            }
            "isolate" => {
                reason(cluster, name, "PodIsolated")?;
                cluster.wait_for("its label", |cluster| Ok(mark(cluster)? == "true"))?;
                ensure!(is_there(cluster, uid)?, "{name} was ended");
            }
            _ => {
                gone(cluster, uid)?;
                reason(cluster, name, "PodTerminated")?;
            }
        }
    }
    if serving {
        let left: Vec<_> = violators.iter().filter(|violator| violator.on_drift != "terminate").collect();
        let servers: Vec<_> = left.iter().map(|violator| violator.server()).collect();
        let servers: Vec<_> = servers.iter().map(String::as_str).collect();
        let reached = pods::reached(cluster, "shop", "peer", &servers);
        for (violator, reached) in left.iter().zip(reached) {
            ensure!(reached == (violator.on_drift == "log"), "{violator:?}: its page is served: {reached}");
        }
    }
    Ok(())
}

fn go(cluster: &Cluster, violators: &[Violator], container: &str) -> Result<()> {
    violators.iter().try_for_each(|violator| exec_in(cluster, &violator.name, container, "touch /tmp/go").map(drop))
}

fn delete(cluster: &Cluster, kind: &str) -> Result<()> {
    let selector = format!("--selector=kind={kind}");
    cluster.kubectl(["-n", "shop", "delete", "pods", &selector, "--force", "--wait=false"]).map(drop)
}

const WORKLOADS: [&str; 4] = ["Deployment", "DaemonSet", "StatefulSet", "Job"];

/// One whose pods violate.
fn workload(kind: &str, on_drift: &str) -> Value {
    let name = format!("{}-{on_drift}", kind.to_lowercase());
    let mut spec = spec(&format!("{SERVER} {DRIFT}"));
    spec["restartPolicy"] = json!(if kind == "Job" { "Never" } else { "Always" });
    let labels = json!({"app": name, "kind": "workload", "on-drift": on_drift});
    let template = json!({"metadata": {"labels": labels}, "spec": spec});
    let selector = json!({"matchLabels": {"app": name}});
    let spec = match kind {
        "Job" => json!({"backoffLimit": 4, "template": template}),
        "StatefulSet" => json!({"serviceName": "none", "selector": selector, "template": template}),
        _ => json!({"selector": selector, "template": template}),
    };
    json!({
        "apiVersion": if kind == "Job" { "batch/v1" } else { "apps/v1" }, "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "labels": {"kind": "workload"}}, "spec": spec,
    })
}

/// Those that are ended are made anew.
pub fn workloads(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let of_kind = |kind| ANSWERS.iter().map(move |(on_drift, _)| workload(kind, on_drift));
    let objects: Vec<_> = WORKLOADS.into_iter().flat_map(of_kind).collect();
    cluster.apply(&pods::list(&objects))?;
    let violators = violators(cluster, "workload", objects.len())?;
    served(cluster, &violators)?;
    go(cluster, &violators, "main")?;
    answered(cluster, &violators, "main", true)?;
    for kind in WORKLOADS {
        let app = format!("--selector=app={}-terminate", kind.to_lowercase());
        let first = ["-n", "shop", "get", "pods", &app, "-o", "jsonpath={.items[*].metadata.uid}"];
        cluster.wait_for(&format!("another pod of the {kind}"), |cluster| {
            // That the first ones are gone is known.
            Ok(!cluster.kubectl(first)?.is_empty())
        })?;
    }
    let kinds = WORKLOADS.join(",");
    let words = ["-n", "shop", "delete", &kinds, "--selector=kind=workload", "--cascade=foreground", "--wait=false"];
    cluster.kubectl(words).map(drop)
}

/// They have the node's network, which only they lose.
pub fn host_network(cluster: &mut Cluster, _: &Release) -> Result<()> {
    peer(cluster)?;
    let server = format!("{}:8080", super::field(cluster, "peer", "{.status.podIP}")?);
    let mut spec = spec(DRIFT);
    spec["hostNetwork"] = json!(true);
    cluster.apply(&pods::list(&three("host", &spec)))?;
    let violators = violators(cluster, "host", ANSWERS.len())?;
    let reaches = |cluster: &Cluster, from: &str| pods::reached(cluster, "shop", from, &[&server]) == [true];
    for violator in &violators {
        ensure!(reaches(cluster, &violator.name), "{} does not reach the peer", violator.name);
    }
    go(cluster, &violators, "main")?;
    answered(cluster, &violators, "main", false)?;
    for violator in violators.iter().filter(|violator| violator.on_drift != "terminate") {
        let connected = reaches(cluster, &violator.name);
        ensure!(connected == (violator.on_drift == "log"), "{} reaches the peer: {connected}", violator.name);
    }
    ensure!(cluster.kubectl(["get", "--raw", "/readyz"])? == "ok", "the API server");
    delete(cluster, "host")
}

pub fn init_container(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let mut spec = spec("sleep 999999");
    spec["initContainers"] = json!([container("first", &format!("{SERVER} {DRIFT}"))]);
    one_of_them(cluster, "init", &spec, "first")
}

/// One serves, the one beside it violates.
pub fn several_containers(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let mut spec = spec(&format!("{SERVER} sleep 999999"));
    spec["containers"].as_array_mut().context("a list")?.push(container("beside", DRIFT));
    one_of_them(cluster, "several", &spec, "beside")
}

/// Three pods that serve a page, of whose containers this one violates.
fn one_of_them(cluster: &mut Cluster, kind: &str, spec: &Value, container: &str) -> Result<()> {
    cluster.apply(&pods::list(&three(kind, spec)))?;
    let violators = violators(cluster, kind, ANSWERS.len())?;
    served(cluster, &violators)?;
    go(cluster, &violators, container)?;
    answered(cluster, &violators, container, true)?;
    delete(cluster, kind)
}

pub fn ephemeral_container(cluster: &mut Cluster, _: &Release) -> Result<()> {
    cluster.apply(&pods::list(&three("debugged", &spec(&format!("{SERVER} sleep 999999")))))?;
    let violators = violators(cluster, "debugged", ANSWERS.len())?;
    served(cluster, &violators)?;
    for violator in &violators {
        let debug = ["-n", "shop", "debug", &violator.name, "--image", IMAGE, "--image-pull-policy=Never"];
        let what = ["--container=visitor", "--profile=general", "--", "sh", "-c", DRIFT_NOW];
        cluster.kubectl(debug.iter().chain(&what))?;
    }
    answered(cluster, &violators, "visitor", true)?;
    delete(cluster, "debugged")
}

/// Fifty pods of a Deployment whose first instruction is the violation, and who do it once: whoever goes is made anew.
pub fn first_instruction(cluster: &mut Cluster, _: &Release) -> Result<()> {
    const PODS: usize = 50;
    const REPLICAS: usize = 10;
    let mut spec = spec("");
    spec["containers"][0]["command"] = json!(["tail", "-f", "/etc/shadow"]);
    let labels = json!({"kind": "first"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "first", "namespace": "shop"},
        "spec": {
            "replicas": REPLICAS, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    });
    cluster.apply(&deployment.to_string())?;
    let mut uids: Vec<String> = Vec::new();
    while uids.len() < PODS {
        let new = violators(cluster, "first", REPLICAS)?;
        ensure!(new.iter().all(|pod| !uids.contains(&pod.uid)), "one has stayed");
        uids.extend(new.into_iter().map(|pod| pod.uid));
        delete(cluster, "first")?;
    }
    ensure!(uids.len() == PODS, "{} pods", uids.len());
    let mut missed = Vec::new();
    let waited = cluster.wait_for("all of them in the log", |cluster| {
        let events = events(cluster)?;
        let of =
            |uid: &str| events.iter().filter(|event| event["k8sPodId"] == uid && event["ruleId"] == "RF-501").count();
        missed = uids.iter().filter(|uid| of(uid) == 0).cloned().collect();
        Ok(missed.is_empty())
    });
    ensure!(missed.is_empty(), "{} of {PODS} were missed: {missed:?}", missed.len());
    waited?;
    cluster.kubectl(["-n", "shop", "delete", "deployment", "first", "--wait=false"]).map(drop)
}
