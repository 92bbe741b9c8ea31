//! Pods that are isolated, and then make themselves a way past that.

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use serde_json::json;

use super::{NAMESPACE, Release, delete, deployment, event, in_mall, pods, reason, touch};
use crate::cluster::Cluster;
use crate::enforcer::beside_this_program;
use crate::in_cluster::pods::{DRIFT, spec};
use crate::in_cluster::policy;
use crate::in_cluster::told::{ENFORCERS, gone, is_there, logs};

/// As long as a limit holds its termination back that is told, and once nothing does the pod goes.
pub fn held_and_terminated(cluster: &mut Cluster, release: &Release) -> Result<()> {
    policy::change(cluster, &json!({"limits": {"minReadyReplicas": 1, "maxTerminations": null}}))?;
    let mut spec = spec(DRIFT);
    let actor = beside_this_program("ringfence-actor")?;
    spec["volumes"] = json!([{"name": "actor", "hostPath": {"path": actor, "type": "File"}}]);
    let container = &mut spec["containers"][0];
    container["volumeMounts"] = json!([{"name": "actor", "mountPath": "/actor", "readOnly": true}]);
    container["securityContext"] = json!({"capabilities": {"add": ["NET_ADMIN"]}});
    cluster.apply(&deployment("climber", 1, "isolate", &spec).to_string())?;
    in_mall(cluster, &["rollout", "status", "deployment/climber", "--timeout=180s"])?;
    let (pod, uid) = pods(cluster, "climber")?.into_iter().next().context("no pod")?;
    touch(cluster, &pod, "/tmp/go")?;
    let event = event(cluster, &uid, "its isolation", |event| event["mitigation"] == "isolate")?;
    ensure!(event["mitigationDone"] == json!(["isolated"]), "{event}");

    let card = cluster.within(|| Ok(if_nametoindex("eth0")?))?;
    let make = format!("/actor link mv0 --kind macvlan --on {card} --of 0");
    in_mall(cluster, &["exec", &pod, "-c", "main", "--", "sh", "-c", &make])?;
    let way = "mv0 is a macvlan device: it has no host side to be seen";
    let note = reason(cluster, &pod, "MitigationHeld")?;
    ensure!(note.contains("because minReadyReplicas holds that back") && note.contains(way), "{note}");
    let warnings = release.status(cluster)?["warnings"].to_string();
    ensure!(warnings.contains(&format!("pod mall/{pod}: isolated")) && warnings.contains(way), "{warnings}");
    ensure!(is_there(cluster, &uid)?, "it was ended");

    policy::change(cluster, &json!({"limits": {"minReadyReplicas": null}}))?;
    gone(cluster, &uid)?;
    let note = reason(cluster, &pod, "PodTerminated")?;
    ensure!(note == format!("isolated by RF-901, it has got a way past that: {way}; terminated"), "{note}");
    let said = logs(cluster, NAMESPACE, ENFORCERS)?;
    let lines: Vec<_> = said.lines().filter(|line| line.contains(&uid) && line.contains("past that")).collect();
    ensure!(lines.len() == 2, "it is told as it is held back, and as it goes: {lines:?}");
    delete(cluster, "climber")
}
