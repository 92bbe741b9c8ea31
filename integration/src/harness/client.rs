//! containerd's API, for threads: each call blocks until it is answered.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, snapshots_client::SnapshotsClient,
};
use containerd_client::services::v1::{
    ApplyRequest, CreateNamespaceRequest, CreateRequest as CreateLeaseRequest, Namespace,
};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateImageRequest, DeleteContainerRequest, Image, UpdateImageRequest,
    WriteAction, WriteContentRequest, containers_client::ContainersClient, content_client::ContentClient,
    diff_client::DiffClient, images_client::ImagesClient, leases_client::LeasesClient,
    namespaces_client::NamespacesClient, tasks_client::TasksClient,
};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Response, Status};
use containerd_client::types::{Descriptor, Mount};
use k8s_cri::v1::{ImageSpec, ImageStatusRequest, image_service_client::ImageServiceClient};
use ringfence_image::{Blob, Built};
use tokio::runtime::Runtime;

/// Everything is made with the overlay snapshotter, as on a Kubernetes node.
pub const SNAPSHOTTER: &str = "overlayfs";

/// Keeps what we store from containerd's garbage collector.
const LEASE: &str = "harness";

/// A guard against hanging.
const LIMIT: Duration = Duration::from_mins(1);
/// The same for what moves a whole layer.
const LAYER_LIMIT: Duration = Duration::from_mins(5);

/// Below what containerd takes in one message.
const CHUNK: usize = 1 << 20;

/// A connection to the node's containerd.
#[derive(Debug)]
pub struct Client {
    runtime: Option<Runtime>,
    channel: Channel,
}

