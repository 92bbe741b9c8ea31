//! containerd by its own API: metadata, events, tasks.

mod record;
mod watch;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use containerd_client::{
    services::v1::{
        Container as Record, GetContainerRequest, GetImageRequest, KillRequest, ListContainersRequest,
        ListTasksRequest, WaitRequest, containers_client::ContainersClient, images_client::ImagesClient,
        tasks_client::TasksClient, version_client::VersionClient,
    },
    tonic::{Code, Request, Response, Status, transport::Channel},
    types::v1::Process,
};
use tokio::sync::mpsc;

use crate::{ContainerEvent, ContainerKey, Error};

/// Where containerd listens unless it is told otherwise.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// The namespaces of ctr and nerdctl, of Kubernetes, and of Docker.
pub const DEFAULT_NAMESPACES: [&str; 3] = ["default", "k8s.io", "moby"];

/// Longest that containerd may take for an answer, and a killed container to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listing of 1,000 containers with their specs is some 10 MiB; gRPC's usual limit is 4.
const LARGEST_ANSWER: usize = 64 << 20;

/// A containerd, by its socket.
#[derive(Clone, Debug)]
pub struct Containerd {
    channel: Channel,
    namespaces: Vec<String>,
}

impl Containerd {
    /// Connects to the containerd at `socket`, whose containers of `namespaces` matter; a namespace need not exist yet.
    /// `option` is the command line's option for the socket: errors name it.
    pub async fn connect(socket: &Path, namespaces: &[String], option: &'static str) -> Result<Self, Error> {
        if let Some(bad) = namespaces.iter().find(|namespace| !is_namespace(namespace)) {
            return Err(Error::BadNamespace(bad.clone()));
        }
        let (runtime, path) = ("containerd", PathBuf::from(socket));
        let channel = match containerd_client::connect(socket).await {
            Ok(channel) => channel,
            Err(e) => {
                return Err(Error::NoRuntime { runtime, socket: path, reason: innermost(&e), option });
            }
        };
        let version = VersionClient::new(channel.clone()).version(()).await;
        if let Err(status) = version {
            return Err(Error::NotTheRuntime {
                runtime,
                socket: path,
                reason: crate::error::describe(&status),
                option,
            });
        }
        Ok(Self { channel, namespaces: namespaces.to_vec() })
    }

    /// Begins to tell what exists and what happens, until the receiver is dropped. Must be called within tokio.
    pub fn watch(&self) -> mpsc::Receiver<ContainerEvent> {
        let (sender, receiver) = mpsc::channel(1024);
        tokio::spawn(watch::run(self.clone(), sender));
        receiver
    }

