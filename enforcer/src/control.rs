//! Answers `ringfence`: each question goes to the agent and comes back.

use crate::agent::Command;
use ringfence_control::{Explanation, Feed, Handler, Refusal, Status};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The agent's side of the control socket.
pub struct Control {
    commands: mpsc::Sender<Command>,
    feed: Arc<Feed>,
}

impl Control {
    /// Sends questions into `commands`.
    pub fn new(commands: mpsc::Sender<Command>, feed: Arc<Feed>) -> Self {
        Self { commands, feed }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Command) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| Refusal::from("the enforcer is stopping");
        self.commands.send(command(answer)).await.map_err(|_| Refusal::from("the enforcer is stopping"))?;
        answered.await.map_err(gone)?
    }
}

impl Handler for Control {
    async fn status(&self) -> Result<Status, Refusal> {
        self.ask(Command::Status).await
    }

    async fn isolate(&self, container: &str, reason: Option<&str>) -> Result<String, Refusal> {
        let (container, reason) = (container.to_owned(), reason.map(str::to_owned));
        self.ask(|answer| Command::Isolate(container, reason, answer)).await
    }

    async fn release(&self, container: &str) -> Result<String, Refusal> {
        let container = container.to_owned();
        self.ask(|answer| Command::Release(container, answer)).await
    }

    async fn explain(&self, container: &str) -> Result<Explanation, Refusal> {
        let container = container.to_owned();
        self.ask(|answer| Command::Explain(container, answer)).await
    }

    fn feed(&self) -> &Feed {
        &self.feed
    }
}
