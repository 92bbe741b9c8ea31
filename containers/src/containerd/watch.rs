//! Following containerd for ever.

use std::{convert::Infallible, time::Duration};

use containerd_client::{
    events::{ContainerCreate, ContainerDelete, ContainerUpdate, TaskCreate, TaskExit, TaskStart},
    services::v1::{PublishRequest, SubscribeRequest, events_client::EventsClient},
    tonic::{Status, Streaming},
    types::{Envelope, v1::Status as TaskStatus},
};
use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Containerd, failed, record::Parsed, request};
use crate::{
    Container, ContainerEvent, ContainerKey, Error, Kind,
    backoff::Backoff,
    state::{State, Task},
};

/// Our own event, by which we learn that a subscription is in force.
const READY_TOPIC: &str = "/ringfence/ready";

/// How often that event is published until it comes back.
const READY_INTERVAL: Duration = Duration::from_millis(20);

/// Tells everything to `sender` until its receiver is dropped.
pub async fn run(containerd: Containerd, sender: mpsc::Sender<ContainerEvent>) {
    let mut watch = Watch { containerd, sender, state: State::default(), backoff: Backoff::new() };
    loop {
        let reason = match watch.follow().await {
            Ok(Gone) => return,
            Err(error) => error.to_string(),
        };
        debug!(reason, "lost containerd");
        if watch.sender.send(ContainerEvent::Disconnected { reason }).await.is_err() {
            return;
        }
        tokio::time::sleep(watch.backoff.next()).await;
    }
}

/// Nobody listens any more.
struct Gone;

struct Watch {
    containerd: Containerd,
    sender: mpsc::Sender<ContainerEvent>,
    state: State,
    backoff: Backoff,
}

impl Watch {
    /// Subscribes, tells what exists, then what happens. Listing comes second, so nothing falls in between; what then
    /// comes twice, the state knows.
    async fn follow(&mut self) -> Result<Gone, Error> {
        let mut events = self.subscribe().await?;
        let listing = self.list().await?;
        let news = self.state.all(listing);
        if self.send(news).await.is_err() || self.send([ContainerEvent::Synced]).await.is_err() {
            return Ok(Gone);
        }
        self.backoff.reset();
        loop {
            let envelope = tokio::select! {
                envelope = events.message() => envelope,
                () = self.sender.closed() => return Ok(Gone),
            };
            let ended = || Status::unavailable("containerd ended the stream of events");
            let envelope = envelope.and_then(|envelope| envelope.ok_or_else(ended));
            let envelope = envelope.map_err(|status| failed("following events".to_owned(), status))?;
            let news = self.news(&envelope).await?;
            if self.send(news).await.is_err() {
                return Ok(Gone);
            }
        }
    }

    /// A subscription that is in force. containerd says nothing about that, not even the headers of its answer, before
    /// the first event; so we publish one ourselves until it comes back.
    async fn subscribe(&self) -> Result<Streaming<Envelope>, Error> {
        let Some(home) = self.containerd.namespaces.first() else {
            return Err(Error::BadNamespace(String::new()));
        };
        let topics = r#"topic~="^/(containers/|tasks/(create|start|exit)$)""#;
        let mut filters: Vec<String> =
            self.containerd.namespaces.iter().map(|namespace| format!("namespace=={namespace},{topics}")).collect();
        filters.push(format!("namespace=={home},topic==\"{READY_TOPIC}\""));
        let mut client = EventsClient::new(self.containerd.channel.clone());
        let mut publisher = client.clone();
        let subscription = client.subscribe(SubscribeRequest { filters });
        let publishing = async {
            loop {
                let event = Some(Any { type_url: "google.protobuf.Empty".to_owned(), value: Vec::new() });
                let ready = request(home, PublishRequest { topic: READY_TOPIC.to_owned(), event })?;
                if let Err(status) = super::ask(publisher.publish(ready)).await {
                    return Err::<Infallible, Error>(failed("publishing an event".to_owned(), status));
                }
                tokio::time::sleep(READY_INTERVAL).await;
            }
        };
        tokio::select! {
            answer = super::ask(subscription) => {
                Ok(answer.map_err(|status| failed("subscribing to events".to_owned(), status))?.into_inner())
            }
            Err(error) = publishing => Err(error),
        }
    }

