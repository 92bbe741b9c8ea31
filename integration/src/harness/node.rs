//! The node: everything that containers need, and its end.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use super::client::Client;
use super::cni::{self, Network, Plugin, Stack};
use super::container::Container;
use super::daemon::{Daemon, SANDBOX_IMAGE};
use super::image::Image;
use super::netns::Netns;
use super::spec::Spec;
use super::{cgroup, sweep};

/// A private node.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    bridge: Network,
    ptp: Network,
}

/// What containers need of their node.
#[derive(Debug)]
pub struct Shared {
    /// containerd's API.
    pub client: Client,
    /// containerd's namespace, also the name of the parent of all cgroups.
    pub namespace: String,
    directory: PathBuf,
    socket: PathBuf,
    netns: Arc<Netns>,
    daemon: Mutex<Option<Daemon>>,
    layers: Mutex<HashMap<String, String>>,
    names: AtomicU32,
    stopped: AtomicBool,
}

/// containerd's namespace of the CRI.
pub const POD_NAMESPACE: &str = "k8s.io";

/// Makes nodes of one process distinct.
static NODES: AtomicU32 = AtomicU32::new(1);

impl Node {
    /// Starts one. What killed runs left behind is swept away first.
    pub fn start() -> Result<Self> {
        sweep::stale().context("sweep away what an earlier run left")?;
        let namespace = format!("{}{}-{}", sweep::PREFIX, std::process::id(), NODES.fetch_add(1, Ordering::Relaxed));
        let directory = Path::new(sweep::DIRECTORY).join(&namespace);
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Self::start_in(&namespace, &directory).inspect_err(|_| {
            if let Err(error) = sweep::node(&namespace) {
                eprintln!("{error:#}");
            }
        })
    }

    fn start_in(namespace: &str, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory.join("io"))?;
        let netns = Arc::new(Netns::new()?);
        cni::loopback_up(netns.path())?;
        let daemon = Daemon::start(directory, &netns, &sweep::daemon_cgroup(namespace))?;
        let socket = daemon.socket();
        let client = Client::connect(&socket)?;
        client.create_namespace(namespace)?;
        let addresses = directory.join("addresses");
        let bridge = Network::new(&netns, &addresses, Plugin::Bridge, Stack::Dual, 88)?;
        let ptp = Network::new(&netns, &addresses, Plugin::PointToPoint, Stack::Dual, 89)?;
        let shared = Shared {
            client,
            namespace: namespace.to_owned(),
            directory: directory.to_path_buf(),
            socket,
            netns,
            daemon: Mutex::new(Some(daemon)),
            layers: Mutex::default(),
            names: AtomicU32::new(1),
            stopped: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), bridge, ptp })
    }

    /// containerd's socket.
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// containerd's namespace, also the name of the parent of all cgroups.
    pub fn namespace(&self) -> &str {
        &self.shared.namespace
    }

    /// A folder for everything; removed in the end.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// A command that runs in the node's network namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // nsenter becomes the program, so its pid is the program's.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.shared.netns.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `f` on a thread in the node's network namespace.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.shared.netns.within(f)
    }

    /// Imports an image.
    pub fn import(&self, image: &Image) -> Result<()> {
        self.import_into(&self.shared.namespace, image)
    }

    /// Imports an image for pods made by CRI, and as their sandbox's.
    pub fn import_for_pods(&self, image: &Image) -> Result<()> {
        self.shared.client.create_namespace(POD_NAMESPACE)?;
        self.import_into(POD_NAMESPACE, image)?;
        let built = image.build()?;
        self.shared.client.import(POD_NAMESPACE, SANDBOX_IMAGE, &built)?;
        [image.name(), SANDBOX_IMAGE].into_iter().try_for_each(|name| self.shared.client.wait_for_pod_image(name))
    }

    fn import_into(&self, namespace: &str, image: &Image) -> Result<()> {
        let built = image.build().with_context(|| format!("build {}", image.name()))?;
        self.shared
            .client
            .import(namespace, image.name(), &built)
            .with_context(|| format!("import {}", image.name()))?;
        let mut layers = self.shared.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.insert(image.name().to_owned(), built.layer.digest);
        Ok(())
    }

    /// Creates and starts a container.
    pub fn run(&self, spec: &Spec) -> Result<Container> {
        let mut container = self.create(spec)?;
        container.start()?;
        Ok(container)
    }

    /// Creates a container that has no process yet.
    pub fn create(&self, spec: &Spec) -> Result<Container> {
        Container::create(&self.shared, spec)
    }

    /// A bridge with IPv4 and IPv6.
    pub fn bridge(&self) -> &Network {
        &self.bridge
    }

    /// Veth pairs without a bridge, with IPv4 and IPv6.
    pub fn ptp(&self) -> &Network {
        &self.ptp
    }

    /// Another network, with subnets of a number that no other one has; up to 87.
    pub fn network(&self, plugin: Plugin, stack: Stack, number: u8) -> Result<Network> {
        Network::new(&self.shared.netns, &self.shared.directory.join("addresses"), plugin, stack, number)
    }

    /// Kills containerd alone, as a crash would; containers live on.
    pub fn crash_containerd(&self) -> Result<()> {
        let mut daemon = self.shared.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        daemon.as_mut().context("the node is stopped")?.crash()
    }

    /// Starts containerd again after a crash.
    pub fn restart_containerd(&self) -> Result<()> {
        let mut daemon = self.shared.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let crashed = daemon.take().context("the node is stopped")?;
        *daemon = Some(crashed.restart(&self.shared.netns)?);
        Ok(())
    }

    /// Ends and removes everything, as dropping does, but says what went wrong or was left.
    pub fn stop(&self) -> Result<()> {
        self.shared.stop()
    }
}

impl Shared {
    /// A name that nothing else of this node has.
    pub fn next_name(&self, kind: &str) -> String {
        format!("{kind}{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// A new folder's path for the streams of a process.
    pub fn io_directory(&self) -> PathBuf {
        self.directory.join("io").join(self.next_name("p"))
    }

    /// The snapshot that containers of an image start from.
    pub fn layer(&self, image: &str) -> Result<String> {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.get(image).cloned().with_context(|| format!("image {image} was not imported"))
    }

    /// Whether everything is gone already.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn stop(&self) -> Result<()> {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // In an order in which nothing can come back: containers, then containerd and its shims, then their remains.
        let containers = cgroup::remove(&self.namespace);
        let daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner).take();
        let daemon = daemon.map_or(Ok(()), |mut daemon| daemon.stop());
        let failures: Vec<String> = [containers, daemon, sweep::node(&self.namespace)]
            .into_iter()
            .filter_map(|result| result.err().map(|error| format!("{error:#}")))
            .collect();
        if failures.is_empty() { Ok(()) } else { bail!("the node left something behind: {}", failures.join("; ")) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}
