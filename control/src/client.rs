//! The clients' side of the protocol.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
};

use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{ContainerStatus, EventFilter, Explanation, Request, Response, Status, Violation, printable};

/// A connection to the enforcer.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    path: PathBuf,
}

/// Why the enforcer could not be asked, or did not do it.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("is the enforcer running? expected its socket at {0}; --socket to change")]
    NotRunning(PathBuf),
    /// The socket is root's.
    #[error("no permission to open {0}: only root may talk to the enforcer")]
    Permission(PathBuf),
    /// The connection failed.
    #[error("connection to the enforcer at {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The enforcer hung up instead of answering.
    #[error("the enforcer at {0} hung up before it answered")]
    HungUp(PathBuf),
    /// The answer is none that this version knows.
    #[error("the enforcer at {path} answered what this version does not understand: {why}")]
    Malformed {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the answer.
        why: String,
    },
    /// The enforcer's own sentence.
    #[error("{0}")]
    Refused(String),
}

impl Client {
    /// Connects to the enforcer's socket.
    pub async fn connect(path: impl Into<PathBuf>) -> Result<Self, ClientError> {
        let path = path.into();
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(source) => return Err(unreachable(path, source)),
        };
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: BufReader::new(reader), writer, path })
    }

    /// The state of the enforcer.
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        match self.ask(&Request::Status).await? {
            Response::Status(status) => Ok(*status),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The governed containers.
    pub async fn containers(&mut self) -> Result<Vec<ContainerStatus>, ClientError> {
        match self.ask(&Request::Containers).await? {
            Response::Containers(containers) => Ok(containers),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Cuts a container off the network; the enforcer's sentence about it.
    pub async fn isolate(&mut self, container: &str, reason: Option<&str>) -> Result<String, ClientError> {
        let request = Request::Isolate { container: container.to_owned(), reason: reason.map(str::to_owned) };
        self.ask_to_do(&request).await
    }

    /// Lifts an isolation; the enforcer's sentence about it.
    pub async fn release(&mut self, container: &str) -> Result<String, ClientError> {
        self.ask_to_do(&Request::Release { container: container.to_owned() }).await
    }

    /// Which rulesets govern a container.
    pub async fn explain(&mut self, container: &str) -> Result<Explanation, ClientError> {
        match self.ask(&Request::Explain { container: container.to_owned() }).await? {
            Response::Explanation(explanation) => Ok(*explanation),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Events that are still held, and with `follow` those to come.
    pub async fn events(mut self, follow: bool, filter: EventFilter) -> Result<Events, ClientError> {
        self.send(&Request::Events { follow, filter }).await?;
        Ok(Events(self))
    }

    async fn ask_to_do(&mut self, request: &Request) -> Result<String, ClientError> {
        match self.ask(request).await? {
            Response::Done(sentence) => Ok(printable(&sentence)),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        self.send(request).await?;
        self.receive().await?.ok_or_else(|| ClientError::HungUp(self.path.clone()))
    }

    async fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).expect("requests are plain data");
        line.push(b'\n');
        match self.writer.write_all(&line).await {
            // A server that refuses the peer says so and closes at once: its sentence is still to be read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(|source| ClientError::Io { path: self.path.clone(), source }),
        }
    }

    /// The next response; none when the enforcer has hung up.
    async fn receive(&mut self) -> Result<Option<Response>, ClientError> {
        let mut line = Vec::new();
        let read = self.reader.read_until(b'\n', &mut line).await;
        if read.map_err(|source| ClientError::Io { path: self.path.clone(), source })? == 0 {
            return Ok(None);
        }
        match serde_json::from_slice(&line) {
            Ok(Response::Error(sentence)) => Err(ClientError::Refused(printable(&sentence))),
            Ok(response) => Ok(Some(response)),
            Err(error) => Err(ClientError::Malformed { path: self.path.clone(), why: error.to_string() }),
        }
    }

    fn unexpected(&self, response: &Response) -> ClientError {
        let why = match response {
            Response::Status(_) => "a status",
            Response::Containers(_) => "containers",
            Response::Event(_) | Response::Lost(_) | Response::End => "events",
            Response::Done(_) => "a confirmation",
            Response::Explanation(_) => "an explanation",
            Response::Error(_) => "an error",
        };
        ClientError::Malformed { path: self.path.clone(), why: format!("{why} that was not asked for") }
    }
}

/// Events as they arrive.
#[derive(Debug)]
pub struct Events(Client);

/// One step of [`Events`].
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// A violation.
    Event(Box<Violation>),
    /// That many events are missing here, because this client did not read fast enough.
    Lost(u64),
}

impl Events {
    /// The next one; none at the end of what is held. With `follow` the enforcer hanging up is an error.
    pub async fn next(&mut self) -> Result<Option<Next>, ClientError> {
        match self.0.receive().await? {
            Some(Response::Event(violation)) => Ok(Some(Next::Event(violation))),
            Some(Response::Lost(lost)) => Ok(Some(Next::Lost(lost))),
            Some(Response::End) => Ok(None),
            Some(other) => Err(self.0.unexpected(&other)),
            None => Err(ClientError::HungUp(self.0.path.clone())),
        }
    }
}

fn unreachable(path: PathBuf, source: io::Error) -> ClientError {
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning(path),
        ErrorKind::PermissionDenied => ClientError::Permission(path),
        _ => ClientError::Io { path, source },
    }
}