    /// All containers with their first processes, sandboxes first.
    async fn list(&self) -> Result<Vec<(Container, Option<Task>)>, Error> {
        let mut listing: Vec<(Container, Option<Task>)> = Vec::new();
        for namespace in &self.containerd.namespaces {
            let records = self.containerd.records(namespace).await?;
            let processes = self.containerd.processes(namespace).await?;
            let mut parsed: Vec<Parsed> =
                records.into_iter().filter_map(|record| readable(Parsed::new(namespace, record))).collect();
            parsed.sort_by_key(|parsed| parsed.kind() != Kind::Sandbox);
            for parsed in parsed {
                let digest = self.containerd.digest(namespace, parsed.image()).await?;
                let sandbox = parsed.sandbox();
                let sandbox = listing.iter().find(|(container, _)| Some(&container.key) == sandbox.as_ref());
                let container = parsed.container(digest, sandbox.map(|(sandbox, _)| &sandbox.labels));
                let process = processes.iter().find(|process| process.id == container.key.id);
                let task = process.and_then(|process| match process.status() {
                    TaskStatus::Created => Some(Task { pid: process.pid, started: false }),
                    TaskStatus::Running | TaskStatus::Paused | TaskStatus::Pausing => {
                        Some(Task { pid: process.pid, started: true })
                    }
                    TaskStatus::Stopped | TaskStatus::Unknown => None,
                });
                listing.push((container, task));
            }
        }
        Ok(listing)
    }

    /// What an event means.
    async fn news(&mut self, envelope: &Envelope) -> Result<Vec<ContainerEvent>, Error> {
        let namespace = &envelope.namespace;
        let bytes = envelope.event.as_ref().map(|event| event.value.as_slice()).unwrap_or_default();
        let news = match envelope.topic.as_str() {
            "/containers/create" => {
                let Some(event) = decoded::<ContainerCreate>(envelope, bytes) else { return Ok(Vec::new()) };
                self.described(&ContainerKey::new(namespace, event.id), Some(&event.image)).await?.into_iter().collect()
            }
            "/containers/update" => {
                let Some(event) = decoded::<ContainerUpdate>(envelope, bytes) else { return Ok(Vec::new()) };
                self.described(&ContainerKey::new(namespace, event.id), None).await?.into_iter().collect()
            }
            "/containers/delete" => {
                let Some(event) = decoded::<ContainerDelete>(envelope, bytes) else { return Ok(Vec::new()) };
                let key = ContainerKey::new(namespace, event.id);
                // The word may be older than a container that has got the same id since.
                if self.containerd.record(&key).await?.is_some() { Vec::new() } else { self.state.removed(&key) }
            }
            "/tasks/create" => {
                let Some(event) = decoded::<TaskCreate>(envelope, bytes) else { return Ok(Vec::new()) };
                let task = Task { pid: event.pid, started: false };
                self.state.task(&ContainerKey::new(namespace, event.container_id), task)
            }
            "/tasks/start" => {
                let Some(event) = decoded::<TaskStart>(envelope, bytes) else { return Ok(Vec::new()) };
                let task = Task { pid: event.pid, started: true };
                self.state.task(&ContainerKey::new(namespace, event.container_id), task)
            }
            "/tasks/exit" => {
                let Some(event) = decoded::<TaskExit>(envelope, bytes) else { return Ok(Vec::new()) };
                let key = ContainerKey::new(namespace, event.container_id);
                self.state.exited(&key, event.pid, Some(event.exit_status)).into_iter().collect()
            }
            _ => Vec::new(),
        };
        Ok(news)
    }

    /// Asks for a container's record. `image`: its reference, if it is known, so that both questions go out at once:
    /// the container's task comes as soon as its creator gets to it, and by then it must be known.
    async fn described(&mut self, key: &ContainerKey, image: Option<&str>) -> Result<Option<ContainerEvent>, Error> {
        let (record, digest) = tokio::join!(
            self.containerd.record(key),
            self.containerd.digest(&key.namespace, image.unwrap_or_default())
        );
        let (Some(record), mut digest) = (record?, digest?) else { return Ok(None) };
        let Some(parsed) = readable(Parsed::new(&key.namespace, record)) else { return Ok(None) };
        if image != Some(parsed.image()) {
            digest = self.containerd.digest(&key.namespace, parsed.image()).await?;
        }
        let labels = match parsed.sandbox() {
            None => None,
            Some(sandbox) => match self.state.get(&sandbox) {
                Some(sandbox) => Some(sandbox.labels.clone()),
                None => self.containerd.record(&sandbox).await?.map(|record| record.labels.into_iter().collect()),
            },
        };
        Ok(self.state.known(parsed.container(digest, labels.as_ref())))
    }

    async fn send(&self, events: impl IntoIterator<Item = ContainerEvent>) -> Result<(), Gone> {
        for event in events {
            self.sender.send(event).await.map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// One container that cannot be understood must not hide the others.
fn readable(parsed: Result<Parsed, Error>) -> Option<Parsed> {
    parsed.inspect_err(|error| warn!(%error, "a container is left out")).ok()
}

fn decoded<M: Message + Default>(envelope: &Envelope, bytes: &[u8]) -> Option<M> {
    M::decode(bytes).inspect_err(|error| warn!(topic = envelope.topic, %error, "an event cannot be decoded")).ok()
}
