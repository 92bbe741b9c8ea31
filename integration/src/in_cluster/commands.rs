//! The images as they are shipped, and the command line in a cluster: by itself, and as kubectl's plug-in.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ringfence_image::shipped::{self, Origin};
use ringfence_image::{Architecture, Layout, Variant};
use serde_json::{Value, json};

use super::pods::{self, IMAGE, SERVER, spec};
use super::release::Release;
use super::{Context, Part, define, in_turn, names_of, undefine};
use crate::cluster::{Cluster, Helm, NODE_NAME, succeed};
use crate::suite::Report;

pub const PART: Part = Part { names, run };

type Test = fn(&mut Site) -> Result<()>;

/// In this order: they share the release, and the last one removes it.
const TESTS: [(&str, Test); 8] = [
    ("image/runs-from-an-archive", images),
    ("image/holds-no-shell", no_shell),
    ("commands/status", status),
    ("commands/nothing-to-release", nothing_to_release),
    ("commands/release", release),
    ("commands/release-by-kubectl", release_by_kubectl),
    ("commands/converted-rulesets-are-taken", converted),
    ("commands/removed", removed),
];

const NAMESPACE: &str = "commands";
const SHOP: &str = "commands-shop";
const TAG: &str = "archive";

const OBJECTS: &str = include_str!("commands/objects.yaml");
/// Rulesets of the other product.
const THEIRS: &str = include_str!("../../../cli/tests/migration/rulesets.yaml");

/// Starts a program that is not the image's, once it is told to, and once only.
const DRIFT_ONCE: &str = "cp /bin/busybox /tmp/true; until [ -e /tmp/go ]; do sleep 0.1; done; /tmp/true; sleep 999999";

fn names() -> Vec<String> {
    names_of(&TESTS)
}

fn run(context: &mut Context, report: &mut Report) {
    let site = Site::prepare(context);
    in_turn(report, ("commands/prepared", site), &TESTS, |test, site| test(site));
}

/// Where the chart is installed, with images from archives.
struct Site<'a> {
    cluster: &'a mut Cluster,
    release: Release,
    /// `ringfence`, and a folder with a link to it that kubectl finds.
    program: PathBuf,
    plugins: PathBuf,
    /// Digests of the images' configurations, which name their contents, in the order of [`shipped::ALL`].
    digests: Vec<String>,
}

impl<'a> Site<'a> {
    fn prepare(context: &'a mut Context) -> Result<Self> {
        let program = context.program("ringfence")?;
        let temporary = context.cluster.state().join("tmp");
        let digests = load(&context.cluster, &context.programs, &temporary)?;
        let release = Release::prepare(context, Helm::V4, "commands", NAMESPACE)?;
        let plugins = temporary.join("plugins");
        fs::create_dir(&plugins)?;
        symlink(&program, plugins.join("kubectl-ringfence"))?;
        let cluster = &mut context.cluster;
        define(cluster)?;
        cluster.apply(OBJECTS)?;
        let tag = format!("image.tag={TAG}");
        let values = [&tag, "policy.active=commands", "policy.create=false", "crds.install=false"];
        release.install(cluster, &values)?;
        Ok(Self { cluster, release, program, plugins, digests })
    }

    /// `ringfence cluster`, as a user.
    fn ringfence(&self, user: Option<&str>, words: &[&str]) -> Said {
        let mut ringfence = self.cluster.command(&self.program);
        ringfence.arg("cluster").args(words).args(user.map(|user| format!("--as={user}")));
        Said::by(&mut ringfence)
    }

