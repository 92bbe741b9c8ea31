//! The chart, as a user installs, upgrades, switches and uninstalls it, with Helm 4 and Helm 3.

mod taints;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::loaded_programs;
use serde_json::{Value, json};

use super::pods::{self, SERVER};
use super::release::Release;
use super::{Context, Part, in_turn, names_of, told};
use crate::cluster::{Cluster, Helm, succeed};
use crate::suite::Report;

pub const PART: Part = Part { names, run };

type Test = fn(&mut Site) -> Result<()>;

/// In this order: each goes on where the one before ended.
const TESTS: [(&str, Test); 15] = [
    ("helm/install", install),
    ("helm/pods-are-labelled", labelled),
    ("helm/nodes-enforce", enforced),
    ("helm/upgrade", upgrade),
    ("helm/switched-off", switched_off),
    ("helm/switched-on", switched_on),
    ("helm/rollback", rollback),
    ("helm/isolated-pods-kept", isolated_pods_kept),
    ("helm/taints", taints::node_side_alone),
    ("helm/uninstall", uninstall),
    ("helm-3/install-and-upgrade", with_helm_3),
    ("helm-3/switched-off", switched_off),
    ("helm-3/switched-on", switched_on),
    ("helm-3/rollback", rollback),
    ("helm-3/uninstall", uninstall_all),
];

/// What the tests made is gone.
const DELETED: &str = "helm/namespaces-deleted";

/// From the chart of the commit before this one.
const FROM_PREVIOUS: [(&str, Helm); 2] =
    [("helm/upgrade-from-previous", Helm::V4), ("helm-3/upgrade-from-previous", Helm::V3)];

const NAMESPACE: &str = "security";
const RELEASE: &str = "rf";
/// What a pod has of Ringfence's when the policy that the chart makes governs it.
const POLICY: &str = "ringfence.dev/policy";

/// A program is started that the image does not have.
const VIOLATION: &str = "cp /bin/busybox /tmp/new && /tmp/new true; true";

const SHOP: &str = include_str!("chart/shop.yaml");

fn names() -> Vec<String> {
    [names_of(&TESTS), names_of(&FROM_PREVIOUS), vec![DELETED.to_owned()]].concat()
}

fn run(context: &mut Context, report: &mut Report) {
    let site = Site::prepare(context);
    let Some(mut site) = in_turn(report, ("helm/prepared", site), &TESTS, |test, site| test(site)) else { return };
    let chart = previous_chart(&site.cluster.state().join("tmp/previous"));
    for (name, helm) in FROM_PREVIOUS {
        match &chart {
            Ok(chart) => report.check(name, || upgrade_from(&mut site, chart, helm)),
            Err(error) => report.skip(name, &format!("{error:#}")),
        }
    }
    report.check(DELETED, || site.delete_namespaces());
}

/// Where it is installed.
struct Site<'a> {
    cluster: &'a mut Cluster,
    /// The release, in the hands of a Helm.
    release: Release,
    /// Values that it always has.
    values: &'static [&'static str],
    /// Programs that were in the kernel before.
    programs: BTreeSet<u32>,
}

impl<'a> Site<'a> {
    fn prepare(context: &'a mut Context) -> Result<Self> {
        let release = Release::prepare(context, Helm::V4, RELEASE, NAMESPACE)?;
        Ok(Self { cluster: &mut context.cluster, release, values: &[], programs: programs()? })
    }

    /// From now on it is in the hands of another Helm, and is not to leave anything in the end.
    fn by(&mut self, helm: Helm) -> Result<()> {
        self.release = self.release.by(helm)?;
        self.values = &["crds.keep=false"];
        Ok(())
    }

    /// [`Release::install`].
    fn install(&self, values: &[&str]) -> Result<String> {
        self.release.install(self.cluster, &[self.values, values].concat())
    }

    /// [`Release::upgrade`].
    fn upgrade(&self, values: &[&str]) -> Result<String> {
        self.release.upgrade(self.cluster, &[self.values, values].concat())
    }

    fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.cluster.kubectl(words)
    }

    fn get(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.cluster.kubectl(words.iter().chain(&["-o", "json"]))?)?)
    }

    /// The one pod of the Deployment that others look at.
    fn shop(&self) -> Result<Value> {
        let running = "--field-selector=status.phase=Running";
        // Right after a deletion the Deployment may still be said to be complete.
        for _ in 0..600 {
            self.kubectl(&["-n", "chart-shop", "rollout", "status", "deployment/web", "--timeout=180s"])?;
            let pods = self.get(&["-n", "chart-shop", "get", "pods", "-l", "app=web", running])?;
            let pods = pods["items"].as_array().context("no list")?;
            if let Some(pod) = pods.iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null()) {
                return Ok(pod.clone());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("no pod of the shop runs")
    }

    /// Deletes that pod, and waits for the next one.
    fn new_shop(&self) -> Result<Value> {
        self.kubectl(&["-n", "chart-shop", "delete", "pods", "-l", "app=web", "--grace-period=0", "--force"])?;
        self.shop()
    }

    /// In that pod, a program is started that its image does not have.
    fn violate(&self, pod: &Value) -> Result<()> {
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        self.kubectl(&["-n", "chart-shop", "exec", name, "--", "sh", "-c", VIOLATION]).map(drop)
    }

    /// The same again and again: right after an installation the pod may not be governed yet.
    fn violate_until_isolated(&mut self, pod: &Value) -> Result<()> {
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        let selector = format!("--field-selector=involvedObject.name={name},reason=PodIsolated");
        self.cluster.wait_for(&format!("an Event PodIsolated of pod {name}"), |cluster| {
            cluster.kubectl(["-n", "chart-shop", "exec", name, "--", "sh", "-c", VIOLATION])?;
            let events = cluster.kubectl(["-n", "chart-shop", "get", "events", &selector, "-o", "name"])?;
            Ok(!events.is_empty())
        })
    }

    /// Waits for an Event of the pod.
    fn event(&mut self, pod: &Value, reason: &str) -> Result<()> {
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        told::event(self.cluster, "chart-shop", name, reason).map(drop)
    }

    /// Whether the enforcer says that it holds a container isolated.
    fn isolated_on_the_node(&self) -> Result<bool> {
        let status = self.release.status(self.cluster)?;
        let containers = status["containers"].as_array().context("no containers")?;
        Ok(containers.iter().any(|container| !container["isolated"].is_null()))
    }

    /// Waits until a pod does not say any more that it is isolated.
    fn unmarked(&mut self, pod: &str) -> Result<()> {
        self.cluster.wait_for("a pod without marks", |cluster| {
            let text = cluster.kubectl(["-n", "chart-shop", "get", "pod", pod, "-o", "json"])?;
            let pod: Value = serde_json::from_str(&text)?;
            let marks = ["isolated", "isolated-by", "isolated-at"].map(|mark| format!("ringfence.dev/{mark}"));
            let has = |map: &str| marks.iter().any(|mark| !pod["metadata"][map][mark].is_null());
            Ok(!has("labels") && !has("annotations"))
        })
    }

    fn delete_namespaces(&self) -> Result<()> {
        self.kubectl(&["delete", "namespace", "chart-shop", NAMESPACE, "--timeout=120s"]).map(drop)
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
        // The test cluster's own.
        let names = names.filter(|name| !name.contains("/ringfence-test:"));
        Ok(names.map(str::to_owned).collect())
    }

    /// Waits until nothing but what is named is left.
    fn gone(&mut self, but: &[&str]) -> Result<()> {
        let but: BTreeSet<String> = but.iter().map(|&name| name.to_owned()).collect();
        self.wait_until_left(&format!("{but:?}"), |left| *left == but)
    }

    /// Waits until nothing whose name has this in it is left.
    fn gone_like(&mut self, part: &str) -> Result<()> {
        self.wait_until_left(&format!("nothing of {part}"), |left| !left.iter().any(|name| name.contains(part)))
    }

    fn wait_until_left(&mut self, what: &str, right: impl Fn(&BTreeSet<String>) -> bool) -> Result<()> {
        let mut left = BTreeSet::new();
        for _ in 0..600 {
            left = self.left()?;
            if right(&left) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("{left:?} is left instead of {what}")
    }
}

/// Numbers of all programs in the kernel.
fn programs() -> Result<BTreeSet<u32>> {
    loaded_programs().map(|program| Ok(program?.id())).collect()
}

fn install(site: &mut Site) -> Result<()> {
    let said = site.install(&[])?;
    for line in
        ["Policy \"default\" is the active one", "It is a dry run", "rollout status daemonset/ringfence-enforcer"]
    {
        ensure!(said.contains(line), "{line:?} is not in: {said}");
    }
    site.kubectl(&["get", "runtimeruleset/baseline", "runtimepolicy/default"])?;
    let ready = site.get(&["-n", NAMESPACE, "get", "daemonset/ringfence-enforcer"])?["status"]["numberReady"].clone();
    ensure!(ready == 1, "{ready} enforcers are ready");
    ensure!(site.pinned()?, "nothing is pinned");
    trusted(site)
}

/// Waits until the API server is told what to trust.
fn trusted(site: &mut Site) -> Result<()> {
    site.cluster.wait_for("the webhooks' bundle", |cluster| Ok(bundle(cluster)?.split(' ').count() == 6))
}

fn bundle(cluster: &Cluster) -> Result<String> {
    let path = "jsonpath={.items[*].webhooks[*].clientConfig.caBundle}";
    let kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations";
    cluster.kubectl(["get", kinds, "-l", "app.kubernetes.io/part-of=ringfence", "-o", path])
}

fn labelled(site: &mut Site) -> Result<()> {
    site.cluster.apply(SHOP)?;
    // The first one may come before the webhook knows of the policy; then it is labelled as an existing pod.
    site.cluster.wait_for("labels", |cluster| {
        let selector = format!("{POLICY}=default");
        Ok(!cluster.kubectl(["-n", "chart-shop", "get", "pods", "-l", &selector, "-o", "name"])?.is_empty())
    })?;
    let shop = site.new_shop()?;
    let labels = &shop["metadata"]["labels"];
    ensure!(labels[POLICY] == "default" && labels["ruleset.ringfence.dev/baseline"] == "1", "it bears {labels}");
    let policy = r#"{"spec": {"rulesets": ["nosuch"], "maxMitigation": "kill"}}"#;
    let Err(error) = site.kubectl(&["patch", "runtimepolicy/default", "--type=merge", "-p", policy]) else {
        bail!("a wrong policy was taken");
    };
    ensure!(format!("{error:#}").contains("maxMitigation"), "{error:#}");
    Ok(())
}

fn enforced(site: &mut Site) -> Result<()> {
    let shop = site.shop()?;
    site.violate(&shop)?;
    site.event(&shop, "RulesetViolation")
        .or_else(|_| bail!("no Event of a dry run: {}", site.kubectl(&["-n", "chart-shop", "get", "events"])?))?;
    let patch = r#"{"spec": {"maxMitigation": "isolate"}}"#;
    site.kubectl(&["patch", "runtimepolicy/default", "--type=merge", "-p", patch])?;
    let uid = shop["metadata"]["uid"].clone();
    // Until the node has heard of it, it is a dry run.
    for _ in 0..100 {
        let shop = site.shop()?;
        ensure!(shop["metadata"]["uid"] == uid, "it is another pod");
        if shop["metadata"]["labels"]["ringfence.dev/isolated"] == "true" {
            return Ok(());
        }
        site.violate(&shop)?;
        thread::sleep(Duration::from_millis(200));
    }
    bail!("it is not isolated: {}", site.shop()?["metadata"])
}

/// Everything is updated; what was isolated stays so, what users changed stays too, and no trust is lost.
fn upgrade(site: &mut Site) -> Result<()> {
    let before = bundle(site.cluster)?;
    let pinned = site.pinned()?;
    site.upgrade(&["webhook.podAnnotations.x=y", "runtimeSecurity.podAnnotations.x=y"])?;
    let pods = "jsonpath={.items[*].metadata.annotations.x}";
    let new = site.kubectl(&["-n", NAMESPACE, "get", "pods", "--field-selector=status.phase=Running", "-o", pods])?;
    ensure!(new.split(' ').count() >= 3, "not every pod is new: {new:?}");
    ensure!(bundle(site.cluster)? == before, "the bundle has changed");
    ensure!(pinned && site.pinned()?, "the programs are gone");
    let cap = site.kubectl(&["get", "runtimepolicy/default", "-o", "jsonpath={.spec.maxMitigation}"])?;
    ensure!(cap == "isolate", "maxMitigation is {cap}");
    let shop = site.shop()?;
    ensure!(shop["metadata"]["labels"]["ringfence.dev/isolated"] == "true", "{}", shop["metadata"]);
    ensure!(site.isolated_on_the_node()?, "none is isolated");
    Ok(())
}

/// Nothing is left on the node, what was isolated is not any more, and pods are still labelled.
fn switched_off(site: &mut Site) -> Result<()> {
    site.upgrade(&["runtimeSecurity.enabled=false"])?;
    site.unloaded()?;
    site.gone_like("enforcer")?;
    let shop = site.shop()?;
    site.unmarked(shop["metadata"]["name"].as_str().context("no name")?)?;
    let shop = site.new_shop()?;
    ensure!(shop["metadata"]["labels"][POLICY] == "default", "{}", shop["metadata"]);
    site.violate(&shop)
}

fn switched_on(site: &mut Site) -> Result<()> {
    site.upgrade(&["runtimeSecurity.enabled=true"])?;
    ensure!(site.pinned()?, "nothing is pinned");
    let shop = site.new_shop()?;
    site.violate(&shop)?;
    site.event(&shop, "PodIsolated")
}

/// To the revision that was switched off, and back.
fn rollback(site: &mut Site) -> Result<()> {
    site.release.roll_back(site.cluster, "3")?;
    site.unloaded()?;
    site.release.roll_back(site.cluster, "4")?;
    ensure!(site.pinned()?, "nothing is pinned");
    Ok(())
}

/// Programs that are left for isolated pods alone: they drop packets, and know new cgroups.
const KEPT: [&str; 9] = [
    "cgroup_attach_t",
    "cgroup_egress",
    "cgroup_ingress",
    "cgroup_mkdir",
    "cgroup_release",
    "sched_process_e",
    "sched_process_f",
    "veth_egress",
    "veth_ingress",
];

/// The node side goes, and who is isolated stays so: over the restart of a container, until it comes back and goes for
/// good.
fn isolated_pods_kept(site: &mut Site) -> Result<()> {
    for name in ["cut", "peer"] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "chart-shop"},
            "spec": pods::spec(&format!("{SERVER} until [ -e /tmp/end ]; do sleep 0.2; done")),
        });
        site.cluster.apply(&pod.to_string())?;
    }
    let ready = ["wait", "--for=condition=Ready", "--timeout=180s", "pod/cut", "pod/peer"];
    site.kubectl(&[&["-n", "chart-shop"], &ready[..]].concat())?;
    let pod = |site: &Site, name: &str| site.get(&["-n", "chart-shop", "get", "pod", name]);
    let address = |pod: &Value| pod["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    let (cut, peer) = (pod(site, "cut")?, pod(site, "peer")?);
    let (to_cut, to_peer) = (address(&cut), address(&peer));
    let apart = |site: &Site| {
        !pods::reaches(site.cluster, "chart-shop", "peer", &to_cut)
            && !pods::reaches(site.cluster, "chart-shop", "cut", &to_peer)
    };
    ensure!(!apart(site), "the pods do not reach one another");
    site.violate(&cut)?;
    site.event(&cut, "PodIsolated")?;
    ensure!(apart(site), "it is not cut off");

    site.upgrade(&["runtimeSecurity.enabled=false", "runtimeSecurity.isolatedPods=keep"])?;
    let before = site.programs.clone();
    let mut left = Vec::new();
    site.cluster.wait_for("the kernel without what detects", |_| {
        left = new_programs(&before)?;
        Ok(left.iter().all(|name| KEPT.contains(&name.as_str())))
    })?;
    ensure!(left.iter().any(|name| name == "cgroup_egress"), "{left:?}");
    ensure!(apart(site), "it is not cut off any more");
    let (mark, restarts) =
        ("ringfence.dev/isolated", |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].clone());
    ensure!(pod(site, "cut")?["metadata"]["labels"][mark] == "true", "its mark is gone");
    site.kubectl(&["-n", "chart-shop", "exec", "cut", "--", "touch", "/tmp/end"])?;
    site.cluster.wait_for("a new container", |cluster| {
        let text = cluster.kubectl(["-n", "chart-shop", "get", "pod", "cut", "-o", "json"])?;
        let pod: Value = serde_json::from_str(&text)?;
        Ok(restarts(&pod) != 0 && pod["status"]["containerStatuses"][0]["ready"] == true)
    })?;
    ensure!(apart(site), "its new container is not cut off");
    // Nobody else is hindered, whatever it does, and gates of new pods open.
    site.violate(&peer)?;
    let mut gated = pods::spec("sleep 999999");
    gated["readinessGates"] = json!([{"conditionType": "ringfence.dev/connected"}]);
    let gated = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gated", "namespace": "chart-shop"}, "spec": gated,
    });
    site.cluster.apply(&gated.to_string())?;
    site.kubectl(&["-n", "chart-shop", "wait", "--for=condition=Ready", "--timeout=180s", "pod/gated"])?;
    let web = site.new_shop()?;
    let web = web["metadata"]["name"].as_str().context("no name")?.to_owned();
    let cluster = &mut *site.cluster;
    cluster
        .wait_for("a pod that nobody isolated", |cluster| Ok(pods::reaches(cluster, "chart-shop", &web, &to_peer)))?;

    site.upgrade(&["runtimeSecurity.enabled=true"])?;
    ensure!(site.isolated_on_the_node()? && apart(site), "the new enforcer has released it");
    site.upgrade(&["runtimeSecurity.enabled=false"])?;
    site.unloaded()?;
    site.unmarked("cut")?;
    let cluster = &mut *site.cluster;
    cluster.wait_for("its network", |cluster| Ok(pods::reaches(cluster, "chart-shop", "peer", &to_cut)))?;
    site.kubectl(&["-n", "chart-shop", "delete", "pod", "cut", "peer", "gated", "--force"])?;
    site.upgrade(&["runtimeSecurity.enabled=true"]).map(drop)
}

