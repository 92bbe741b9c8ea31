//! The same scene in Kubernetes: the chart is installed into a cluster of the demo's own, the three containers are pods
//! of Deployments, and what happens is seen through the API server.

use std::io::stdout;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ringfence_control::Violation;
use ringfence_control::render::{Paint, violation};

use super::{Outcome, RULESETS, Watch, conclude, script};
use crate::cluster::{self, Cluster, Helm, Interrupt, NODE_ADDRESS, Options};
use crate::image;
use crate::in_cluster::Context;
use crate::in_cluster::release::Release;
use crate::in_cluster::told::Logs;
use crate::journal::Journal;
use crate::sink::Sink;
use crate::suite::cut_at;

/// Policy, namespace and Deployments of the scene.
const OBJECTS: &str = include_str!("in_cluster.yaml");

/// Where Ringfence is installed.
const NAMESPACE: &str = "ringfence";

/// How long the viewer sees a state.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the scene with the programs in a folder. 1 if something else happened than was expected.
pub fn run(programs: PathBuf) -> Result<ExitCode> {
    let interrupt = Interrupt::by_signals()?;
    let started = Instant::now();
    println!("Starting a Kubernetes cluster of the demo's own: etcd, API server, controllers, containerd, kubelet.\n");
    cluster::remove_stale()?;
    let cluster = Cluster::up(&Options { interrupt: interrupt.clone(), ..Options::default() })?;
    let mut context = Context::new(cluster, programs);
    let watch = Watch::new(interrupt.flag(), started);
    let played = play(&mut context, &watch);
    let down = context.cluster.down();
    let outcomes = played?;
    down.context("clean up")?;
    Ok(conclude(&outcomes, started))
}

/// One of the scene's pods.
struct Pod {
    name: String,
    uid: String,
    address: IpAddr,
}

impl Pod {
    /// The one pod of a Deployment.
    fn of(cluster: &Cluster, app: &str) -> Result<Self> {
        let path = "jsonpath={.items[0].metadata.name} {.items[0].metadata.uid} {.items[0].status.podIP}";
        let selector = format!("--selector=app={app}");
        let text = cluster.kubectl(["-n", "shop", "get", "pods", &selector, "-o", path])?;
        let mut words = text.split(' ').map(str::to_owned);
        let mut next = || words.next().filter(|word| !word.is_empty()).with_context(|| format!("{app} has no pod yet"));
        Ok(Self { name: next()?, uid: next()?, address: next()?.parse()? })
    }

    /// Runs a command in it.
    fn exec(&self, cluster: &Cluster, command: &[&str]) -> Result<String> {
        cluster.kubectl(["-n", "shop", "exec", &self.name, "--"].iter().chain(command))
    }

    fn of_its(&self) -> impl Fn(&Violation) -> bool {
        let uid = self.uid.clone();
        move |event| event.k8s_pod_id.as_ref().is_some_and(|pod| pod.to_string() == uid)
    }
}

fn play(context: &mut Context, watch: &Watch) -> Result<Vec<Outcome>> {
    let release = Release::prepare(context, Helm::V4, "ringfence", NAMESPACE)?;
    context.cluster.import(&image::image(&context.program("ringfence-actor")?))?;
    let cluster = &mut context.cluster;
    let sink = Sink::on_node_of(cluster)?;

    watch.say("$ helm install ringfence charts/ringfence --namespace ringfence --create-namespace --wait");
    release.install(cluster, &["policy.create=false", "crds.keep=false"])?;
    Watch::report(&cluster.kubectl(["-n", NAMESPACE, "get", "pods"])?);
    watch.say("$ kubectl apply -f rulesets.yaml -f policy.yaml -f deployments.yaml");
    cluster.apply(RULESETS)?;
    let objects = OBJECTS.replace("<sink>", &format!("{NODE_ADDRESS}:{}", sink.port()));
    let (policy, workloads) = objects.split_once("---\n").context("the policy comes first")?;
    cluster.apply(policy)?;
    cluster.kubectl(["wait", "--for=condition=InUse", "--timeout=180s", "rpol/default"])?;
    cluster.apply(workloads)?;
    for app in ["web", "worker", "batch"] {
        cluster.kubectl(["-n", "shop", "rollout", "status", &format!("deployment/{app}"), "--timeout=180s"])?;
    }
    let journal = Journal::default();
    let logs = Logs::follow(cluster, NAMESPACE, &journal)?;
    let outcomes = scene(cluster, &sink, &journal, watch)?;
    drop(logs);

    watch.say("$ helm uninstall ringfence");
    release.uninstall(cluster)?;
    Ok(outcomes)
}

