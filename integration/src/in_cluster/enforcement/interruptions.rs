//! Enforcers and the API server are killed, exchanged and away, and nothing gets past.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, ensure};
use ringfence_control::Violation;
use serde_json::{Value, json};

use super::{NAMESPACE, Release, delete, event, events, exec, field, peer, pod, reaches, reason, rollout, start};
use crate::cluster::Cluster;
use crate::in_cluster::pods::{DRIFT, spec};
use crate::in_cluster::told::{ENFORCERS, Logs, gone};
use crate::journal::Journal;

pub fn killed(cluster: &mut Cluster, _: &Release) -> Result<()> {
    peer(cluster)?;
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
    delete(cluster, &["cut"])
}

/// Whether a process of this machine has the program.
pub fn runs(program: &str) -> Result<bool> {
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
pub fn rolling_update(cluster: &mut Cluster, _: &Release) -> Result<()> {
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
pub fn api_server_away(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let waits = "cp /bin/busybox /tmp/true; sleep 8; while :; do /tmp/true; sleep 1; done";
    let uid = start(cluster, &pod("alone", "terminate", &spec(waits)))?;
    let marker = "cp /bin/busybox /tmp/true; sleep 8; while :; do /tmp/true; sleep 1; done";
    let cut = start(cluster, &pod("alone-too", "isolate", &spec(marker)))?;
    let log = cluster.state().join("pods");
    without_api_server(cluster, |cluster| {
        cluster.wait_for("both in the enforcer's log", |_| {
            let text = enforcer_log(&log)?;
            Ok([&uid, &cut].iter().all(|uid| text.lines().any(|line| line.contains(*uid) && line.contains("isolated"))))
        })
    })?;
    gone(cluster, &uid)?;
    let label = "{.metadata.labels.ringfence\\.dev/isolated}";
    cluster.wait_for("the label", |cluster| Ok(field(cluster, "alone-too", label)? == "true"))?;
    reason(cluster, "alone-too", "PodIsolated")?;
    delete(cluster, &["alone-too"])
}

/// An enforcer that starts while the API server is away enforces what was in force, each pod by its own labels, and makes
/// up for the rest.
pub fn started_alone(cluster: &mut Cluster, _: &Release) -> Result<()> {
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
    without_api_server(cluster, |cluster| {
        kill_all("/enforcer")?;
        cluster.wait_for("another enforcer", |_| Ok(alone(&enforcer_log(&log)?) > before))?;
        std::fs::write(folder.join("go"), "")?;
        let told =
            |text: &str, uid: &str, done: &str| text.lines().any(|line| line.contains(uid) && line.contains(done));
        cluster.wait_for("both in the enforcer's log", |_| {
            let text = enforcer_log(&log)?;
            Ok(told(&text, &ended, "\"terminated\"") && told(&text, &cut, "\"isolated\""))
        })?;
        // What is still to be said outlives the enforcer too.
        kill_all("/enforcer")
    })?;
    gone(cluster, &ended)?;
    let label = "{.metadata.labels.ringfence\\.dev/isolated}";
    cluster.wait_for("the label", |cluster| Ok(field(cluster, "cut-alone", label)? == "true"))?;
    rollout(cluster, NAMESPACE, "daemonset/ringfence-enforcer")?;
    std::fs::remove_dir_all(&folder)?;
    delete(cluster, &["cut-alone"])
}

/// Does `f` while there is no API server. There is one afterwards, whatever came of it: the tests that follow need it.
fn without_api_server(cluster: &mut Cluster, f: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    cluster.kill("kube-apiserver")?;
    let done = f(cluster);
    cluster.restart("kube-apiserver")?;
    cluster.wait_for("the API server", |cluster| Ok(cluster.kubectl(["get", "--raw", "/readyz"]).is_ok()))?;
    done
}

/// Kills every process of this machine that has the program.
fn kill_all(program: &str) -> Result<()> {
    for process in processes(program)? {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), nix::sys::signal::Signal::SIGKILL)?;
    }
    Ok(())
}

/// The enforcer's log where the kubelet keeps it: there is no API server to ask.
fn enforcer_log(pods: &Path) -> Result<String> {
    let mut text = String::new();
    for pod in std::fs::read_dir(pods)?.flatten() {
        if pod.file_name().to_string_lossy().starts_with("guard_ringfence-enforcer") {
            // Those that are full are compressed.
            let files = std::fs::read_dir(pod.path().join("enforcer")).into_iter().flatten().flatten();
            let files = files.map(|file| file.path());
            for file in files.filter(|file| file.extension().is_some_and(|end| end == "log")) {
                match std::fs::read_to_string(file) {
                    Ok(log) => text.push_str(&log),
                    // The kubelet keeps the logs of only so many containers that have ended.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(text)
}