/// Names of programs, as far as the kernel keeps them, that are in it and not among these.
fn new_programs(before: &BTreeSet<u32>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for program in loaded_programs() {
        let program = program?;
        if !before.contains(&program.id()) {
            names.push(program.name_as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(names)
}

const DEFINITIONS: [&str; 2] = [
    "customresourcedefinition.apiextensions.k8s.io/runtimepolicies.ringfence.dev",
    "customresourcedefinition.apiextensions.k8s.io/runtimerulesets.ringfence.dev",
];

/// Rulesets and policies are kept by default, and nothing else.
fn uninstall(site: &mut Site) -> Result<()> {
    site.release.uninstall(site.cluster)?;
    site.unloaded()?;
    site.gone(&DEFINITIONS)?;
    site.kubectl(&["get", "runtimepolicy/default"])?;
    // Nothing hinders pods.
    site.new_shop()?;
    Ok(())
}

/// By Helm 3, installed over what was kept, and upgraded. What follows is Helm 3 too.
fn with_helm_3(site: &mut Site) -> Result<()> {
    site.by(Helm::V3)?;
    site.install(&[])?;
    let cap = site.kubectl(&["get", "runtimepolicy/default", "-o", "jsonpath={.spec.maxMitigation}"])?;
    ensure!(cap == "isolate", "the policy was made anew: {cap}");
    trusted(site)?;
    let before = bundle(site.cluster)?;
    site.upgrade(&["webhook.podAnnotations.x=z"])?;
    ensure!(bundle(site.cluster)? == before, "the bundle has changed");
    let shop = site.new_shop()?;
    ensure!(shop["metadata"]["labels"][POLICY] == "default", "{}", shop["metadata"]);
    // As after the same steps by Helm 4: somebody is isolated who has to be released.
    site.violate(&shop)?;
    site.event(&shop, "PodIsolated")
}

/// Nothing is kept.
fn uninstall_all(site: &mut Site) -> Result<()> {
    site.release.uninstall(site.cluster)?;
    site.unloaded()?;
    site.gone(&[])
}

/// The chart as the commit before this one has it, below a folder.
fn previous_chart(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let archive = folder.join("chart.tar");
    let mut git = Command::new("git");
    git.arg("-C").arg(checkout).args(["archive", "--output"]).arg(&archive).args(["HEAD^", "charts/ringfence"]);
    succeed(&mut git, None).context("there is no earlier chart")?;
    succeed(Command::new("tar").arg("-C").arg(folder).arg("-xf").arg(&archive), None)?;
    Ok(folder.join("charts/ringfence"))
}

/// A pod is isolated under the earlier chart, and stays so under this one. (The images are this commit's for both.)
fn upgrade_from(site: &mut Site, chart: &Path, helm: Helm) -> Result<()> {
    site.by(helm)?;
    let before = site.release.with_chart(chart.to_path_buf());
    before.install(site.cluster, &[site.values, &["policy.maxMitigation=isolate"]].concat())?;
    trusted(site)?;
    let shop = site.new_shop()?;
    site.violate_until_isolated(&shop)?;
    site.upgrade(&[])?;
    ensure!(site.isolated_on_the_node()?, "none is isolated");
    uninstall_all(site)
}
