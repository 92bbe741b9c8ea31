//! Hours of ordinary life: pods come, break rules, are told of, cut off, ended and deleted, and rulesets are edited. What
//! must not grow with it is looked at after every round.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Context;
use super::pods::{DRIFT_NOW, IMAGE, SERVER, spec};
use super::release::Release;
use super::told;
use crate::bpffs::{OF_CONTAINERS, entries};
use crate::cluster::{self, Cluster, Helm, Interrupt, Options};
use crate::harness::Image;
use crate::suite::Report;

const OBJECTS: &str = include_str!("enforcement/objects.yaml");
const NAMESPACE: &str = "guard";
const VALUES: [&str; 3] = ["policy.create=false", "crds.keep=false", "policy.active=main"];

/// Pods of a round that break a rule as their first instruction.
const FIRST: usize = 6;
/// Rounds before anything is compared: caches fill, and allocators find their size.
const WARM_UP: usize = 5;

/// Runs for so long, and says after each round how things stand. 1: something grew, or was not told.
pub fn run(programs: PathBuf, lasting: Duration) -> Result<ExitCode> {
    let interrupt = Interrupt::by_signals()?;
    cluster::remove_stale()?;
    let cluster = Cluster::up(&Options { interrupt: interrupt.clone(), ..Options::default() })?;
    let mut context = Context::new(cluster, programs);
    context.cluster.import(&Image::busybox(IMAGE))?;
    let mut report = Report::new("");
    let soaked = soak(&mut context, lasting, &interrupt, &mut report);
    let down = context.cluster.down();
    soaked?;
    down?;
    Ok(report.finish())
}

/// How things stand after a round.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Resident memory in KiB.
    enforcer: u64,
    webhook: u64,
    /// Open files.
    enforcer_files: usize,
    webhook_files: usize,
    /// Entries of the kernel's maps of cgroups, of announced ones and of interfaces.
    maps: [usize; 3],
    /// Files of the bpf file system.
    pins: usize,
    /// Files that outlive the enforcer.
    remembered: usize,
}

fn soak(context: &mut Context, lasting: Duration, interrupt: &Interrupt, report: &mut Report) -> Result<()> {
    let release = Release::prepare(context, Helm::V4, "ringfence", NAMESPACE)?;
    let cluster = &mut context.cluster;
    release.install(cluster, &VALUES)?;
    cluster.apply(OBJECTS)?;
    release.enforces(cluster, "everywhere")?;
    let until = Instant::now() + lasting;
    let mut samples = Vec::new();
    let mut broken = None;
    println!("round  enforcer KiB  webhook KiB  files     {OF_CONTAINERS:?}  pins  remembered");
    while Instant::now() < until || samples.len() <= WARM_UP {
        interrupt.check()?;
        let number = samples.len();
        if let Err(error) = round(cluster, &release, number) {
            broken = Some(error.context(format!("round {number}")));
            break;
        }
        let sample = Sample::take(cluster)?;
        let Sample { enforcer, webhook, enforcer_files, webhook_files, maps, pins, remembered } = sample;
        println!(
            "{number:>5} {enforcer:>13} {webhook:>12}  {enforcer_files:>3}/{webhook_files:<3} {maps:>16?} {pins:>5} {remembered:>5}"
        );
        samples.push(sample);
    }
    println!("{} rounds", samples.len());
    report.tell("soak/everything-was-told-and-done", broken.map_or(Ok(()), Err));
    let (first, last) = (samples.get(WARM_UP), samples.last());
    let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
    let same = |what: &str, first: usize, last: usize| {
        ensure!(last <= first + 4, "{what}: {first} after the warm-up, {last} at the end");
        Ok(())
    };
    report.check("soak/files", || {
        same("the enforcer", first.enforcer_files, last.enforcer_files)?;
        same("the webhook", first.webhook_files, last.webhook_files)
    });
    report.check("soak/kernel-maps-and-pins", || {
        for (name, (first, last)) in OF_CONTAINERS.iter().zip(first.maps.iter().zip(&last.maps)) {
            same(name, *first, *last)?;
        }
        same("pins", first.pins, last.pins)?;
        same("what is remembered", first.remembered, last.remembered)
    });
    report.check("soak/memory", || {
        for (what, first, last) in
            [("the enforcer", first.enforcer, last.enforcer), ("the webhook", first.webhook, last.webhook)]
        {
            ensure!(last <= first + first / 4, "{what}: {first} KiB after the warm-up, {last} KiB at the end");
        }
        Ok(())
    });
    Ok(())
}