    fn pod(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.cluster.kubectl(["-n", SHOP, "get", "pod", name, "-o", "json"])?)?)
    }

    /// A pod that breaks a rule, and is cut off; returns its address.
    fn cut(&mut self, name: &str) -> Result<String> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": SHOP, "labels": {"app": "cut"}},
            "spec": spec(&format!("{SERVER} {DRIFT_ONCE}")),
        });
        self.cluster.wait_for("the service account", |cluster| {
            Ok(cluster.kubectl(["-n", SHOP, "get", "serviceaccount", "default"]).is_ok())
        })?;
        self.cluster.apply(&pod.to_string())?;
        let ready = format!("pod/{name}");
        self.cluster.kubectl(["-n", SHOP, "wait", "--for=condition=Ready", "--timeout=180s", &ready])?;
        let address = self.pod(name)?["status"]["podIP"].as_str().context("it has no address")?.to_owned();
        self.cluster.wait_for("its web server", |cluster| Ok(reaches(cluster, &address)))?;
        self.cluster.kubectl(["-n", SHOP, "exec", name, "--", "touch", "/tmp/go"])?;
        let annotation = "jsonpath={.metadata.annotations.ringfence\\.dev/isolated-by}";
        self.cluster.wait_for("its isolation", |cluster| {
            Ok(cluster.kubectl(["-n", SHOP, "get", "pod", name, "-o", annotation])? == "RF-901")
        })?;
        ensure!(!reaches(self.cluster, &address), "another pod reaches it");
        Ok(address)
    }

    /// Nothing says any more that it is isolated, and others reach it.
    fn is_free(&self, name: &str, address: &str) -> Result<()> {
        let metadata = self.pod(name)?["metadata"].clone();
        let ours = [&metadata["labels"], &metadata["annotations"]].map(ToString::to_string).concat();
        ensure!(!ours.contains("isolated"), "{ours}");
        ensure!(reaches(self.cluster, address), "nobody reaches it");
        Ok(())
    }
}

/// Whether another pod of the node reaches one.
fn reaches(cluster: &Cluster, address: &str) -> bool {
    pods::reaches(cluster, SHOP, "peer", address)
}

/// How a program ended.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn by(command: &mut Command) -> Self {
        match command.output() {
            Ok(output) => Self {
                code: output.status.code(),
                out: String::from_utf8_lossy(&output.stdout).into_owned(),
                err: String::from_utf8_lossy(&output.stderr).into_owned(),
            },
            Err(error) => Self { code: None, out: String::new(), err: error.to_string() },
        }
    }

    fn expect(&self, code: i32, out: &str, err: &str) -> Result<()> {
        let right = self.code == Some(code) && self.out == out && self.err == err;
        ensure!(right, "it ended with {:?}, said {:?} and {:?}", self.code, self.out, self.err);
        Ok(())
    }
}

/// Makes the images as `cargo xtask image` does, of the programs under test, and has containerd import the archives.
fn load(cluster: &Cluster, programs: &Path, folder: &Path) -> Result<Vec<String>> {
    let origin = Origin { version: env!("CARGO_PKG_VERSION").to_owned(), revision: None, created: None };
    let architecture = Architecture::native();
    let mut digests = Vec::new();
    for shipped in shipped::ALL {
        let image = shipped.build(programs, architecture, &origin)?;
        let sbom = ringfence_image::Blob::new("application/vnd.cyclonedx+json", b"{}\n".to_vec());
        let attached = vec![("sbom.cdx.json".to_owned(), sbom)];
        let mut layout = Layout::default();
        let name = shipped.reference("localhost", TAG);
        let variant = Variant { architecture, image, attached };
        digests.push(variant.image.config.digest.clone());
        layout.index(&name, &shipped.labels(&origin), &[variant]);
        let archive = folder.join(format!("{}.tar", shipped.name));
        layout.write(std::io::BufWriter::new(File::create(&archive)?))?;
        cluster.load(&archive)?;
    }
    Ok(digests)
}

/// The chart's pods run what was in the archives.
fn images(site: &mut Site) -> Result<()> {
    for (shipped, digest) in shipped::ALL.iter().zip(&site.digests) {
        let selector = format!("--selector=app.kubernetes.io/name=ringfence-{}", shipped.name);
        let pods = site.cluster.kubectl(["-n", NAMESPACE, "get", "pods", &selector, "-o", "json"])?;
        let pods: Value = serde_json::from_str(&pods)?;
        let statuses = pods["items"].as_array().into_iter().flatten().map(|pod| &pod["status"]["containerStatuses"][0]);
        let statuses: Vec<_> = statuses.collect();
        ensure!(!statuses.is_empty(), "no pod of the {}", shipped.name);
        for status in statuses {
            ensure!(status["image"] == shipped.reference("localhost", TAG), "it runs {}", status["image"]);
            let id = status["imageID"].as_str().unwrap_or_default();
            ensure!(id.ends_with(digest.as_str()), "it runs {id} instead of {digest}");
        }
    }
    Ok(())
}

