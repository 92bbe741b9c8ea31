//! The events of crate `containers`, for threads.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use ringfence_containers::{Container, ContainerEvent, Containerd, Cri, Runtime};
use tokio::sync::mpsc::Receiver;

use super::Node;

/// A guard against hanging.
const LIMIT: Duration = Duration::from_secs(30);

/// Somebody who follows a runtime.
pub struct Follower {
    tokio: tokio::runtime::Runtime,
    runtime: Runtime,
    events: Receiver<ContainerEvent>,
    /// What was passed over, for messages.
    seen: Vec<ContainerEvent>,
}

impl Follower {
    /// Follows the node's containerd.
    pub fn containerd(node: &Node, namespaces: &[&str]) -> Result<Self> {
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let namespaces: Vec<String> = namespaces.iter().map(|&name| name.to_owned()).collect();
        // The node's network namespace is the host's for this containerd.
        let connect = Containerd::connect(node.socket(), &namespaces, "--containerd");
        let containerd = tokio.block_on(connect)?;
        Ok(Self::new(tokio, Runtime::Containerd(containerd)))
    }

    /// Follows the CRI of the node's containerd.
    pub fn cri(node: &Node) -> Result<Self> {
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let cri = tokio.block_on(Cri::connect(node.socket(), "--cri"))?;
        Ok(Self::new(tokio, Runtime::Cri(cri)))
    }

    fn new(tokio: tokio::runtime::Runtime, runtime: Runtime) -> Self {
        let events = tokio.block_on(async { runtime.watch() });
        Self { tokio, runtime, events, seen: Vec::new() }
    }

    /// The runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Waits for something.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.tokio.block_on(future)
    }

    /// The next event.
    pub fn next(&mut self) -> Result<ContainerEvent> {
        let event = self.tokio.block_on(async { tokio::time::timeout(LIMIT, self.events.recv()).await });
        let event = event.with_context(|| format!("no event within 30 s after {:#?}", self.seen))?;
        let event = event.context("the events ended")?;
        self.seen.push(event.clone());
        Ok(event)
    }

    /// Passes over events until one is wanted.
    pub fn until<T>(&mut self, mut wanted: impl FnMut(&ContainerEvent) -> Option<T>) -> Result<T> {
        loop {
            if let Some(found) = wanted(&self.next()?) {
                return Ok(found);
            }
        }
    }

    /// Passes over events until everything that exists was told.
    pub fn until_synced(&mut self) -> Result<()> {
        self.until(|event| matches!(event, ContainerEvent::Synced).then_some(()))
    }

    /// Passes over events until a container is described.
    pub fn until_known(&mut self, id: &str) -> Result<Container> {
        self.until(|event| match event {
            ContainerEvent::Known(container) if container.key.id == id => Some((**container).clone()),
            _ => None,
        })
    }

    /// The next event, which must be of this container's description.
    pub fn next_known(&mut self) -> Result<Container> {
        match self.next()? {
            ContainerEvent::Known(container) => Ok(*container),
            other => bail!("a description was expected, not {other:?}"),
        }
    }
}