impl Client {
    /// Connects.
    pub fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (sender, receiver) = mpsc::channel();
        let socket = socket.to_path_buf();
        runtime.spawn(async move { sender.send(containerd_client::connect(socket).await) });
        let channel = receiver.recv()??;
        Ok(Self { runtime: Some(runtime), channel })
    }

    /// Asks and waits. Works from any thread, also one that belongs to a tokio runtime.
    pub fn ask<T, F>(&self, call: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        self.ask_within(LIMIT, call)
    }

    /// The same with another limit.
    pub fn ask_within<T, F>(&self, limit: Duration, call: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel();
        let Some(runtime) = &self.runtime else { return Err(Status::cancelled("the client is closed")) };
        runtime.spawn(async move {
            let answer = tokio::time::timeout(limit, call).await;
            let late = || Status::deadline_exceeded(format!("no answer within {limit:?}"));
            sender.send(answer.unwrap_or_else(|_| Err(late())).map(Response::into_inner))
        });
        receiver.recv().unwrap_or_else(|_| Err(Status::cancelled("the client is closed")))
    }

    /// Of tasks.
    pub fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    /// Makes a namespace with the lease that keeps things in it.
    pub fn create_namespace(&self, name: &str) -> Result<()> {
        let namespace = Namespace { name: name.to_owned(), ..Namespace::default() };
        let mut client = NamespacesClient::new(self.channel.clone());
        // Without the header it is made all the same, but answered with an error.
        let create = plain(name, CreateNamespaceRequest { namespace: Some(namespace) });
        existing(self.ask(async move { client.create(create).await }))?;
        let mut client = LeasesClient::new(self.channel.clone());
        let lease = CreateLeaseRequest { id: LEASE.to_owned(), ..CreateLeaseRequest::default() };
        let lease = plain(name, lease);
        existing(self.ask(async move { client.create(lease).await }))
    }

    /// Stores an image and unpacks it.
    pub fn import(&self, namespace: &str, name: &str, built: &Built) -> Result<()> {
        for blob in [&built.layer, &built.config, &built.manifest] {
            self.store(namespace, blob)?;
        }
        self.unpack(namespace, built).context("unpack")?;
        let image = Image { name: name.to_owned(), target: Some(descriptor(&built.manifest)), ..Image::default() };
        let mut client = ImagesClient::new(self.channel.clone());
        let update =
            leased(namespace, UpdateImageRequest { image: Some(image.clone()), ..UpdateImageRequest::default() });
        let create = leased(namespace, CreateImageRequest { image: Some(image), ..CreateImageRequest::default() });
        let create = self.ask({
            let mut client = client.clone();
            async move { client.create(create).await }
        });
        if create.as_ref().is_err_and(|status| status.code() == Code::AlreadyExists) {
            self.ask(async move { client.update(update).await })?;
            return Ok(());
        }
        create.map(drop).context("create the image")
    }

    /// Waits until the CRI has heard of an image: it hears of imports by an event.
    pub fn wait_for_pod_image(&self, name: &str) -> Result<()> {
        let until = Instant::now() + LIMIT;
        loop {
            let mut client = ImageServiceClient::new(self.channel.clone());
            let image = Some(ImageSpec { image: name.to_owned(), ..ImageSpec::default() });
            let status = ImageStatusRequest { image, verbose: false };
            if self.ask(async move { client.image_status(status).await })?.image.is_some() {
                return Ok(());
            }
            ensure!(Instant::now() < until, "the CRI did not hear of image {name}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn store(&self, namespace: &str, blob: &Blob) -> Result<()> {
        let (digest, bytes) = (blob.digest.clone(), blob.bytes.clone());
        let message = move |action: WriteAction, offset: usize, data: &[u8]| WriteContentRequest {
            action: action.into(),
            r#ref: format!("harness-{digest}"),
            total: size(bytes.len()),
            expected: digest.clone(),
            offset: size(offset),
            data: data.to_vec(),
            ..WriteContentRequest::default()
        };
        // Made as they are sent: a layer may be large.
        let bytes = blob.bytes.clone();
        let messages = (0..=bytes.len().div_ceil(CHUNK)).map(move |number| match bytes.chunks(CHUNK).nth(number) {
            Some(chunk) => message(WriteAction::Write, number * CHUNK, chunk),
            None => message(WriteAction::Commit, bytes.len(), &[]),
        });
        let mut client = ContentClient::new(self.channel.clone());
        let write = leased(namespace, futures_util::stream::iter(messages));
        let written = self.ask_within(LAYER_LIMIT, async move {
            let mut answers = client.write(write).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(Response::new(()))
        });
        existing(written).with_context(|| format!("store {}", blob.digest))
    }

    /// With one layer, the layer's digest is also the name of its snapshot.
    fn unpack(&self, namespace: &str, built: &Built) -> Result<()> {
        let key = format!("unpack-{}", built.layer.digest);
        let Some(mounts) = self.prepare(namespace, &key, "")? else { return Ok(()) };
        let mut client = DiffClient::new(self.channel.clone());
        let apply = ApplyRequest { diff: Some(descriptor(&built.layer)), mounts, ..ApplyRequest::default() };
        let apply = leased(namespace, apply);
        self.ask_within(LAYER_LIMIT, async move { client.apply(apply).await })?;
        let name = built.layer.digest.clone();
        let commit =
            CommitSnapshotRequest { snapshotter: SNAPSHOTTER.into(), name, key: key.clone(), ..Default::default() };
        let (mut client, commit) = (self.snapshots(), leased(namespace, commit));
        match self.ask(async move { client.commit(commit).await }) {
            // The same layer under another name.
            Err(status) if status.code() == Code::AlreadyExists => self.remove_snapshot(namespace, &key),
            result => Ok(result?),
        }
    }

    /// A writable snapshot; `None` if there is one with that key.
    pub fn prepare(&self, namespace: &str, key: &str, parent: &str) -> Result<Option<Vec<Mount>>> {
        let prepare = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..PrepareSnapshotRequest::default()
        };
        let (mut client, prepare) = (self.snapshots(), leased(namespace, prepare));
        match self.ask(async move { client.prepare(prepare).await }) {
            Ok(answer) => Ok(Some(answer.mounts)),
            Err(status) if status.code() == Code::AlreadyExists => Ok(None),
            Err(status) => bail!("prepare snapshot {key} on {parent}: {}", status.message()),
        }
    }

    /// Removes a snapshot; one that is gone is no error.
    pub fn remove_snapshot(&self, namespace: &str, key: &str) -> Result<()> {
        let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.to_owned() };
        let (mut client, remove) = (self.snapshots(), plain(namespace, remove));
        missing(self.ask(async move { client.remove(remove).await }))
    }

    /// Records a container.
    pub fn create_container(&self, namespace: &str, container: Container) -> Result<()> {
        let id = container.id.clone();
        let create = leased(namespace, CreateContainerRequest { container: Some(container) });
        let mut client = self.containers();
        self.ask(async move { client.create(create).await }).map(drop).with_context(|| format!("create container {id}"))
    }

    /// Forgets a container; one that is gone is no error.
    pub fn delete_container(&self, namespace: &str, id: &str) -> Result<()> {
        let delete = plain(namespace, DeleteContainerRequest { id: id.to_owned() });
        let mut client = self.containers();
        missing(self.ask(async move { client.delete(delete).await }))
    }

    fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone())
    }

    fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // An ordinary drop waits, which tokio forbids within another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn descriptor(blob: &Blob) -> Descriptor {
    Descriptor {
        media_type: blob.media_type.clone(),
        digest: blob.digest.clone(),
        size: size(blob.bytes.len()),
        ..Descriptor::default()
    }
}

fn size(bytes: usize) -> i64 {
    bytes.try_into().unwrap_or(i64::MAX)
}

/// A request about a namespace.
pub fn plain<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = namespace.parse().expect("our own names are plain ASCII");
    request.metadata_mut().insert("containerd-namespace", value);
    request
}

/// The same, for something that is to stay.
fn leased<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = plain(namespace, message);
    request.metadata_mut().insert("containerd-lease", LEASE.parse().expect("plain ASCII"));
    request
}

/// That it exists already is as good.
fn existing<T>(result: Result<T, Status>) -> Result<()> {
    match result {
        Err(status) if status.code() != Code::AlreadyExists => Err(status.into()),
        _ => Ok(()),
    }
}

/// That it is gone already is as good.
pub fn missing<T>(result: Result<T, Status>) -> Result<()> {
    match result {
        Err(status) if status.code() != Code::NotFound => Err(status.into()),
        _ => Ok(()),
    }
}