    /// Kills every process of the container and waits until it has ended (at most 10 s). The ended task is left to who
    /// started it, with its exit status. A container or task that is gone is no error.
    pub async fn stop(&self, key: &ContainerKey) -> Result<(), Error> {
        let mut tasks = self.tasks();
        let id = &key.id;
        let kill = KillRequest { container_id: id.clone(), signal: 9, all: true, ..KillRequest::default() };
        // Failed precondition: its first process has ended. What it left behind is for the kernel's side to kill.
        match ask(tasks.kill(request(&key.namespace, kill)?)).await {
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            Err(status) if status.code() != Code::FailedPrecondition => {
                return Err(failed(format!("killing container {key}"), status));
            }
            _ => {}
        }
        let wait = WaitRequest { container_id: id.clone(), ..WaitRequest::default() };
        match ask(tasks.wait(request(&key.namespace, wait)?)).await {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) if status.code() == Code::DeadlineExceeded => {
                Err(Error::DidNotEnd(key.to_string(), PATIENCE.as_secs()))
            }
            Err(status) => Err(failed(format!("waiting for container {key}"), status)),
            Ok(_) => Ok(()),
        }
    }

    /// containerd's record of a container; `None` if there is none.
    async fn record(&self, key: &ContainerKey) -> Result<Option<Record>, Error> {
        let get = request(&key.namespace, GetContainerRequest { id: key.id.clone() })?;
        match ask(self.containers().get(get)).await {
            Ok(answer) => Ok(answer.into_inner().container),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed(format!("asking for container {key}"), status)),
        }
    }

    /// All records of a namespace.
    async fn records(&self, namespace: &str) -> Result<Vec<Record>, Error> {
        let list = request(namespace, ListContainersRequest::default())?;
        let answer = ask(self.containers().list(list)).await;
        let answer = answer.map_err(|status| failed(format!("listing the containers of {namespace}"), status))?;
        Ok(answer.into_inner().containers)
    }

    /// The first processes of all containers of a namespace.
    async fn processes(&self, namespace: &str) -> Result<Vec<Process>, Error> {
        let list = request(namespace, ListTasksRequest::default())?;
        let answer = ask(self.tasks().list(list)).await;
        let answer = answer.map_err(|status| failed(format!("listing the tasks of {namespace}"), status))?;
        Ok(answer.into_inner().tasks)
    }

    /// The digest that an image's reference stands for now; `None` if containerd does not know it (Docker has a
    /// store of its own, and an image may have been deleted).
    async fn digest(&self, namespace: &str, image: &str) -> Result<Option<String>, Error> {
        if image.is_empty() {
            return Ok(None);
        }
        let get = request(namespace, GetImageRequest { name: image.to_owned() })?;
        match ask(ImagesClient::new(self.channel.clone()).get(get)).await {
            Ok(answer) => Ok(answer.into_inner().image.and_then(|image| image.target).map(|target| target.digest)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed(format!("asking for image {image}"), status)),
        }
    }

    fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }
}

/// A request about a namespace.
fn request<T>(namespace: &str, message: T) -> Result<Request<T>, Error> {
    let mut request = Request::new(message);
    let value = namespace.parse().map_err(|_| Error::BadNamespace(namespace.to_owned()))?;
    request.metadata_mut().insert("containerd-namespace", value);
    Ok(request)
}

/// Gives up on an answer after [`PATIENCE`]: a containerd that hangs is as bad as one that is gone.
async fn ask<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<Response<T>, Status> {
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {} s", PATIENCE.as_secs()))))
}

fn failed(what: String, status: Status) -> Error {
    Error::Request { what, status: Box::new(status) }
}

/// tonic says "transport error"; the reason is at the bottom.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// containerd's rule for identifiers.
fn is_namespace(name: &str) -> bool {
    let ends_well = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    name.len() <= 76 && name.split(['.', '_', '-']).all(ends_well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_follow_containerds_rule() {
        for good in ["default", "k8s.io", "moby", "rf-1-2", "a_b"] {
            assert!(is_namespace(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "a b", "a,topic==x", "a\"", &"x".repeat(77)] {
            assert!(!is_namespace(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn nobody_at_the_socket_is_said_with_path_and_option() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let socket = directory.path().join("none.sock");
        let error = Containerd::connect(&socket, &[], "--containerd").await.expect_err("nobody listens").to_string();
        let expected = format!(
            "no containerd at {}: No such file or directory (os error 2); start it, or name its socket with --containerd",
            socket.display()
        );
        assert_eq!(error, expected);
    }

    #[tokio::test]
    async fn somebody_else_at_the_socket_is_told_apart() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let socket = directory.path().join("other.sock");
        let listener = tokio::net::UnixListener::bind(&socket).expect("bind");
        let other = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        });
        let error = Containerd::connect(&socket, &[], "--containerd").await.expect_err("not containerd").to_string();
        other.abort();
        assert!(error.contains(&socket.display().to_string()) && error.ends_with("with --containerd"), "{error}");
    }

    #[tokio::test]
    async fn a_bad_namespace_is_named_before_anything_is_asked() {
        let bad = Containerd::connect(Path::new("/nonexistent"), &["a b".to_owned()], "--containerd").await;
        assert!(matches!(bad, Err(Error::BadNamespace(name)) if name == "a b"));
    }
}
