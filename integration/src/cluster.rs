//! A real cluster on this machine: etcd, API server, controller manager, scheduler, containerd, kubelet, kube-proxy.
//!
//! The node has a network and a mount namespace of its own; its programs sit in a cgroup, by which they are killed, and
//! its pods in `/kubepods`, as on every node. There is one cluster on a machine at a time. What it needs is built once
//! and kept. Whoever has it ends it by dropping it; one that is to stay ends with `cargo xtask cluster down`, from
//! wherever.

mod binaries;
mod command;
mod component;
mod control_plane;
mod mounts;
mod network;
mod node;
mod pki;
mod second_node;
mod state;
mod sweep;
mod version;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::binaries::releases;
pub use self::command::Command as Subcommand;
pub use self::component::Place;
use self::component::{Component, Launch, Namespaces};
pub use self::network::NODE_ADDRESS;
pub use self::node::NODE_NAME;
pub use self::pki::ADMINISTRATOR;
use self::pki::Pki;
pub use self::second_node::{Boot, SECOND_NODE};
pub use self::state::remove_stale;
use self::version::Programs;
pub use self::version::{Ability, Version};
use crate::harness::{Client, Image, POD_NAMESPACE, SANDBOX_IMAGE};

/// Name of the cgroup of the cluster's programs.
const CGROUP: &str = "ringfence-cluster";

/// A guard against hanging: for each thing that is waited for.
const LIMIT: Duration = Duration::from_mins(3);

/// The same for a node that boots on an emulated machine.
const BOOT_LIMIT: Duration = Duration::from_mins(8);

/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether the user wants an end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on, SIGINT, SIGTERM and SIGHUP end nothing by themselves, but are seen by [`Interrupt::check`].
    pub fn by_signals() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, interrupt.0.clone())?;
        }
        Ok(interrupt)
    }

    /// What a signal sets.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }

    /// An error after a signal.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

/// A Helm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helm {
    /// The newest Helm 3.
    V3,
    /// The newest Helm 4.
    V4,
}

impl Helm {
    /// The program. Built when this machine does not have it.
    pub fn program(self, interrupt: &Interrupt) -> Result<PathBuf> {
        match self {
            Self::V3 => Ok(releases::HELM_3.ensure(interrupt)?.join("helm3")),
            Self::V4 => Ok(releases::HELM_4.ensure(interrupt)?.join("helm4")),
        }
    }
}

/// cert-manager.
#[derive(Debug)]
pub struct CertManager {
    /// The folder with its static programs `controller` and `cainjector`.
    pub programs: PathBuf,
    /// Its definitions.
    pub definitions: String,
}

impl CertManager {
    /// Whether [`Self::ensure`] builds nothing.
    pub fn is_built() -> Result<bool> {
        releases::CERT_MANAGER.is_built()
    }

    /// Built when this machine does not have it.
    pub fn ensure(interrupt: &Interrupt) -> Result<Self> {
        let programs = releases::CERT_MANAGER.ensure(interrupt)?;
        let folder = releases::CERT_MANAGER.module(interrupt)?.join("deploy/crds");
        let mut definitions = String::new();
        for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
            let file = entry?.path();
            if file.extension().is_some_and(|kind| kind == "yaml") {
                // Labels that its own chart fills in.
                let text = fs::read_to_string(file)?;
                definitions.extend(text.lines().filter(|line| !line.contains("{{")).flat_map(|line| [line, "\n"]));
                definitions.push_str("---\n");
            }
        }
        Ok(Self { programs, definitions })
    }
}

/// How a cluster is started.
#[derive(Debug, Default)]
pub struct Options {
    /// Which Kubernetes it has.
    pub version: Version,
    /// Further arguments of the API server, such as `--audit-policy-file=...`.
    pub api_server: Vec<String>,
    /// Ends it early.
    pub interrupt: Interrupt,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    version: Version,
    programs: Programs,
    state: PathBuf,
    interrupt: Interrupt,
    namespaces: Option<Namespaces>,
    components: Vec<Component>,
    containerd: Option<Client>,
    /// Somebody else ends it.
    left: bool,
}

impl Cluster {
    /// Starts one, and waits until its node is ready and pods can be made. On an error nothing is left.
    pub fn up(options: &Options) -> Result<Self> {
        let programs = Programs::ensure(options.version, &options.interrupt)?;
        let state = state::claim()?;
        let mut cluster = Self {
            version: options.version,
            programs,
            state,
            interrupt: options.interrupt.clone(),
            namespaces: None,
            components: Vec::new(),
            containerd: None,
            left: false,
        };
        match cluster.start(options) {
            Ok(()) => Ok(cluster),
            Err(error) => {
                let ended = cluster.end();
                Err(match ended {
                    Ok(()) => error,
                    Err(worse) => error.context(format!("{worse:#}")),
                })
            }
        }
    }

