//! The chart, as a user installs, upgrades, switches and uninstalls it, with Helm 4 and Helm 3.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::loaded_programs;
use serde_json::Value;

use super::{Context, Part};
use crate::chart;
use crate::cluster::{Cluster, Helm, Interrupt, succeed};
use crate::harness::Image;
use crate::suite::Report;

pub const PART: Part = Part { names, run };

type Test = fn(&mut Release) -> Result<()>;

/// In this order: each goes on where the one before ended.
const TESTS: [(&str, Test); 10] = [
    ("helm/install", install),
    ("helm/pods-are-labelled", labelled),
    ("helm/nodes-enforce", enforced),
    ("helm/upgrade", upgrade),
    ("helm/switched-off", switched_off),
    ("helm/switched-on", switched_on),
    ("helm/rollback", rollback),
    ("helm/uninstall", uninstall),
    ("helm/with-helm-3", with_helm_3),
    ("helm/nothing-loaded", nothing_loaded),
];

const NAMESPACE: &str = "security";
const RELEASE: &str = "rf";
/// What a pod has of Ringfence's when the policy that the chart makes governs it.
const POLICY: &str = "ringfence.dev/policy";

const OVERRIDES: &str = include_str!("chart/overrides.yaml");
const SHOP: &str = include_str!("chart/shop.yaml");

fn names() -> Vec<String> {
    TESTS.iter().map(|(name, _)| (*name).to_owned()).collect()
}

fn run(context: &mut Context, report: &mut Report) {
    match Release::prepare(context) {
        Ok(mut release) => {
            for (name, test) in TESTS {
                report.check(name, || test(&mut release));
            }
        }
        Err(error) => report.fail("helm/prepared", &format!("{error:#}")),
    }
}

/// A release to be.
struct Release<'a> {
    cluster: &'a mut Cluster,
    helm: PathBuf,
    helm_3: PathBuf,
    overrides: PathBuf,
    /// Programs that were in the kernel before.
    programs: BTreeSet<u32>,
}

impl<'a> Release<'a> {
    fn prepare(context: &'a mut Context) -> Result<Self> {
        let webhook = Image::empty("localhost/ringfence/webhook:test")
            .file(&context.program("ringfence-webhook")?, "/ringfence-webhook", 0o755)
            .entrypoint(&["/ringfence-webhook"]);
        let enforcer = Image::empty("localhost/ringfence/enforcer:test")
            .file(&context.program("enforcer")?, "/enforcer", 0o755)
            .file(&context.program("ringfence")?, "/ringfence", 0o755)
            .entrypoint(&["/enforcer"]);
        let cluster = &mut context.cluster;
        for image in [webhook, enforcer, Image::busybox("localhost/basics:1")] {
            cluster.import(&image)?;
        }
        let overrides = cluster.state().join("tmp/overrides.yaml");
        fs::write(&overrides, OVERRIDES)?;
        let interrupt = Interrupt::default();
        let (helm, helm_3) = (Helm::V4.program(&interrupt)?, Helm::V3.program(&interrupt)?);
        Ok(Self { cluster, helm, helm_3, overrides, programs: programs()? })
    }

    fn helm(&self, words: &[&str]) -> Result<String> {
        self.run(&self.helm, words)
    }

    fn run(&self, helm: &Path, words: &[&str]) -> Result<String> {
        let mut command = self.cluster.command(helm);
        command.args(["--namespace", NAMESPACE]).args(words);
        if ["install", "upgrade"].contains(&words[0]) {
            command.arg(RELEASE).arg(chart::folder()).arg("-f").arg(&self.overrides).args(["--wait", "--timeout=3m"]);
        }
        succeed(&mut command, None)
    }

    fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.cluster.kubectl(words)
    }

    fn get(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.cluster.kubectl(words.iter().chain(&["-o", "json"]))?)?)
    }

    /// The one pod of the Deployment that others look at.
    fn shop(&self) -> Result<Value> {
        self.kubectl(&["-n", "chart-shop", "rollout", "status", "deployment/web", "--timeout=60s"])?;
        let pods = self.get(&["-n", "chart-shop", "get", "pods", "--field-selector=status.phase=Running"])?;
        let pods = pods["items"].as_array().context("no list")?;
        let pod = pods.iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pod.cloned().context("no pod")
    }

    /// Deletes that pod, and waits for the next one.
    fn new_shop(&self) -> Result<Value> {
        self.kubectl(&["-n", "chart-shop", "delete", "pods", "-l", "app=web", "--grace-period=0", "--force"])?;
        self.shop()
    }

    /// In that pod, a program is started that its image does not have.
    fn violate(&self, pod: &Value) -> Result<()> {
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        let script = "cp /bin/busybox /tmp/new && /tmp/new true; true";
        self.kubectl(&["-n", "chart-shop", "exec", name, "--", "sh", "-c", script]).map(drop)
    }

    /// Waits for an Event of the pod.
    fn event(&mut self, pod: &Value, reason: &str) -> Result<()> {
        let name = pod["metadata"]["name"].as_str().context("no name")?.to_owned();
        let selector = format!("--field-selector=involvedObject.name={name},reason={reason}");
        self.cluster.wait_for(&format!("an Event {reason} of {name}"), |cluster| {
            Ok(!cluster.kubectl(["-n", "chart-shop", "get", "events", &selector, "-o", "name"])?.is_empty())
        })
    }

    /// Whether there is anything of ours where enforcers pin what outlives them.
    fn pinned(&self) -> Result<bool> {
        self.cluster.within(|| Ok(Path::new("/sys/fs/bpf/ringfence").exists()))
    }

    /// Waits until the kernel has no program that it did not have before the chart.
    fn unloaded(&mut self) -> Result<()> {
        let before = self.programs.clone();
        self.cluster.wait_for("the kernel without our programs", |_| Ok(programs()?.is_subset(&before)))?;
        ensure!(!self.pinned()?, "there are pins");
        Ok(())
    }

    /// What is in the cluster and was made by the release or its programs.
    fn left(&self) -> Result<BTreeSet<String>> {
        let cluster = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations,\
                       customresourcedefinitions,priorityclasses";
        let own = "all,configmaps,secrets,leases,roles,rolebindings,serviceaccounts,poddisruptionbudgets";
        let listed = [
            self.kubectl(&["get", cluster, "-o", "name"])?,
            self.kubectl(&["-n", NAMESPACE, "get", own, "-o", "name"])?,
        ];
        let names = listed.iter().flat_map(|names| names.lines()).filter(|name| name.contains("ringfence"));
        Ok(names.map(str::to_owned).collect())
    }

    /// Waits until nothing but what is named is left.
    fn gone(&mut self, but: &[&str]) -> Result<()> {
        let but: BTreeSet<String> = but.iter().map(|&name| name.to_owned()).collect();
        let mut left = BTreeSet::new();
        for _ in 0..600 {
            left = self.left()?;
            if left == but {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        bail!("{left:?} is left instead of {but:?}")
    }
}

/// Numbers of all programs in the kernel.
fn programs() -> Result<BTreeSet<u32>> {
    loaded_programs().map(|program| Ok(program?.id())).collect()
}

fn install(release: &mut Release) -> Result<()> {
    let said = release.helm(&["install", "--create-namespace"])?;
    for line in ["policy \"default\" is in force", "It is a dry run", "rollout status daemonset/ringfence-enforcer"] {
        ensure!(said.contains(line), "{line:?} is not in: {said}");
    }
    release.kubectl(&["get", "runtimeruleset/baseline", "runtimepolicy/default"])?;
    let ready =
        release.get(&["-n", NAMESPACE, "get", "daemonset/ringfence-enforcer"])?["status"]["numberReady"].clone();
    ensure!(ready == 1, "{ready} enforcers are ready");
    ensure!(release.pinned()?, "nothing is pinned");
    trusted(release)
}

/// Waits until the API server is told what to trust.
fn trusted(release: &mut Release) -> Result<()> {
    release.cluster.wait_for("the webhooks' bundle", |cluster| Ok(bundle(cluster)?.split(' ').count() == 6))
}

fn bundle(cluster: &Cluster) -> Result<String> {
    let path = "jsonpath={.items[*].webhooks[*].clientConfig.caBundle}";
    let kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations";
    cluster.kubectl(["get", kinds, "-l", "app.kubernetes.io/part-of=ringfence", "-o", path])
}

fn labelled(release: &mut Release) -> Result<()> {
    release.cluster.apply(SHOP)?;
    let shop = release.shop()?;
    let labels = &shop["metadata"]["labels"];
    ensure!(labels[POLICY] == "default" && labels["ruleset.ringfence.dev/baseline"] == "1", "it bears {labels}");
    let policy = r#"{"spec": {"rulesets": ["nosuch"], "maxMitigation": "kill"}}"#;
    let Err(error) = release.kubectl(&["patch", "runtimepolicy/default", "--type=merge", "-p", policy]) else {
        bail!("a wrong policy was taken");
    };
    ensure!(format!("{error:#}").contains("maxMitigation"), "{error:#}");
    Ok(())
}

fn enforced(release: &mut Release) -> Result<()> {
    let shop = release.shop()?;
    release.violate(&shop)?;
    release
        .event(&shop, "RulesetViolation")
        .or_else(|_| bail!("no Event of a dry run: {}", release.kubectl(&["-n", "chart-shop", "get", "events"])?))?;
    let patch = r#"{"spec": {"maxMitigation": "isolate"}}"#;
    release.kubectl(&["patch", "runtimepolicy/default", "--type=merge", "-p", patch])?;
    let uid = shop["metadata"]["uid"].clone();
    // Until the node has heard of it, it is a dry run.
    for _ in 0..100 {
        let shop = release.shop()?;
        ensure!(shop["metadata"]["uid"] == uid, "it is another pod");
        if shop["metadata"]["labels"]["ringfence.dev/isolated"] == "true" {
            return Ok(());
        }
        release.violate(&shop)?;
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    bail!("it is not isolated: {}", release.shop()?["metadata"])
}

/// Everything is updated; what was isolated stays so, what users changed stays too, and no trust is lost.
fn upgrade(release: &mut Release) -> Result<()> {
    let before = bundle(release.cluster)?;
    let pinned = release.pinned()?;
    let annotation = ["upgrade", "--set=webhook.podAnnotations.x=y,runtimeSecurity.podAnnotations.x=y"];
    release.helm(&annotation)?;
    let pods = "jsonpath={.items[*].metadata.annotations.x}";
    let new =
        release.kubectl(&["-n", NAMESPACE, "get", "pods", "--field-selector=status.phase=Running", "-o", pods])?;
    ensure!(new.split(' ').count() >= 3, "not every pod is new: {new:?}");
    ensure!(bundle(release.cluster)? == before, "the bundle has changed");
    ensure!(pinned && release.pinned()?, "the programs are gone");
    let cap = release.kubectl(&["get", "runtimepolicy/default", "-o", "jsonpath={.spec.maxMitigation}"])?;
    ensure!(cap == "isolate", "maxMitigation is {cap}");
    let shop = release.shop()?;
    ensure!(shop["metadata"]["labels"]["ringfence.dev/isolated"] == "true", "{}", shop["metadata"]);
    let pod = release.kubectl(&[
        "-n",
        NAMESPACE,
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/name=ringfence-enforcer",
        "-o",
        "name",
    ])?;
    let status = release.kubectl(&["-n", NAMESPACE, "exec", pod.trim(), "--", "/ringfence", "status", "-o", "json"])?;
    let status: Value = serde_json::from_str(&status)?;
    let containers = status["containers"].as_array().context("no containers")?;
    ensure!(containers.iter().any(|container| !container["isolated"].is_null()), "none is isolated: {containers:?}");
    Ok(())
}

/// Nothing is left on the node; pods are still labelled.
fn switched_off(release: &mut Release) -> Result<()> {
    release.helm(&["upgrade", "--set=runtimeSecurity.enabled=false"])?;
    release.unloaded()?;
    let left = release.left()?;
    ensure!(!left.iter().any(|name| name.contains("enforcer")), "{left:?}");
    let shop = release.new_shop()?;
    ensure!(shop["metadata"]["labels"][POLICY] == "default", "{}", shop["metadata"]);
    release.violate(&shop)
}

fn switched_on(release: &mut Release) -> Result<()> {
    release.helm(&["upgrade", "--set=runtimeSecurity.enabled=true"])?;
    ensure!(release.pinned()?, "nothing is pinned");
    let shop = release.new_shop()?;
    release.violate(&shop)?;
    release.event(&shop, "PodIsolated")
}

/// To the revision that was switched off, and back.
fn rollback(release: &mut Release) -> Result<()> {
    release.helm(&["rollback", RELEASE, "3", "--wait", "--timeout=3m"])?;
    release.unloaded()?;
    release.helm(&["rollback", RELEASE, "4", "--wait", "--timeout=3m"])?;
    ensure!(release.pinned()?, "nothing is pinned");
    Ok(())
}

const DEFINITIONS: [&str; 2] = [
    "customresourcedefinition.apiextensions.k8s.io/runtimepolicies.ringfence.dev",
    "customresourcedefinition.apiextensions.k8s.io/runtimerulesets.ringfence.dev",
];

/// Rulesets and policies are kept by default, and nothing else.
fn uninstall(release: &mut Release) -> Result<()> {
    release.helm(&["uninstall", RELEASE])?;
    release.unloaded()?;
    release.gone(&DEFINITIONS)?;
    release.kubectl(&["get", "runtimepolicy/default"])?;
    // Nothing hinders pods.
    release.new_shop()?;
    Ok(())
}

/// Installed over what was kept, upgraded, and uninstalled with everything.
fn with_helm_3(release: &mut Release) -> Result<()> {
    let helm = release.helm_3.clone();
    // Kept definitions belong to no release that Helm 3 knows: they are taken over.
    release.run(&helm, &["install", "--set=crds.keep=false"])?;
    let cap = release.kubectl(&["get", "runtimepolicy/default", "-o", "jsonpath={.spec.maxMitigation}"])?;
    ensure!(cap == "isolate", "the policy was made anew: {cap}");
    trusted(release)?;
    let before = bundle(release.cluster)?;
    release.run(&helm, &["upgrade", "--set=crds.keep=false,webhook.podAnnotations.x=z"])?;
    ensure!(bundle(release.cluster)? == before, "the bundle has changed");
    let shop = release.new_shop()?;
    ensure!(shop["metadata"]["labels"][POLICY] == "default", "{}", shop["metadata"]);
    release.run(&helm, &["uninstall", RELEASE])?;
    release.unloaded()?;
    release.gone(&[])
}

fn nothing_loaded(release: &mut Release) -> Result<()> {
    release.unloaded()?;
    for namespace in ["chart-shop", NAMESPACE] {
        release.kubectl(&["delete", "namespace", namespace, "--timeout=120s"])?;
    }
    Ok(())
}