fn no_shell(site: &mut Site) -> Result<()> {
    for workload in ["daemonset/ringfence-enforcer", "deployment/ringfence-webhook"] {
        let shell = ["sh", "/bin/sh", "/bin/busybox"]
            .map(|shell| site.cluster.kubectl(["-n", NAMESPACE, "exec", workload, "--", shell, "-c", "true"]));
        for said in shell {
            let error = said.err().map(|error| format!("{error:#}")).context("there is a shell")?;
            ensure!(error.contains("no such file") || error.contains("not found"), "{error}");
        }
    }
    // What it is there for does run.
    let said = site.cluster.kubectl([
        "-n",
        NAMESPACE,
        "exec",
        "daemonset/ringfence-enforcer",
        "--",
        "/ringfence",
        "status",
    ])?;
    ensure!(!said.is_empty(), "no status");
    Ok(())
}

fn status(site: &mut Site) -> Result<()> {
    let mut found = Value::Null;
    site.cluster.wait_for("statuses", |cluster| {
        let said = Said::by(cluster.command(&site.program).args(["cluster", "status", "-o", "json"]));
        ensure!(said.code == Some(0), "{}", said.err);
        found = serde_json::from_str(&said.out)?;
        Ok(found["policies"].as_array().into_iter().flatten().any(|policy| policy["active"] == "True"))
    })?;
    let by_name = |list: &str, name: &str| {
        found[list].as_array().into_iter().flatten().find(|one| one["name"] == name).cloned().context(name.to_owned())
    };
    let policy = by_name("policies", "commands")?;
    ensure!(policy["active"] == "True" && policy["accepted"] == "True" && policy["rulesets"] == 1, "{policy}");
    let ruleset = by_name("rulesets", "commands-drift")?;
    ensure!(ruleset["inUse"] == "True" && ruleset["rules"] == 1, "{ruleset}");
    for (name, ready) in [("ringfence-enforcer", 1), ("ringfence-webhook", 2)] {
        let component = by_name("components", name)?;
        ensure!(component["ready"] == ready && component["wanted"] == ready, "{component}");
    }
    ensure!(found["isolatedPods"] == 0, "{found}");
    let text = site.ringfence(None, &["status"]);
    ensure!(
        text.code == Some(0) && text.out.contains("POLICY") && text.out.contains("no pod is isolated"),
        "{}",
        text.out
    );
    let refused = site.ringfence(Some("carol"), &["status"]);
    ensure!(refused.code == Some(2) && refused.err.contains("User \"carol\" cannot list resource"), "{}", refused.err);
    Ok(())
}

fn nothing_to_release(site: &mut Site) -> Result<()> {
    site.cluster.kubectl([
        "-n",
        SHOP,
        "run",
        "peer",
        &format!("--image={IMAGE}"),
        "--image-pull-policy=Never",
        "--",
        "sleep",
        "999999",
    ])?;
    site.cluster.kubectl(["-n", SHOP, "wait", "--for=condition=Ready", "--timeout=180s", "pod/peer"])?;
    site.ringfence(None, &["release", "peer", "-n", SHOP]).expect(
        2,
        "",
        "ringfence: pod 'peer' in namespace 'commands-shop' is not isolated\n",
    )?;
    site.ringfence(None, &["release", "nobody", "-n", SHOP]).expect(
        2,
        "",
        "ringfence: there is no pod 'nobody' in namespace 'commands-shop'\n",
    )?;
    let stranger = site.ringfence(Some("dave"), &["release", "peer", "-n", SHOP]);
    ensure!(stranger.code == Some(2) && stranger.err.contains("User \"dave\" cannot get resource"), "{}", stranger.err);
    site.ringfence(None, &["isolated", "-n", SHOP]).expect(0, "no pod is isolated in namespace commands-shop\n", "")?;
    let mut nowhere = site.cluster.command(&site.program);
    nowhere.args(["cluster", "isolated"]).env("KUBECONFIG", "/nonexistent/kubeconfig");
    let said = Said::by(&mut nowhere);
    ensure!(said.code == Some(2) && said.err.contains("no cluster is configured"), "{}", said.err);
    Ok(())
}