/// One of everything.
fn round(cluster: &mut Cluster, release: &Release, number: usize) -> Result<()> {
    let mut names = Vec::new();
    let mut start = |cluster: &Cluster, name: String, on_drift: &str, spec: &Value| -> Result<String> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": name, "on-drift": on_drift}},
            "spec": spec,
        });
        cluster.apply(&pod.to_string())?;
        let uid = cluster.kubectl(["-n", "shop", "get", "pod", &name, "-o", "jsonpath={.metadata.uid}"])?;
        names.push(name);
        Ok(uid)
    };
    let mut first = Vec::new();
    for index in 0..FIRST {
        let mut spec = spec("");
        spec["containers"][0]["command"] = json!(["cat", "/etc/shadow"]);
        spec["restartPolicy"] = json!("Never");
        first.push(start(cluster, format!("first-{number}-{index}"), "log", &spec)?);
    }
    let logged = start(cluster, format!("logged-{number}"), "log", &spec(DRIFT_NOW))?;
    let cut = start(cluster, format!("cut-{number}"), "isolate", &spec(&format!("{SERVER} {DRIFT_NOW}")))?;
    let ended = start(cluster, format!("ended-{number}"), "terminate", &spec(DRIFT_NOW))?;
    for (uid, rule) in first.iter().map(|uid| (uid, "RF-501")).chain([(&logged, "RF-901"), (&cut, "RF-901")]) {
        told::violation(cluster, NAMESPACE, uid, rule, |event| event["ruleId"] == rule)?;
    }
    told::gone(cluster, &ended)?;
    let isolated = ["-n", "shop", "get", "pods", "-l", "ringfence.dev/isolated=true", "-o", "name"];
    cluster.wait_for("the label", |cluster| Ok(cluster.kubectl(isolated)?.contains("cut-")))?;
    let edited = json!({"spec": {"description": format!("As of round {number}.")}}).to_string();
    cluster.kubectl(["patch", "rrs", "everywhere", "--type=merge", "-p", &edited])?;
    let delete = ["-n", "shop", "delete", "pod", "--force", "--ignore-not-found"].map(str::to_owned);
    cluster.kubectl(delete.iter().chain(&names))?;
    // The kubelet removes what was deleted by force a little later.
    cluster.wait_for("the end of their containers", |cluster| {
        let status = release.status(cluster)?.to_string();
        Ok(!names.iter().any(|name| status.contains(name.as_str())))
    })
}

impl Sample {
    fn take(cluster: &Cluster) -> Result<Self> {
        let (enforcer, enforcer_files) = process("/enforcer")?;
        let (webhook, webhook_files) = process("/ringfence-webhook")?;
        let (maps, pins, remembered) = cluster.within(|| {
            let root = Path::new("/sys/fs/bpf");
            Ok((entries(root)?, files_below(&root.join("ringfence")), files_below(Path::new("/run/ringfence"))))
        })?;
        Ok(Self { enforcer, webhook, enforcer_files, webhook_files, maps, pins, remembered })
    }
}

/// Resident memory in KiB and open files of the processes with a program: of the largest.
fn process(program: &str) -> Result<(u64, usize)> {
    let mut largest = None;
    for process in fs::read_dir("/proc")?.flatten().map(|entry| entry.path()) {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        if command.split(|byte| *byte == 0).next() != Some(program.as_bytes()) {
            continue;
        }
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        let files = fs::read_dir(process.join("fd")).map_or(0, Iterator::count);
        largest = largest.max(resident.map(|resident: u64| (resident, files)));
    }
    largest.with_context(|| format!("{program} does not run"))
}

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}
