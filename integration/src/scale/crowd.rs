//! A cluster of many nodes and pods: what the webhook and an enforcer take, and what both ask of the API server.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence_api::RuntimePolicy;
use serde_json::{Value, json};

use super::fleet::{Fleet, KINDS};
use super::meter::{ApiServer, Memory, processor};
use super::objects;
use super::requests::Requests;
use super::site::{NAMESPACE, POLICY, Site};
use super::webhook::{self, Webhook};
use crate::bench::{Targets, machine};
use crate::enforcer::Enforcer;
use crate::journal::Journal;

/// How many there are.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Size {
    /// Nodes, each with an enforcer's watches.
    #[arg(long, default_value_t = 1_000)]
    pub nodes: usize,
    /// Pods of all nodes.
    #[arg(long, default_value_t = 20_000)]
    pub pods: usize,
    /// Rulesets, all of which the policy names.
    #[arg(long, default_value_t = 100)]
    pub rulesets: usize,
}

/// Pods of the node that a real enforcer is of.
const CROWDED: usize = 250;
/// Namespaces.
const NAMESPACES: usize = 50;
/// Rulesets that select every pod.
const EVERYWHERE: usize = 2;
/// What the webhook writes at most, a second: its default.
const PACE: f64 = 100.0;
/// How long nothing happens, to see that nothing is written.
const QUIET: Duration = Duration::from_mins(1);
/// A guard against hanging.
const LIMIT: Duration = Duration::from_mins(10);

/// Rows of what was measured, and the same as numbers.
struct Told {
    rows: String,
    numbers: serde_json::Map<String, Value>,
    targets: Targets,
}

impl Told {
    fn row(&mut self, key: &str, what: &str, value: f64, unit: &str) {
        let _ = writeln!(self.rows, "| {what} | {value:.1} {unit} |");
        eprintln!("scale: {what}: {value:.1} {unit}");
        self.numbers.insert(key.to_owned(), json!(value));
    }

    fn text(&mut self, key: &str, what: &str, value: &str) {
        let _ = writeln!(self.rows, "| {what} | {value} |");
        eprintln!("scale: {what}: {value}");
        self.numbers.insert(key.to_owned(), json!(value));
    }
}

/// Measures; returns Markdown and the numbers.
pub fn run(site: &mut Site, crowd: Size) -> Result<(String, Value)> {
    ensure!(crowd.pods >= CROWDED && crowd.nodes >= 2, "at least 2 nodes and {CROWDED} pods");
    let heading = machine()?;
    let mut told = Told { rows: String::new(), numbers: serde_json::Map::new(), targets: Targets::default() };
    let nodes: Vec<String> = (0..crowd.nodes).map(|i| format!("scale-{i:04}")).collect();
    let webhook = fill(site, crowd, &nodes, &mut told)?;
    enforcer(site, &nodes[0], &mut told)?;
    let fleet = watches(site, &nodes, &mut told)?;
    let mark = Requests::mark(&site.cluster)?;
    quiet(site, crowd, &mut told)?;
    policy(site, crowd, &webhook, &fleet, &mut told)?;
    renewals(site, mark, &mut told)?;
    restart(site, crowd, &webhook, &fleet, &mut told)?;
    let memory = Memory::of(webhook.pid())?;
    told.row("webhook_resident_end_mib", "webhook, resident at the end", memory.resident, "MiB");
    told.row("webhook_peak_mib", "webhook, the most that was resident", memory.peak, "MiB");
    told.targets.at_most("webhook, the most that was resident", 150.0, memory.peak, "MiB");
    let text = format!(
        "{heading}\n{} nodes, {} pods, {} rulesets of which a pod has {} or {}, {NAMESPACES} namespaces.\n{}\n\
         ## Measured\n\n| what | |\n|---|---|\n{}",
        crowd.nodes,
        crowd.pods,
        crowd.rulesets,
        EVERYWHERE,
        EVERYWHERE + 1,
        told.targets.table(),
        told.rows
    );
    Ok((
        text,
        json!({"size": {"nodes": crowd.nodes, "pods": crowd.pods, "rulesets": crowd.rulesets}, "measured": told.numbers}),
    ))
}

