//! A release of the chart, as a user installs it: by Helm, with the images under test.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use super::Context;
use crate::chart;
use crate::cluster::{Cluster, Helm, Interrupt, succeed};
use crate::harness::Image;

/// Images that were loaded into the node.
const OVERRIDES: &str = "image: {registry: localhost, tag: test, pullPolicy: Never}\n";

/// A release, or one to be.
#[derive(Debug, Clone)]
pub struct Release {
    helm: PathBuf,
    name: &'static str,
    namespace: &'static str,
    chart: PathBuf,
    overrides: PathBuf,
    /// A guard against hanging.
    limit: &'static str,
}

impl Release {
    /// The chart is that of the checkout. The images of both components are loaded into the node.
    pub fn prepare(context: &mut Context, helm: Helm, name: &'static str, namespace: &'static str) -> Result<Self> {
        context.ship()?;
        let overrides = context.cluster.state().join("tmp/overrides.yaml");
        fs::write(&overrides, OVERRIDES)?;
        let helm = helm.program(&Interrupt::default())?;
        Ok(Self { helm, name, namespace, chart: chart::folder(), overrides, limit: "3m" })
    }

    /// The same release where a node may be an emulated machine.
    pub fn patient(self) -> Self {
        Self { limit: "8m", ..self }
    }

    /// The same release in the hands of another Helm.
    pub fn by(&self, helm: Helm) -> Result<Self> {
        Ok(Self { helm: helm.program(&Interrupt::default())?, ..self.clone() })
    }

    /// The same release with another chart.
    pub fn with_chart(&self, chart: PathBuf) -> Self {
        Self { chart, ..self.clone() }
    }

    /// Installs it, and waits until that is done; returns what Helm says.
    pub fn install(&self, cluster: &Cluster, values: &[&str]) -> Result<String> {
        self.apply(cluster, &["install", "--create-namespace"], values)
    }

    /// Makes it what the values say, and waits until that is done.
    pub fn upgrade(&self, cluster: &Cluster, values: &[&str]) -> Result<String> {
        self.apply(cluster, &["upgrade"], values)
    }

    /// The same by Helm 4, also where another wrote what the chart says now.
    pub fn upgrade_by_force(&self, cluster: &Cluster, values: &[&str]) -> Result<String> {
        self.apply(cluster, &["upgrade", "--force-conflicts"], values)
    }

    fn apply(&self, cluster: &Cluster, words: &[&str], values: &[&str]) -> Result<String> {
        let mut helm = cluster.command(&self.helm);
        helm.args(words).args([self.name, "--namespace", self.namespace, "--wait", "--timeout", self.limit]);
        helm.arg(&self.chart).arg("--values").arg(&self.overrides);
        helm.args(values.iter().map(|value| format!("--set={value}")));
        succeed(&mut helm, None)
    }

    /// What the node's enforcer says of itself.
    pub fn status(&self, cluster: &Cluster) -> Result<Value> {
        let own = ["-n", self.namespace, "exec", "daemonset/ringfence-enforcer", "--"];
        let status = cluster.kubectl(own.iter().chain(&["/ringfence", "status", "-o", "json"]))?;
        Ok(serde_json::from_str(&status)?)
    }

    /// Waits until the node enforces a ruleset. For the first ones, programs have to be loaded into the kernel.
    pub fn enforces(&self, cluster: &mut Cluster, ruleset: &str) -> Result<()> {
        cluster.wait_for(&format!("ruleset {ruleset} on the node"), |cluster| {
            let names = self.status(cluster)?["rulesets"]["names"].clone();
            Ok(names.as_array().is_some_and(|names| names.iter().any(|name| name == ruleset)))
        })
    }

    /// Waits until no replica of the webhook is left, nor comes back.
    pub fn take_webhook_away(&self, cluster: &mut Cluster) -> Result<()> {
        cluster.kubectl(["-n", self.namespace, "scale", "deployment/ringfence-webhook", "--replicas=0"])?;
        cluster.wait_for("no webhook", |cluster| {
            let selector = "app.kubernetes.io/name=ringfence-webhook";
            Ok(cluster.kubectl(["-n", self.namespace, "get", "pods", "-l", selector, "-o", "name"])?.is_empty())
        })
    }

    /// Waits until its two replicas are there again.
    pub fn bring_webhook_back(&self, cluster: &Cluster) -> Result<()> {
        let own = ["-n", self.namespace];
        cluster.kubectl(own.iter().chain(&["scale", "deployment/ringfence-webhook", "--replicas=2"]))?;
        let wait = ["rollout", "status", "deployment/ringfence-webhook", "--timeout=120s"];
        cluster.kubectl(own.iter().chain(&wait)).map(drop)
    }

    /// Brings a revision back.
    pub fn roll_back(&self, cluster: &Cluster, revision: &str) -> Result<String> {
        self.run(cluster, &["rollback", self.name, revision, "--wait", "--timeout", self.limit])
    }

    /// Removes it.
    pub fn uninstall(&self, cluster: &Cluster) -> Result<String> {
        self.run(cluster, &["uninstall", self.name, "--wait", "--timeout", self.limit])
    }

    fn run(&self, cluster: &Cluster, words: &[&str]) -> Result<String> {
        succeed(cluster.command(&self.helm).args(["--namespace", self.namespace]).args(words), None)
    }
}

impl Context {
    /// Loads the images of both components into the node, once.
    fn ship(&mut self) -> Result<()> {
        if self.shipped {
            return Ok(());
        }
        for image in self.images()? {
            self.cluster.import(&image)?;
        }
        self.shipped = true;
        Ok(())
    }

    /// The images of both components.
    pub fn images(&self) -> Result<[Image; 2]> {
        let webhook = Image::empty("localhost/ringfence/webhook:test")
            .file(&self.program("ringfence-webhook")?, "/ringfence-webhook", 0o755)
            .entrypoint(&["/ringfence-webhook"]);
        let enforcer = Image::empty("localhost/ringfence/enforcer:test")
            .file(&self.program("enforcer")?, "/enforcer", 0o755)
            .file(&self.program("ringfence")?, "/ringfence", 0o755)
            .entrypoint(&["/enforcer"]);
        Ok([webhook, enforcer])
    }
}
