//! Any runtime by the Container Runtime Interface, `runtime.v1`: for CRI-O and others without an API of their own.
//!
//! Weaker than [`crate::Containerd`]: a container is seen when the runtime tells (CRI-O with `enable_pod_events`), else
//! at the next look, once a second. It may have run for that long before it is known by name; until then the caller
//! can only go by the pod's UID in its cgroup's path.

mod info;
mod watch;

use std::{path::Path, time::Duration};

use containerd_client::tonic::{Code, Response, Status, transport::Channel};
use k8s_cri::v1::{
    ContainerStatusRequest, ListContainersRequest, ListPodSandboxRequest, PodSandboxFilter, PodSandboxStatusRequest,
    StopContainerRequest, StopPodSandboxRequest, VersionRequest, runtime_service_client::RuntimeServiceClient,
};
use tokio::sync::mpsc;

use crate::{ContainerEvent, ContainerKey, Error, containerd::innermost, error::describe};

/// The namespace in the [`ContainerKey`]s of CRI, which has none.
pub const CRI_NAMESPACE: &str = "cri";

/// Longest that the runtime may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Verbose answers hold whole specs.
const LARGEST_ANSWER: usize = 64 << 20;

/// A runtime, by the socket of its CRI.
#[derive(Clone, Debug)]
pub struct Cri {
    client: RuntimeServiceClient<Channel>,
}

impl Cri {
    /// Connects to the runtime at `socket`. `option` is the command line's option for the socket: errors name it.
    pub async fn connect(socket: &Path, option: &'static str) -> Result<Self, Error> {
        let (runtime, path) = ("CRI runtime", socket.to_path_buf());
        let channel = match containerd_client::connect(socket).await {
            Ok(channel) => channel,
            Err(e) => return Err(Error::NoRuntime { runtime, socket: path, reason: innermost(&e), option }),
        };
        let mut client = RuntimeServiceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER);
        if let Err(status) = ask(client.version(VersionRequest::default())).await {
            let reason = match status.code() {
                Code::Unimplemented => "it does not speak runtime.v1 (is its CRI plug-in off?)".to_owned(),
                _ => describe(&status),
            };
            return Err(Error::NotTheRuntime { runtime, socket: path, reason, option });
        }
        Ok(Self { client })
    }

    /// Begins to tell what exists and what happens, until the receiver is dropped. Must be called within tokio.
    pub fn watch(&self) -> mpsc::Receiver<ContainerEvent> {
        let (sender, receiver) = mpsc::channel(1024);
        tokio::spawn(watch::run(self.clone(), sender));
        receiver
    }

    /// Has the runtime kill a container, or a sandbox with all of its pod's containers. One that is gone is no error.
    pub async fn stop(&self, key: &ContainerKey) -> Result<(), Error> {
        let mut client = self.client.clone();
        let id = key.id.clone();
        let filter = Some(PodSandboxFilter { id: id.clone(), ..PodSandboxFilter::default() });
        let sandboxes = ask(client.list_pod_sandbox(ListPodSandboxRequest { filter })).await;
        let sandboxes = sandboxes.map_err(|status| failed("listing pod sandboxes".to_owned(), status))?.into_inner();
        let stopped = if sandboxes.items.iter().any(|sandbox| sandbox.id == id) {
            ask(client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id })).await.map(drop)
        } else {
            ask(client.stop_container(StopContainerRequest { container_id: id, timeout: 0 })).await.map(drop)
        };
        match stopped {
            Err(status) if status.code() != Code::NotFound => Err(failed(format!("stopping container {key}"), status)),
            _ => Ok(()),
        }
    }

    async fn sandboxes(&self) -> Result<Vec<k8s_cri::v1::PodSandbox>, Error> {
        let answer = ask(self.client.clone().list_pod_sandbox(ListPodSandboxRequest::default())).await;
        Ok(answer.map_err(|status| failed("listing pod sandboxes".to_owned(), status))?.into_inner().items)
    }

    async fn containers(&self) -> Result<Vec<k8s_cri::v1::Container>, Error> {
        let answer = ask(self.client.clone().list_containers(ListContainersRequest::default())).await;
        Ok(answer.map_err(|status| failed("listing containers".to_owned(), status))?.into_inner().containers)
    }

    /// Verbose status of a sandbox; `None` if it is gone.
    async fn sandbox_status(&self, id: &str) -> Result<Option<k8s_cri::v1::PodSandboxStatusResponse>, Error> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        match ask(self.client.clone().pod_sandbox_status(request)).await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed(format!("asking for pod sandbox {id}"), status)),
        }
    }

    /// Verbose status of a container; `None` if it is gone.
    async fn container_status(&self, id: &str) -> Result<Option<k8s_cri::v1::ContainerStatusResponse>, Error> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        match ask(self.client.clone().container_status(request)).await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed(format!("asking for container {id}"), status)),
        }
    }
}

async fn ask<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<Response<T>, Status> {
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {} s", PATIENCE.as_secs()))))
}

fn failed(what: String, status: Status) -> Error {
    Error::Request { what, status: Box::new(status) }
}
