//! A node with taints: who stays on it.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{NAMESPACE, Site, trusted};
use crate::cluster::{Cluster, NODE_NAME};
use crate::in_cluster::{pods, told};

/// Both keep new pods away, the second one drives away those that are there.
const TAINTS: [&str; 2] = ["dedicated=others:NoSchedule", "dedicated=others:NoExecute"];

/// Neither component has the other's tolerations: by its defaults enforcers stay and the webhook goes; the other way round
/// when they are told so.
pub fn node_side_alone(site: &mut Site) -> Result<()> {
    let taint = ["taint", "node", NODE_NAME];
    site.kubectl(&[&taint[..], &TAINTS].concat())?;
    let result = on_tainted(site);
    site.kubectl(&[&taint[..], &["dedicated-"]].concat())?;
    result?;
    site.upgrade(&[])?;
    running(site, "enforcer", 1)?;
    running(site, "webhook", 2)?;
    trusted(site)
}

fn on_tainted(site: &mut Site) -> Result<()> {
    let before = enforcers(site.cluster)?;
    running(site, "webhook", 0)?;
    site.cluster.wait_for("that it has no place", |cluster| {
        let why = "jsonpath={.items[*].status.conditions[?(@.type=='PodScheduled')].message}";
        let said = cluster.kubectl(["-n", NAMESPACE, "get", "pods", "--selector", &selector("webhook"), "-o", why])?;
        Ok(said.contains("untolerated taint"))
    })?;
    // Whoever else tolerates the taints is governed.
    let mut spec = pods::spec("cp /bin/busybox /tmp/true; while :; do /tmp/true; sleep 1; done");
    spec["tolerations"] = json!([{"key": "dedicated", "operator": "Exists"}]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tolerates", "namespace": "chart-shop"}, "spec": spec,
    });
    site.cluster.apply(&pod.to_string())?;
    told::event(site.cluster, "chart-shop", "tolerates", "PodIsolated")?;
    let after = enforcers(site.cluster)?;
    ensure!(!before.is_empty() && after == before, "the enforcer is another: {before:?}, {after:?}");

    let reverse = ["webhook.tolerations[0].operator=Exists", "runtimeSecurity.tolerations[0].key=elsewhere"];
    site.upgrade(&[&reverse[..], &["runtimeSecurity.tolerations[0].operator=Exists"]].concat())?;
    running(site, "enforcer", 0)?;
    running(site, "webhook", 2)?;
    // It was driven away, not switched off.
    ensure!(site.pinned()?, "its programs are gone");
    let pod = site.get(&["-n", "chart-shop", "get", "pod", "tolerates"])?;
    let mark = pod["metadata"]["labels"]["ringfence.dev/isolated"].as_str().context("it is not isolated any more")?;
    ensure!(mark == "true", "{mark}");
    site.kubectl(&["-n", "chart-shop", "delete", "pod", "tolerates", "--force"]).map(drop)
}

fn selector(component: &str) -> String {
    format!("app.kubernetes.io/name=ringfence-{component}")
}

/// UIDs of the enforcers that run.
fn enforcers(cluster: &Cluster) -> Result<String> {
    let running = ["--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].metadata.uid}"];
    let words = ["-n", NAMESPACE, "get", "pods", "--selector", &selector("enforcer")].map(str::to_owned);
    cluster.kubectl(words.into_iter().chain(running.map(str::to_owned)))
}

/// Waits until so many pods of a component run, and none is on its way out.
fn running(site: &mut Site, component: &str, number: usize) -> Result<()> {
    site.cluster.wait_for(&format!("{number} pods of the {component}"), |cluster| {
        let phases = "jsonpath={range .items[*]}{.status.phase}{.metadata.deletionTimestamp}{\"\\n\"}{end}";
        let said =
            cluster.kubectl(["-n", NAMESPACE, "get", "pods", "--selector", &selector(component), "-o", phases])?;
        let all = said.lines().filter(|line| *line != "Pending");
        Ok(all.clone().all(|phase| phase == "Running") && all.count() == number)
    })
}
