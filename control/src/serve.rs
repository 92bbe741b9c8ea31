//! The enforcer's side of the protocol.

use std::{future::Future, sync::Arc, time::Duration};

use serde_json::error::Category;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::{Semaphore, broadcast::error::RecvError},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, warn};

use crate::{
    ContainerStatus, EventFilter, Explanation, Feed, Listener, MAX_REQUEST, Request, Response, Status,
    feed::Subscription,
};

/// Connections that are served at once; further ones wait.
const CONNECTIONS: usize = 64;
/// How long a client may take to send a request.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a client may leave a response unread before it is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after `accept` failed, which it does while the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the enforcer did not do it: one sentence that names the thing and what would be right.
pub type Refusal = String;

/// What the enforcer can be asked.
///
/// A container is named by its id, the beginning of it, or its name; one that is unknown or ambiguous is a
/// [`Refusal`].
pub trait Handler: Send + Sync + 'static {
    /// The state of the enforcer.
    fn status(&self) -> impl Future<Output = Result<Status, Refusal>> + Send;
    /// The governed containers.
    fn containers(&self) -> impl Future<Output = Result<Vec<ContainerStatus>, Refusal>> + Send {
        async { Ok(self.status().await?.containers) }
    }
    /// Cuts a container off the network; says in one sentence what was done.
    fn isolate(&self, container: &str, reason: Option<&str>) -> impl Future<Output = Result<String, Refusal>> + Send;
    /// Lifts an isolation; says in one sentence what was done.
    fn release(&self, container: &str) -> impl Future<Output = Result<String, Refusal>> + Send;
    /// Which rulesets govern a container.
    fn explain(&self, container: &str) -> impl Future<Output = Result<Explanation, Refusal>> + Send;
    /// Where violations are published.
    fn feed(&self) -> &Feed;
}

/// Answers clients until it is dropped; all connections end with it.
pub async fn serve<H: Handler>(listener: Listener, handler: Arc<H>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        let (stream, allowed) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "no connection could be accepted on {}", listener.path().display());
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let handler = Arc::clone(&handler);
        connections.spawn(async move {
            let _permit = permit;
            let (reader, writer) = stream.into_split();
            let mut connection = Connection { reader: BufReader::new(reader), writer };
            if let Err(Gone(why)) = connection.run(&*handler, allowed).await {
                debug!("a client was dropped: {why}");
            }
        });
    }
}

/// The client went away or was dropped, and why.
struct Gone(String);

impl From<std::io::Error> for Gone {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Connection {
    async fn run(&mut self, handler: &impl Handler, allowed: bool) -> Result<(), Gone> {
        if !allowed {
            return self.send(&Response::Error("only root may talk to the enforcer".to_owned())).await;
        }
        while let Some(line) = self.read_line().await? {
            let response = match serde_json::from_slice::<Request>(&line) {
                Ok(request) => match self.answer(handler, request).await? {
                    Some(response) => response,
                    None => continue,
                },
                Err(error) => Response::Error(malformed(&error)),
            };
            self.send(&response).await?;
        }
        Ok(())
    }

    /// The answer to a request; none if it has been sent already.
    async fn answer(&mut self, handler: &impl Handler, request: Request) -> Result<Option<Response>, Gone> {
        let answer = match request {
            Request::Status => handler.status().await.map(|status| Response::Status(Box::new(status))),
            Request::Containers => handler.containers().await.map(Response::Containers),
            Request::Isolate { container, reason } => {
                handler.isolate(&container, reason.as_deref()).await.map(Response::Done)
            }
            Request::Release { container } => handler.release(&container).await.map(Response::Done),
            Request::Explain { container } => {
                handler.explain(&container).await.map(|explanation| Response::Explanation(Box::new(explanation)))
            }
            Request::Events { follow, filter } => {
                self.send_events(handler.feed().subscribe(), follow, &filter).await?;
                return Ok(None);
            }
        };
        Ok(Some(answer.unwrap_or_else(Response::Error)))
    }

    async fn send_events(&mut self, events: Subscription, follow: bool, filter: &EventFilter) -> Result<(), Gone> {
        let Subscription { recent, mut next } = events;
        for violation in recent.iter().filter(|violation| filter.matches(violation)) {
            self.send(&Response::Event(Box::new((**violation).clone()))).await?;
        }
        // Not held while an idle client is followed.
        drop(recent);
        if !follow {
            return self.send(&Response::End).await;
        }
        loop {
            let received = tokio::select! {
                received = next.recv() => received,
                () = hung_up(&mut self.reader) => return Err(Gone("it hung up".to_owned())),
            };
            match received {
                Ok(violation) if filter.matches(&violation) => {
                    self.send(&Response::Event(Box::new((*violation).clone()))).await?;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => {
                    warn!(lost, "a client that follows events is too slow");
                    self.send(&Response::Lost(lost)).await?;
                }
                Err(RecvError::Closed) => return self.send(&Response::End).await,
            }
        }
    }

    /// The next line; none when the client has hung up.
    async fn read_line(&mut self) -> Result<Option<Vec<u8>>, Gone> {
        let mut line = Vec::new();
        let mut limited = (&mut self.reader).take(MAX_REQUEST as u64);
        let read = timeout(REQUEST_TIMEOUT, limited.read_until(b'\n', &mut line))
            .await
            .map_err(|_| Gone("it sent no request for a minute".to_owned()))??;
        if read == MAX_REQUEST && line.last() != Some(&b'\n') {
            self.send(&Response::Error(format!("the request is longer than {MAX_REQUEST} bytes"))).await?;
            return Err(Gone("its request was too long".to_owned()));
        }
        Ok((read > 0).then_some(line))
    }

    async fn send(&mut self, response: &Response) -> Result<(), Gone> {
        let mut line = serde_json::to_vec(response).map_err(|error| Gone(error.to_string()))?;
        line.push(b'\n');
        timeout(WRITE_TIMEOUT, self.writer.write_all(&line)).await.map_err(|_| {
            warn!("a client that leaves its responses unread is dropped");
            Gone("it did not read".to_owned())
        })??;
        Ok(())
    }
}

/// Waits until the client hangs up; whatever else it sends after its last request is thrown away.
async fn hung_up(reader: &mut BufReader<OwnedReadHalf>) {
    let mut discarded = [0; 256];
    while reader.read(&mut discarded).await.is_ok_and(|read| read > 0) {}
}

/// What is wrong with a request, without the offsets that mean nothing to a reader.
fn malformed(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Data => format!("unknown request: {error}"),
        _ => format!("the request is not one line of JSON: {error}"),
    }
}