fn process(site: &Site, name: &str) -> Result<u32> {
    site.cluster.pid(name)
}

/// Makes everything, pods through admission.
fn fill(site: &mut Site, crowd: Size, nodes: &[String], told: &mut Told) -> Result<Webhook> {
    let admin = site.admin.clone();
    let namespaces: Vec<String> = (0..NAMESPACES).map(|i| format!("team-{i:02}")).collect();
    let rulesets = (0..crowd.rulesets).map(|i| {
        let selector = if i < EVERYWHERE { json!({}) } else { json!({"matchLabels": {"app": format!("app-{i}")}}) };
        objects::ruleset(&format!("set-{i:04}"), &selector)
    });
    site.block_on(async {
        objects::namespaces(&admin, &namespaces).await?;
        objects::rulesets(&admin, rulesets.collect()).await?;
        objects::nodes(&admin, nodes).await?;
        objects::enforcers(&admin, NAMESPACE, nodes).await
    })?;
    let webhook = Webhook::start(site, None, &[])?;
    webhook::trusted(site)?;
    let (api_server, etcd) = (process(site, "kube-apiserver")?, process(site, "etcd")?);
    let before = (processor(webhook.pid())?, processor(api_server)?, processor(etcd)?);
    let start = Instant::now();
    // Every fifth application has no ruleset of its own.
    let applications = (crowd.rulesets - EVERYWHERE) * 5 / 4;
    let pod = |i: usize| {
        let node = if i < CROWDED { &nodes[0] } else { &nodes[1 + i % (nodes.len() - 1)] };
        let application = format!("app-{}", EVERYWHERE + i / 10 % applications.max(1));
        objects::pod(&namespaces[i / 10 % NAMESPACES], &application, i, &json!({}), Some(node))
    };
    site.block_on(objects::create_in::<Pod>(&admin, (0..crowd.pods).map(pod)))?;
    let elapsed = start.elapsed().as_secs_f64();
    let pods = count(crowd.pods);
    told.row("created_per_second", "pods made a second, through admission", pods / elapsed, "");
    let micros = |after: Duration, before: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / pods;
    let after = (processor(webhook.pid())?, processor(api_server)?, processor(etcd)?);
    told.row("admission_webhook_us", "processor time of the webhook for each", micros(after.0, before.0), "us");
    told.row("admission_api_server_us", "the same of the API server", micros(after.1, before.1), "us");
    let admissions = webhook.metric("ringfence_webhook_admissions_total{webhook=\"mutate\"")?;
    told.row("mutations_per_pod", "mutating requests for each", admissions / pods, "");
    ensure!(labelled(site)? > 0, "the pods bear no labels");
    webhook.settled(LIMIT)?;
    let late = webhook.metric("ringfence_webhook_writes_total{what=\"labels\"")?;
    told.row("late_labels", "pods that were labelled after admission", late, "");
    let memory = Memory::of(webhook.pid())?;
    told.row("webhook_resident_mib", "webhook, resident when all pods are there", memory.resident, "MiB");
    let memory = Memory::of(api_server)?;
    told.row("api_server_resident_mib", "API server, resident when all pods are there", memory.resident, "MiB");
    Ok(webhook)
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

/// One of the pods bears our labels: how many.
fn labelled(site: &Site) -> Result<usize> {
    let pods: Api<Pod> = Api::all(site.admin.clone());
    let found =
        site.block_on(pods.list(&ListParams::default().labels(&format!("ringfence.dev/policy={POLICY}")).limit(1)))?;
    let labels = found.items.first().and_then(|pod| pod.metadata.labels.clone()).unwrap_or_default();
    Ok(labels.keys().filter(|key| key.contains("ringfence.dev/")).count())
}

/// A real one, of the node with the most pods.
fn enforcer(site: &mut Site, node: &str, told: &mut Told) -> Result<()> {
    let directory = site.cluster.state().join("tmp");
    let control = directory.join("enforcer.sock");
    let mut command = Command::new(site.programs.join("enforcer"));
    command.args(["--cluster", "--policy", POLICY, "--namespace", NAMESPACE, "--node", node]);
    command.arg("--kubeconfig").arg(site.account_file("ringfence-enforcer")?);
    command.arg("--socket").arg(&control).arg("--state").arg(directory.join("enforcer"));
    let journal = Journal::default();
    let enforcer = site.cluster.within(|| Enforcer::launch(command, &control, &journal))?;
    site.cluster.wait_for("all pods of the node at its enforcer", |_| {
        let status = enforcer.status().with_context(|| enforcer.messages())?;
        Ok(status.containers.len() >= CROWDED)
    })?;
    let memory = Memory::of(enforcer.pid())?;
    told.row(
        "enforcer_proportional_mib",
        "enforcer of a node with 250 pods, resident (PSS)",
        memory.proportional,
        "MiB",
    );
    told.row("enforcer_resident_mib", "the same (RSS, which counts ring buffers twice)", memory.resident, "MiB");
    told.targets.at_most("enforcer of a node with 250 pods, resident", 40.0, memory.proportional, "MiB");
    enforcer.stop().map(drop)
}

/// Every node's enforcer begins to watch at once.
fn watches(site: &mut Site, nodes: &[String], told: &mut Told) -> Result<Fleet> {
    let config = site.account("ringfence-enforcer")?;
    let api_server = process(site, "kube-apiserver")?;
    let mark = Requests::mark(&site.cluster)?;
    let (before, used) = (site.block_on(ApiServer::look(&site.admin))?, processor(api_server)?);
    let memory = Memory::of(api_server)?.resident;
    let start = Instant::now();
    let fleet = site.block_on(Fleet::start(&config, nodes))?;
    let all = count(nodes.len());
    told.row(
        "fleet_seconds",
        "all enforcers begin at once: until every one knows everything",
        start.elapsed().as_secs_f64(),
        "s",
    );
    let after = site.block_on(ApiServer::look(&site.admin))?;
    let used = processor(api_server)?.saturating_sub(used);
    told.row("fleet_api_server_ms", "processor time of the API server for each", used.as_secs_f64() * 1e3 / all, "ms");
    let bytes = |server: &ApiServer| server.sum("apiserver_response_sizes_sum", &["verb=\"LIST\""]);
    told.row("fleet_list_kib", "bytes of lists for each", (bytes(&after) - bytes(&before)) / all / 1024.0, "KiB");
    let grown = Memory::of(api_server)?.resident - memory;
    told.row("fleet_api_server_kib", "memory of the API server for each", grown * 1024.0 / all, "KiB");
    let requests = Requests::since(&site.cluster, "ringfence-enforcer", mark)?;
    told.text("fleet_requests", "requests of all of them", &shown(&requests.counts()));
    Ok(fleet)
}

fn shown(counts: &std::collections::BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

/// Nothing changes.
fn quiet(site: &mut Site, crowd: Size, told: &mut Told) -> Result<()> {
    let api_server = process(site, "kube-apiserver")?;
    let mark = Requests::mark(&site.cluster)?;
    let used = processor(api_server)?;
    std::thread::sleep(QUIET);
    let used = processor(api_server)?.saturating_sub(used);
    let percent = used.as_secs_f64() / QUIET.as_secs_f64() * 100.0;
    told.row("quiet_api_server_percent", "a quiet minute: the API server, of one processor", percent, "%");
    let requests = Requests::since(&site.cluster, "ringfence-enforcer", mark)?;
    told.text("quiet_enforcers", &format!("requests of {} enforcers in it", crowd.nodes), &shown(&requests.counts()));
    let requests = Requests::since(&site.cluster, "ringfence-webhook", mark)?;
    told.text("quiet_webhook", "requests of the webhook in it", &shown(&requests.counts()));
    Ok(())
}

/// The policy is changed so that another resolved ruleset governs every pod.
fn policy(site: &mut Site, crowd: Size, webhook: &Webhook, fleet: &Fleet, told: &mut Told) -> Result<()> {
    let mark = Requests::mark(&site.cluster)?;
    let (api_server, etcd) = (process(site, "kube-apiserver")?, process(site, "etcd")?);
    let labels = || webhook.metric("ringfence_webhook_writes_total{what=\"labels\",outcome=\"done\"}");
    let (heard, labels_before, before) = (fleet.changes(), labels()?, site.block_on(ApiServer::look(&site.admin))?);
    let used = (processor(webhook.pid())?, processor(api_server)?, processor(etcd)?);
    let policies: Api<RuntimePolicy> = Api::all(site.admin.clone());
    let start = Instant::now();
    let generation = site.block_on(async {
        objects::patch_policy(&site.admin, &json!({"maxMitigation": "log"})).await?;
        policies.get(POLICY).await?.metadata.generation.context("no generation")
    })?;
    let mut times = site.block_on(fleet.heard_of_policy(generation, start))?;
    times.sort_unstable();
    let of = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    told.row("policy_heard_median_ms", "a policy edit is known to an enforcer after, median", of(50), "ms");
    told.row("policy_heard_last_ms", "the same, the last of all", of(100), "ms");
    // Pods that a policy governs were labelled.
    let all = count(crowd.pods);
    let until = Instant::now() + LIMIT + Duration::from_secs_f64(all / PACE);
    while labels()? - labels_before < all {
        ensure!(Instant::now() < until, "{} of {all} pods were labelled anew", labels()? - labels_before);
        std::thread::sleep(Duration::from_millis(100));
    }
    let seconds = start.elapsed().as_secs_f64();
    told.row("relabel_seconds", "until every pod has its new labels", seconds, "s");
    told.row("relabel_per_second", "labels written a second, of 100 at most", all / seconds, "");
    webhook.settled(LIMIT)?;
    let micros = |pid: u32, before: Duration| -> Result<f64> {
        Ok(processor(pid)?.saturating_sub(before).as_secs_f64() * 1e6 / all)
    };
    told.row("relabel_webhook_us", "processor time of the webhook for each pod", micros(webhook.pid(), used.0)?, "us");
    told.row("relabel_api_server_us", "the same of the API server", micros(api_server, used.1)?, "us");
    told.row("relabel_etcd_us", "the same of etcd", micros(etcd, used.2)?, "us");
    let requests = Requests::since(&site.cluster, "ringfence-webhook", mark)?;
    told.text("relabel_requests", "requests of the webhook meanwhile", &shown(&requests.counts()));
    let requests = Requests::since(&site.cluster, "ringfence-enforcer", mark)?;
    told.text("relabel_enforcers", "requests of the enforcers meanwhile", &shown(&requests.counts()));
    let changes = of_each_kind(fleet.changes(), heard, crowd, 1);
    told.text("relabel_events", "changes told to each enforcer meanwhile", &changes);
    let after = site.block_on(ApiServer::look(&site.admin))?;
    let bytes = |server: &ApiServer| server.sum("apiserver_watch_events_sizes_sum", &[]);
    told.row(
        "relabel_watch_mib",
        "bytes of all watches meanwhile",
        (bytes(&after) - bytes(&before)) / f64::from(1 << 20),
        "MiB",
    );
    Ok(())
}

/// What has come to each enforcer, by kind.
fn of_each_kind<const N: usize>(now: [u64; N], before: [u64; N], crowd: Size, digits: usize) -> String {
    let each = KINDS.iter().zip(now.into_iter().zip(before)).map(|(kind, (now, before))| {
        format!("{:.digits$} of {kind}", count(usize::try_from(now - before).unwrap_or(0)) / count(crowd.nodes))
    });
    each.collect::<Vec<_>>().join(", ")
}

/// Watches end after a while and begin anew: not all in the same second.
fn renewals(site: &Site, mark: usize, told: &mut Told) -> Result<()> {
    let requests = Requests::since(&site.cluster, "ringfence-enforcer", mark)?;
    let seconds = requests.by_second("watch");
    let worst = seconds.values().max().copied().unwrap_or_default();
    let all: u64 = seconds.values().sum();
    told.text("renewed_watches", "watches that ended and began anew until then", &all.to_string());
    told.text("renewed_watches_worst_second", "the same, in the worst second", &worst.to_string());
    Ok(())
}

/// The API server ends as in an upgrade, and comes back.
fn restart(site: &mut Site, crowd: Size, webhook: &Webhook, fleet: &Fleet, told: &mut Told) -> Result<()> {
    let running = |server: &ApiServer| server.sum("apiserver_longrunning_requests", &["verb=\"WATCH\""]);
    let (before, lists) = (running(&site.block_on(ApiServer::look(&site.admin))?), fleet.begun());
    let mark = Requests::mark(&site.cluster)?;
    let pid = Pid::from_raw(process(site, "kube-apiserver")?.try_into()?);
    let start = Instant::now();
    kill(pid, Signal::SIGTERM)?;
    site.cluster.wait_for_end("kube-apiserver")?;
    told.row("restart_end_seconds", "the API server ends after SIGTERM within", start.elapsed().as_secs_f64(), "s");
    site.cluster.restart("kube-apiserver")?;
    let back = Instant::now();
    site.wait_for("the API server", |cluster| Ok(cluster.kubectl(["get", "--raw", "/readyz"]).is_ok()))?;
    told.row("restart_ready_seconds", "it is ready again after", back.elapsed().as_secs_f64(), "s");
    let admin = site.admin.clone();
    let mut server = None;
    let until = Instant::now() + LIMIT;
    while server.as_ref().is_none_or(|server| running(server) < before - 3.0) {
        ensure!(Instant::now() < until, "only {:?} of {before} watches are back", server.as_ref().map(running));
        std::thread::sleep(Duration::from_millis(200));
        server = site.block_on(ApiServer::look(&admin)).ok();
    }
    told.row("restart_watches", "watches before, and again", before, "");
    told.row("restart_watches_seconds", "all of them are back after", back.elapsed().as_secs_f64(), "s");
    // Whoever still has to list again does it by then.
    std::thread::sleep(Duration::from_secs(10));
    let again = of_each_kind(fleet.begun(), lists, crowd, 2);
    told.text("restart_lists", "lists for each enforcer because of that", &again);
    let requests = Requests::since(&site.cluster, "ringfence-enforcer", mark)?;
    told.text("restart_requests", "requests of the enforcers", &shown(&requests.counts()));
    for verb in ["list", "watch"] {
        let seconds = requests.by_second(verb);
        let worst = seconds.values().max().copied().unwrap_or_default();
        told.text(
            &format!("restart_{verb}_spread"),
            &format!("the same, {verb}: a second, one after the other"),
            &seconds.values().map(u64::to_string).collect::<Vec<_>>().join(", "),
        );
        told.numbers.insert(format!("restart_{verb}_worst_second"), json!(worst));
    }
    let requests = Requests::since(&site.cluster, "ringfence-webhook", mark)?;
    told.text("restart_webhook", "requests of the webhook", &shown(&requests.counts()));
    let used = processor(process(site, "kube-apiserver")?)?;
    told.row("restart_api_server_seconds", "processor time of the API server since its start", used.as_secs_f64(), "s");
    webhook.settled(LIMIT)
}