fn scene(cluster: &mut Cluster, sink: &Sink, journal: &Journal, watch: &Watch) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut expect = |what, expected: &str, happened: String| {
        outcomes.push(Outcome { what, expected: expected.into(), happened });
    };
    let (web, worker, batch) = (Pod::of(cluster, "web")?, Pod::of(cluster, "worker")?, Pod::of(cluster, "batch")?);
    watch.say("$ kubectl -n shop get pods -L ringfence.dev/policy,ringfence.dev/ruleset-hash");
    Watch::report(&cluster.kubectl([
        "-n",
        "shop",
        "get",
        "pods",
        "-L",
        "ringfence.dev/policy,ringfence.dev/ruleset-hash",
    ])?);
    let labelled =
        cluster.kubectl(["-n", "shop", "get", "pods", "-l", "ringfence.dev/policy=default", "-o", "name"])?;
    expect("pods labelled at admission", "3", labelled.lines().count().to_string());
    let rate = |watch: &Watch| -> Result<u64> {
        let before = sink.from(worker.address).count;
        watch.pause(LOOK)?;
        Ok(sink.from(worker.address).count - before)
    };
    watch.row("web: log", "worker: isolate", "batch: terminate");
    watch.row("running", &format!("{} packets/s, TCP and UDP", rate(watch)?), "running");

    watch.row("$ cat /etc/shadow", "", "");
    web.exec(cluster, &["cat", "/etc/shadow"])?;
    let event = journal.wait_for("the read of the shadow file", web.of_its())?;
    Watch::report(&violation(&event, Paint::auto(&stdout())));
    let there = |cluster: &Cluster, pod: &Pod| -> Result<&'static str> {
        let uids = cluster.kubectl(["-n", "shop", "get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"])?;
        Ok(if uids.split(' ').any(|uid| uid == pod.uid) { "running on" } else { "gone" })
    };
    expect(
        "web reads /etc/shadow",
        "RF-501 log: running on",
        format!("{} {}: {}", event.rule_id, event.mitigation, there(cluster, &web)?),
    );

    watch.row("", "$ cp actor /tmp/new; /tmp/new", "");
    let before = sink.from(worker.address).count;
    worker.exec(cluster, &["actor", "drop", "create", "/usr/bin/actor", "/tmp/new", "--run"])?;
    let event = journal.wait_for("the new program", worker.of_its())?;
    Watch::report(&violation(&event, Paint::auto(&stdout())));
    watch.row("", &format!("{} packets/s: cut off", rate(watch)?), "");
    let last = sink.from(worker.address).last;
    expect(
        "worker runs what is not in its image",
        "RF-901 isolate: isolated",
        format!("{} {}: {}", event.rule_id, event.mitigation, script::done(&event)),
    );
    expect("packets sent after that and received", "none", if last <= cut_at(&event) { "none" } else { "some" }.into());
    expect("packets received before that", "some", if before > 0 { "some" } else { "none" }.into());
    let label = ["-n", "shop", "get", "pods", "-l", "ringfence.dev/isolated=true", "-o", "name"];
    cluster.wait_for("the label", |cluster| Ok(!cluster.kubectl(label)?.is_empty()))?;
    Watch::report(&cluster.kubectl(["-n", "shop", "get", "pods", "-L", "ringfence.dev/isolated"])?);

    let lift = format!("$ kubectl label pod {} ringfence.dev/isolated-", worker.name);
    watch.row("", &lift, "");
    cluster.kubectl(["-n", "shop", "label", "pod", &worker.name, "ringfence.dev/isolated-"])?;
    let back = sink.wait_for_more(worker.address, 10).map_or("is gone", |()| "is back");
    watch.row("", &format!("{} packets/s", rate(watch)?), "");
    expect("traffic after the release", "is back", back.into());

    watch.row("", "", "$ miner -o stratum+tcp://...");
    // kubectl finds the connection to its program cut, if it looks before the pod is gone.
    drop(batch.exec(cluster, &["actor", "nothing", "-o", "stratum+tcp://pool.example:3333"]));
    let event = journal.wait_for("the miner", batch.of_its())?;
    Watch::report(&violation(&event, Paint::auto(&stdout())));
    cluster.wait_for("the end of the miner's pod", |cluster| Ok(there(cluster, &batch)? == "gone"))?;
    expect(
        "batch starts a miner",
        "RF-802 terminate: gone",
        format!("{} {}: {}", event.rule_id, event.mitigation, there(cluster, &batch)?),
    );
    cluster.kubectl(["-n", "shop", "rollout", "status", "deployment/batch", "--timeout=180s"])?;
    let next = Pod::of(cluster, "batch")
        .map_or("is missing", |pod| if pod.uid == batch.uid { "is the same" } else { "is there" });
    expect("a new pod in its place", "is there", next.into());
    expect("web", "running on", there(cluster, &web)?.into());
    expect("worker", "running on", there(cluster, &worker)?.into());
    let columns = "custom-columns=REASON:.reason,POD:.involvedObject.name,WHAT:.message";
    watch.say("$ kubectl -n shop get events");
    let events = cluster.kubectl(["-n", "shop", "get", "events", "-o", columns])?;
    let ours = |line: &&str| ["REASON", "Ruleset", "PodI", "PodR", "PodT"].iter().any(|start| line.starts_with(start));
    Watch::report(&events.lines().filter(ours).collect::<Vec<_>>().join("\n"));
    Ok(outcomes)
}