    fn start(&mut self, options: &Options) -> Result<()> {
        for folder in ["log", "tmp"] {
            fs::create_dir(self.state.join(folder))?;
        }
        let pki = Pki::create(self.state.join("pki"))?;
        fs::copy(pki.kubeconfig("admin"), self.kubeconfig())?;
        self.namespaces = Some(Namespaces::create(&self.state)?);

        self.launch(control_plane::etcd(&self.programs, &self.state))?;
        self.launch(control_plane::api_server(&self.programs, &pki, &options.api_server))?;
        self.launch(node::containerd(&self.programs, &self.state)?)?;
        let socket = node::socket(&self.state);
        self.wait_for("containerd", |_| Ok(UnixStream::connect(&socket).is_ok()))?;
        self.containerd = Some(Client::connect(&socket)?);
        self.import(&sandbox())?;

        self.wait_for("the API server", |cluster| Ok(cluster.kubectl(["get", "--raw", "/readyz"]).is_ok()))?;
        self.launch(control_plane::controller_manager(&self.programs, &pki))?;
        self.launch(control_plane::scheduler(&self.programs, &pki))?;
        self.launch(node::kubelet(self.version, &self.programs, &pki, &self.state)?)?;
        // kube-proxy's rights come with an add-on elsewhere.
        self.apply(PROXY_RIGHTS)?;
        self.launch(node::kube_proxy(&self.programs, &pki, &self.state)?)?;
        self.wait_for("the node", |cluster| Ok(cluster.is_ready(NODE_NAME)))?;
        // Without it no pod can be made.
        self.wait_for("the default service account", |cluster| {
            Ok(cluster.kubectl(["get", "serviceaccount", "default"]).is_ok())
        })
    }

    /// Whether a node says that it is ready.
    fn is_ready(&self, node: &str) -> bool {
        let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        self.kubectl(["get", "node", node, "-o", ready]).is_ok_and(|status| status == "True")
    }

    /// Adds the second node, [`SECOND_NODE`], with these images and the one of pods' sandboxes; waits until it is ready.
    pub fn add_node(&mut self, boot: &Boot, images: &[&Image]) -> Result<()> {
        let sandbox = sandbox();
        let images: Vec<_> = [&sandbox].into_iter().chain(images.iter().copied()).collect();
        let launch = second_node::prepare(boot, self.version, &self.programs, &self.state, &images)?;
        self.within(network::create_second)?;
        self.launch(launch)?;
        let ready = self.wait("the second node", BOOT_LIMIT, |cluster| Ok(cluster.is_ready(SECOND_NODE)));
        ready.or_else(|error| Err(error.context(self.component(SECOND_NODE)?.0.tail())))
    }

    /// Whether it has been added, ready or not.
    pub fn has_second_node(&self) -> bool {
        self.components.iter().any(|component| component.name() == SECOND_NODE)
    }

    /// Takes it away again, as if it had burnt down, and with it its pods.
    pub fn remove_node(&mut self) -> Result<()> {
        self.kill(SECOND_NODE)?;
        self.components.retain(|component| component.name() != SECOND_NODE);
        self.within(network::remove_second)?;
        fs::remove_dir_all(self.state.join(SECOND_NODE))?;
        let pods = ["delete", "pods", "--all-namespaces", "--force", "--field-selector"];
        self.kubectl(pods.iter().copied().chain([format!("spec.nodeName={SECOND_NODE}").as_str()]))?;
        self.kubectl(["delete", "node", SECOND_NODE]).map(drop)
    }

    fn launch(&mut self, launch: Launch) -> Result<()> {
        let namespaces = self.namespaces.as_ref().context("the cluster has no namespaces")?;
        self.components.push(Component::start(launch, namespaces)?);
        Ok(())
    }

    /// Waits until something is so; an error when a program of the cluster ends, or at an interrupt.
    pub fn wait_for(&mut self, what: &str, done: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        self.wait(what, LIMIT, done)
    }

    fn wait(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let until = Instant::now() + limit;
        while !done(self)? {
            self.interrupt.check()?;
            self.components.iter_mut().try_for_each(Component::check)?;
            ensure!(
                Instant::now() < until,
                "{what} is not as wanted after {} s; logs are in {}",
                limit.as_secs(),
                self.logs().display()
            );
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Where the state folder of a cluster is.
    pub fn folder() -> &'static Path {
        Path::new(state::FOLDER)
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The folder with the programs' logs.
    pub fn logs(&self) -> PathBuf {
        self.state.join("log")
    }

    /// The folder whose pods the first node's kubelet runs whatever the API server says.
    pub fn static_pods(&self) -> PathBuf {
        node::static_pods(&self.state)
    }

    /// The administrator's kubeconfig. It works on the whole machine.
    pub fn kubeconfig(&self) -> PathBuf {
        kubeconfig(&self.state)
    }

    /// Which Kubernetes it has.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What the node says that it runs: the kubelet's version and the container runtime's.
    pub fn versions(&self) -> Result<(String, String)> {
        let runtime = self.programs.containerd_version()?;
        Ok((format!("v{}", self.version.kubernetes()), format!("containerd://{runtime}")))
    }

    /// The newest kubectl, whatever the cluster is; a static program.
    pub fn kubectl_program(&self) -> PathBuf {
        self.programs.kubectl.clone()
    }

    /// A command of this machine that talks to the cluster: its kubeconfig is set, and it leaves nothing elsewhere.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(environment(&self.state)).stdin(Stdio::null());
        command
    }

    /// Runs kubectl and returns what it wrote; its failure is an error that tells what it said.
    pub fn kubectl(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        succeed(self.command(self.kubectl_program()).args(arguments), None)
    }

    /// Applies manifests, YAML or JSON.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        let mut kubectl = self.command(self.kubectl_program());
        succeed(kubectl.args(["apply", "-f", "-"]), Some(manifests))
    }

