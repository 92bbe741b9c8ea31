//! Whom a policy spares, whatever they do: all, by its kill switch; static pods that it does not name; our own pods.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use ringfence_actor::now;
use serde_json::{Value, json};

use super::{NAMESPACE, Release, delete, event, events, exec, field, peer, pod, reaches, reason, start};
use crate::cluster::{Cluster, NODE_NAME};
use crate::in_cluster::pods::{DRIFT, SERVER, spec};
use crate::in_cluster::policy;
use crate::in_cluster::told::{gone, is_there};

/// Violates again and again once it is told to, and says how often so far.
const COUNTED: &str = "cp /bin/busybox /tmp/true; : > /tmp/tries; until [ -e /tmp/go ]; do sleep 0.1; done; \
                       while :; do /tmp/true; echo >> /tmp/tries; sleep 0.2; done";

/// Makes a pod violate, and waits until it has done so several times.
fn violate(cluster: &mut Cluster, namespace: &str, pod: &str) -> Result<()> {
    cluster.kubectl(["-n", namespace, "exec", pod, "--", "touch", "/tmp/go"])?;
    cluster.wait_for(&format!("several violations of pod {pod}"), |cluster| {
        let tries = cluster.kubectl(["-n", namespace, "exec", pod, "--", "wc", "-l", "/tmp/tries"])?;
        Ok(tries.split(' ').next().is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number > 3)))
    })
}

/// The kill switch: nothing is done and nothing said, and who is isolated stays so. Without it everything is as before.
pub fn suspended(cluster: &mut Cluster, release: &Release) -> Result<()> {
    peer(cluster)?;
    let server = field(cluster, "peer", "{.status.podIP}")?;
    let cut = start(cluster, &pod("cut-before", "isolate", &spec(&format!("{SERVER} {DRIFT}"))))?;
    cluster.wait_for("its network", |cluster| Ok(reaches(cluster, "cut-before", &server)))?;
    exec(cluster, "cut-before", "touch /tmp/go")?;
    event(cluster, &cut, "RF-901")?;
    let uid = start(cluster, &pod("spared", "terminate", &spec(COUNTED)))?;
    let governing = |cluster: &Cluster| -> Result<bool> {
        let status = release.status(cluster)?;
        let containers = status["containers"].as_array().context("no containers")?;
        Ok(containers.iter().any(|it| it["rulesets"].as_array().is_some_and(|rulesets| !rulesets.is_empty())))
    };
    cluster.wait_for("that the node governs", |cluster| governing(cluster))?;

    let mut switched_back = 0;
    policy::during(cluster, &json!({"limits": {"suspend": true}}), |cluster| {
        cluster.wait_for("that the node governs nobody", |cluster| Ok(!governing(cluster)?))?;
        violate(cluster, "shop", "spared")?;
        ensure!(!reaches(cluster, "cut-before", &server), "who was isolated is not any more");
        start(cluster, &pod("late", "log", &spec("sleep 999999")))?;
        switched_back = now();
        Ok(())
    })?;
    let event = event(cluster, &uid, "RF-901")?;
    ensure!(event["kernelTimeNs"].as_u64().is_some_and(|at| at > switched_back), "before the switch was back: {event}");
    ensure!(event["mitigation"] == "terminate", "{event}");
    gone(cluster, &uid)?;
    ensure!(!reaches(cluster, "cut-before", &server), "who was isolated is not any more");
    // Whoever came meanwhile is covered like others.
    let datapaths = |cluster: &Cluster, pod: &str| -> Result<Vec<Value>> {
        let status = release.status(cluster)?;
        let all = status["containers"].as_array().context("no containers")?;
        let of_pod = all.iter().find(|it| it["name"] == pod).with_context(|| format!("{pod} is not governed"))?;
        Ok(of_pod["datapaths"].as_array().into_iter().flatten().map(|it| it["kind"].clone()).collect())
    };
    let (late, usual) = (datapaths(cluster, "late")?, datapaths(cluster, "peer")?);
    ensure!(late == usual, "who came meanwhile is covered by {late:?}, others by {usual:?}");
    delete(cluster, &["cut-before", "late"])
}

/// A static pod is spared until it is named, and a pod in our own namespace always.
pub fn own_and_static(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let mut own = pod("ours", "terminate", &spec(COUNTED));
    own["metadata"]["namespace"] = json!(NAMESPACE);
    cluster.apply(&own.to_string())?;
    let file = cluster.static_pods().join("static.json");
    fs::write(&file, pod("static", "isolate", &spec(&format!("{SERVER} {COUNTED}"))).to_string())?;
    let result = spared_until_named(cluster);
    fs::remove_file(&file)?;
    result
}

fn spared_until_named(cluster: &mut Cluster) -> Result<()> {
    let name = format!("static-{NODE_NAME}");
    let mirror = name.as_str();
    cluster.wait_for("the static pod's mirror", |cluster| {
        Ok(cluster.kubectl(["-n", "shop", "get", "pod", mirror, "--ignore-not-found", "-o", "name"])?.contains(mirror))
    })?;
    for (namespace, pod) in [("shop", mirror), (NAMESPACE, "ours")] {
        let ready = ["wait", "--for=condition=Ready", "--timeout=180s", &format!("pod/{pod}")].map(str::to_owned);
        cluster.kubectl(["-n".to_owned(), namespace.to_owned()].iter().chain(&ready))?;
        violate(cluster, namespace, pod)?;
    }
    peer(cluster)?;
    let address = field(cluster, mirror, "{.status.podIP}")?;
    ensure!(reaches(cluster, "peer", &address), "it serves nobody");
    // A witness that comes later: what they did would have been reported before.
    let witness = start(cluster, &pod("witness", "log", &spec(COUNTED)))?;
    violate(cluster, "shop", "witness")?;
    event(cluster, &witness, "RF-901")?;
    let uids = [("shop", mirror), (NAMESPACE, "ours")].map(|(namespace, pod)| {
        cluster.kubectl(["-n", namespace, "get", "pod", pod, "-o", "jsonpath={.metadata.uid}"])
    });
    let told = |event: &Value| event["k8sPodName"] == mirror || event["k8sPodName"] == "ours";
    let found = events(cluster)?.into_iter().find(told);
    ensure!(found.is_none(), "{found:?}");
    for uid in uids {
        ensure!(is_there(cluster, &uid?)?, "one of them was ended");
    }
    let hash = field(cluster, mirror, "{.metadata.annotations.kubernetes\\.io/config\\.hash}")?;
    policy::during(cluster, &json!({"limits": {"governStaticPods": [format!("shop/{mirror}")]}}), |cluster| {
        // The node knows it by the hash of its file.
        let event = event(cluster, &hash, "RF-901")?;
        ensure!(event["mitigationDone"] == json!(["isolated"]), "{event}");
        ensure!(!reaches(cluster, "peer", &address), "it is not cut off");
        reason(cluster, mirror, "PodIsolated")?;
        let mark = "{.metadata.labels.ringfence\\.dev/isolated}";
        cluster.wait_for("its label", |cluster| Ok(field(cluster, mirror, mark)? == "true"))
    })?;
    let found = events(cluster)?.into_iter().find(|event| event["k8sPodName"] == "ours");
    ensure!(found.is_none(), "{found:?}");
    cluster.kubectl(["-n", NAMESPACE, "delete", "pod", "ours", "--force"])?;
    delete(cluster, &["witness"])
}