fn release(site: &mut Site) -> Result<()> {
    let address = site.cut("cut")?;
    let listed = site.ringfence(Some("carol"), &["isolated", "-n", SHOP, "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed.out).with_context(|| listed.err.clone())?;
    let pod = &listed[0];
    ensure!(pod["pod"] == "cut" && pod["node"] == NODE_NAME && pod["by"] == "RF-901", "{listed}");

    // Who may not: told why, and nothing has changed.
    let viewer = site.ringfence(Some("carol"), &["release", "cut", "-n", SHOP]);
    ensure!(viewer.code == Some(2) && viewer.err.contains("User \"carol\" cannot patch resource"), "{}", viewer.err);
    let operator = site.ringfence(Some("bob"), &["release", "cut", "-n", SHOP]);
    let right = "user 'bob' may not lift an isolation, which needs the right to 'update' 'pods/isolation'";
    ensure!(operator.code == Some(2) && operator.err.contains(right), "{}", operator.err);
    ensure!(!reaches(site.cluster, &address), "another pod reaches it");

    site.ringfence(Some("alice"), &["release", "cut", "-n", SHOP]).expect(
        0,
        "pod 'cut' in namespace 'commands-shop' is released\n",
        "",
    )?;
    site.is_free("cut", &address)?;
    site.cluster.kubectl(["-n", SHOP, "delete", "pod", "cut", "--force"]).map(drop)
}

/// kubectl finds the program by the name of its link.
fn release_by_kubectl(site: &mut Site) -> Result<()> {
    let address = site.cut("cut-too")?;
    let kubectl = |words: &[&str]| {
        let mut kubectl = site.cluster.command(site.cluster.kubectl_program());
        succeed(kubectl.arg("ringfence").args(words).env("PATH", &site.plugins), None)
    };
    let listed = kubectl(&["isolated", "-A"])?;
    ensure!(listed.lines().any(|line| line.starts_with(SHOP) && line.contains("RF-901")), "{listed}");
    let said = kubectl(&["release", "pod/cut-too", "-n", SHOP, "--as=alice"])?;
    ensure!(said == "pod 'cut-too' in namespace 'commands-shop' is released\n", "{said}");
    ensure!(kubectl(&["rules", "show", "RF-901"])?.starts_with("RF-901"), "rules are not shown");
    site.is_free("cut-too", &address)?;
    site.cluster.kubectl(["-n", SHOP, "delete", "pod", "cut-too", "--force"]).map(drop)
}

/// The server's schema and the webhook take what is converted.
fn converted(site: &mut Site) -> Result<()> {
    let file = site.cluster.state().join("tmp/theirs.yaml");
    fs::write(&file, THEIRS)?;
    let mut ringfence = Command::new(&site.program);
    let ours = succeed(ringfence.args(["convert", "rulesets", "--policy=converted"]).arg(&file), None)?;
    site.cluster.apply(&ours)?;
    let rulesets = site.cluster.kubectl(["get", "rpol", "converted", "-o", "jsonpath={.spec.rulesets}"])?;
    ensure!(rulesets == r#"["shop-web.v2","miners"]"#, "{rulesets}");
    let selector = "jsonpath={.spec.selector.matchLabels.app}";
    let selector = site.cluster.kubectl(["get", "rrs", "shop-web.v2", "-o", selector])?;
    ensure!(selector == "web", "{selector}");
    site.cluster.kubectl(["delete", "rpol", "converted"])?;
    site.cluster.kubectl(["delete", "rrs", "shop-web.v2", "miners"]).map(drop)
}

fn removed(site: &mut Site) -> Result<()> {
    site.release.uninstall(site.cluster)?;
    site.cluster.kubectl(["delete", "namespace", SHOP, NAMESPACE, "--timeout=120s"])?;
    undefine(site.cluster)
}