    /// Makes an image usable for pods. Their `imagePullPolicy` must not be `Always`.
    pub fn import(&self, image: &Image) -> Result<()> {
        let client = self.containerd.as_ref().context("containerd is not up")?;
        client.create_namespace(POD_NAMESPACE)?;
        let built = image.build().with_context(|| format!("build {}", image.name()))?;
        client.import(POD_NAMESPACE, image.name(), &built).with_context(|| format!("import {}", image.name()))?;
        client.wait_for_pod_image(image.name())
    }

    /// The same for the images of an archive in the form of the OCI image layout.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let mut ctr = self.command(self.programs.containerd.join("ctr"));
        succeed(ctr.args(["images", "import"]).arg(archive), None).map(drop)
    }

    /// Runs `f` on a thread in the node's network and mount namespaces.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespaces.as_ref().context("the cluster is down")?.within(Place::Node, f)
    }

    /// Kills one of the cluster's programs, such as `kube-apiserver`, as a crash would.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        self.component(name)?.0.kill()
    }

    /// Starts it again.
    pub fn restart(&mut self, name: &str) -> Result<()> {
        let (component, namespaces) = self.component(name)?;
        component.restart(namespaces)
    }

    /// The process of one of the cluster's programs.
    pub fn pid(&self, name: &str) -> Result<u32> {
        let component = self.components.iter().find(|component| component.name() == name);
        component.and_then(Component::pid).with_context(|| format!("{name} does not run"))
    }

    /// Waits until one of the cluster's programs has ended by itself, such as after a signal.
    pub fn wait_for_end(&mut self, name: &str) -> Result<()> {
        self.component(name)?.0.wait(LIMIT)
    }

    fn component(&mut self, name: &str) -> Result<(&mut Component, &Namespaces)> {
        let namespaces = self.namespaces.as_ref().context("the cluster is down")?;
        let component = self.components.iter_mut().find(|component| component.name() == name);
        Ok((component.with_context(|| format!("the cluster has no {name}"))?, namespaces))
    }

    /// Ends and removes everything, as dropping does, but says what went wrong or was left.
    pub fn down(mut self) -> Result<()> {
        self.end()
    }

    /// Lets it run on after this process.
    pub fn leave(mut self) -> Result<()> {
        state::leave()?;
        self.left = true;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.left, true) {
            return Ok(());
        }
        self.containerd = None;
        self.namespaces = None;
        let swept = sweep::everything();
        // Killed by now; what is left of them is their entry in the process table.
        self.components.iter_mut().try_for_each(Component::kill)?;
        swept
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// The sandbox of every pod: one process that sleeps.
fn sandbox() -> Image {
    Image::empty(SANDBOX_IMAGE).file(Path::new(crate::harness::BUSYBOX), "/sleep", 0o755).entrypoint(&["/sleep", "inf"])
}

const PROXY_RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "ringfence-test:kube-proxy"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-proxier"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:kube-proxy"}]
"#;

fn kubeconfig(state: &Path) -> PathBuf {
    state.join("kubeconfig")
}

/// What a program needs to talk to the cluster, and to leave nothing outside of its state folder.
fn environment(state: &Path) -> [(&'static str, PathBuf); 7] {
    [
        ("KUBECONFIG", kubeconfig(state)),
        ("KUBECACHEDIR", state.join("cache")),
        ("HELM_CACHE_HOME", state.join("helm/cache")),
        ("HELM_CONFIG_HOME", state.join("helm/config")),
        ("HELM_DATA_HOME", state.join("helm/data")),
        ("CONTAINERD_ADDRESS", node::socket(state)),
        ("CONTAINERD_NAMESPACE", POD_NAMESPACE.into()),
    ]
}

/// Runs a command to its end; its failure is an error that tells what it said.
pub fn succeed(command: &mut Command, input: Option<&str>) -> Result<String> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = [program].into_iter().chain(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    let line = words.collect::<Vec<_>>().join(" ");
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| line.clone())?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        // It may end without having read everything; then its exit code says why.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("`{line}` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
