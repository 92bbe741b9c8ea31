//! A cluster without pods that run: the control plane's API server and etcd, what the chart makes of Ringfence, and
//! whatever objects a measurement makes. Nobody reconciles them: no controller manager, scheduler or kubelet is there,
//! whose work would be measured as well, and who would delete pods of nodes that do not exist.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::chart;
use crate::cluster::{Cluster, Helm, Interrupt, Options, succeed};
use crate::in_cluster::audit::Audit;

/// The namespace of the release.
pub const NAMESPACE: &str = "ringfence";
/// The active policy.
pub const POLICY: &str = "main";
/// Where the webhook listens: this machine's end of the way to the cluster.
pub const WEBHOOK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), 18443);
/// Programs of a cluster that would change objects, or use the processor for pods that are not there.
const IDLE: [&str; 4] = ["kube-scheduler", "kube-controller-manager", "kubelet", "kube-proxy"];
/// Kinds of the chart that are wanted: rights, definitions, and what the API server asks the webhook.
const KINDS: [&str; 12] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "CustomResourceDefinition",
    "DaemonSet",
    "Lease",
    "MutatingWebhookConfiguration",
    "Role",
    "RoleBinding",
    "Secret",
    "ServiceAccount",
    "ValidatingWebhookConfiguration",
];

/// The cluster, and the administrator's connection to it.
pub struct Site {
    /// The cluster.
    pub cluster: Cluster,
    /// The folder with the programs that are shipped.
    pub programs: PathBuf,
    /// Of the administrator.
    pub admin: Client,
    runtime: tokio::runtime::Runtime,
    /// Keeps the audit policy's file.
    _audit: Audit,
}

impl Site {
    /// Starts one, with the chart's objects.
    pub fn up(programs: &Path, interrupt: &Interrupt) -> Result<Self> {
        for program in ["enforcer", "ringfence-webhook"] {
            let path = programs.join(program);
            ensure!(path.is_file(), "{} is missing: build it, or name another folder", path.display());
        }
        // Whoever installs one first wins: all here use the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        crate::cluster::remove_stale()?;
        let audit = Audit::prepare()?;
        let mut options = Options { interrupt: interrupt.clone(), api_server: audit.arguments(), ..Options::default() };
        // Its places are counted from its beginning.
        options.api_server.push("--audit-log-maxsize=2000".to_owned());
        let mut cluster = Cluster::up(&options)?;
        for program in IDLE {
            cluster.kill(program)?;
        }
        cluster.kubectl(["create", "namespace", NAMESPACE])?;
        for manifest in chart(interrupt)? {
            cluster.apply(&manifest.to_string())?;
        }
        let wait = ["wait", "--for=condition=Established", "--timeout=30s"];
        let definitions = ["crd/runtimerulesets.ringfence.dev", "crd/runtimepolicies.ringfence.dev"];
        cluster.kubectl(wait.iter().chain(&definitions))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let admin = connect(&runtime, Kubeconfig::read_from(cluster.kubeconfig())?)?;
        Ok(Self { cluster, programs: programs.to_path_buf(), admin, runtime, _audit: audit })
    }

    /// Runs something to its end.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// A kubeconfig of a service account of the release.
    pub fn account(&self, name: &str) -> Result<Kubeconfig> {
        let token = self.cluster.kubectl(["-n", NAMESPACE, "create", "token", name, "--duration=24h"])?;
        let mut config = Kubeconfig::read_from(self.cluster.kubeconfig())?;
        let user = config.auth_infos.first_mut().context("a kubeconfig without a user")?;
        user.auth_info = Some(AuthInfo { token: Some(token.trim().into()), ..AuthInfo::default() });
        Ok(config)
    }

    /// The same, as a file.
    pub fn account_file(&self, name: &str) -> Result<PathBuf> {
        let config = self.account(name)?;
        let path = self.cluster.state().join("tmp").join(format!("{name}.kubeconfig"));
        std::fs::write(&path, serde_json::to_string(&config)?)?;
        Ok(path)
    }

    /// Waits until something is so.
    pub fn wait_for(&mut self, what: &str, mut done: impl FnMut(&Cluster) -> Result<bool>) -> Result<()> {
        self.cluster.wait_for(what, |cluster| done(cluster))
    }
}

/// An enforcer's client: it shares no connection with others.
pub async fn client(config: Kubeconfig) -> Result<Client> {
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn connect(runtime: &tokio::runtime::Runtime, config: Kubeconfig) -> Result<Client> {
    runtime.block_on(client(config))
}

/// What the chart makes with its usual values, as far as it is wanted here. The webhook is called at [`WEBHOOK`].
fn chart(interrupt: &Interrupt) -> Result<Vec<Value>> {
    let mut helm = Command::new(Helm::V4.program(interrupt)?);
    let nowhere = std::env::temp_dir().join("ringfence-helm-has-none");
    helm.env("KUBECONFIG", "/dev/null");
    helm.envs(["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"].map(|name| (name, &nowhere)));
    helm.args(["template", "ringfence"]).arg(chart::folder()).args(["--namespace", NAMESPACE]);
    helm.args(["--set", &format!("policy.active={POLICY},policy.create=false"), "--kube-version", "1.37.0"]);
    let said = succeed(&mut helm, None)?;
    let mut manifests = Vec::new();
    for document in said.split("\n---\n") {
        let mut manifest: Value = serde_saphyr::from_str(document).context("what the chart makes")?;
        if KINDS.iter().any(|kind| manifest["kind"] == *kind) {
            for webhook in manifest["webhooks"].as_array_mut().into_iter().flatten() {
                let path = webhook["clientConfig"]["service"]["path"].as_str().context("a webhook without a path")?;
                webhook["clientConfig"] = json!({"url": format!("https://{WEBHOOK}{path}")});
            }
            manifests.push(manifest);
        }
    }
    ensure!(manifests.len() >= KINDS.len(), "the chart makes only {} of the objects that are wanted", manifests.len());
    Ok(manifests)
}
