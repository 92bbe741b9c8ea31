//! Hears the API server and the container runtime, and tells the agent what follows.

use super::{
    objects::Objects,
    pods::{Gate, Outcome, Pods, unknown},
    watch::Heard,
};
use crate::agent::Command;
use ringfence_containers::ContainerEvent;
use ringfence_policy::Enforced;
use tokio::sync::{mpsc, oneshot};

/// What an ear is made of.
pub struct Ear {
    objects: Objects,
    pods: Pods,
    heard: mpsc::Receiver<Heard>,
    runtime: mpsc::Receiver<ContainerEvent>,
    enforced: Enforced,
    /// The runtime has told everything once.
    runtime_synced: bool,
    synced: bool,
}

/// The agent's ends.
pub struct Lines {
    /// Pods.
    pub containers: mpsc::Sender<ContainerEvent>,
    /// What the cluster enforces.
    pub changes: mpsc::Sender<Enforced>,
    /// Isolations and releases that users asked for by labels.
    pub commands: mpsc::Sender<Command>,
    /// What has to be said at the API server: conditions of readiness gates.
    pub gates: mpsc::UnboundedSender<Gate>,
}

/// The agent is gone.
struct Gone;

impl From<mpsc::error::SendError<ContainerEvent>> for Gone {
    fn from(_: mpsc::error::SendError<ContainerEvent>) -> Self {
        Self
    }
}

impl Ear {
    /// Listens until the API server has told what is enforced: before that there is nothing to start with. What an
    /// earlier enforcer left in the kernel stays in force meanwhile. Pods come later.
    pub async fn open(
        mut objects: Objects,
        mut heard: mpsc::Receiver<Heard>,
        runtime: mpsc::Receiver<ContainerEvent>,
    ) -> anyhow::Result<(Self, Enforced)> {
        let mut pods = Pods::default();
        while !objects.synced() {
            match heard.recv().await {
                Some(Heard::Ruleset(news)) => objects.ruleset(news),
                Some(Heard::Policy(news)) => objects.policy(news),
                Some(Heard::Namespace(news)) => objects.namespace(news),
                // Told again below, with their namespaces' labels.
                Some(Heard::Pod(news)) => drop(pods.object(*news, &|_| ringfence_policy::Labels::new())),
                None => anyhow::bail!("the watches at the API server have ended"),
            }
        }
        let enforced = objects.enforced(None);
        let ear =
            Self { objects, pods, heard, runtime, enforced: enforced.clone(), runtime_synced: false, synced: false };
        Ok((ear, enforced))
    }

    /// Tells the agent, until it is gone.
    pub async fn listen(mut self, lines: Lines) {
        // The agent hears of wishes only once it has heard of all pods: they must not keep the pods waiting.
        let (wishes, granted) = mpsc::unbounded_channel();
        let (_, ()) = tokio::join!(self.follow(&lines, wishes), grant(granted, &lines.commands));
    }

    async fn follow(&mut self, lines: &Lines, wishes: mpsc::UnboundedSender<Wish>) -> Result<(), Gone> {
        lines.containers.send(ContainerEvent::Known(Box::new(unknown()))).await?;
        let outcomes = self.pods.retell(&|namespace| self.objects.namespace_labels(namespace));
        self.pass_on(outcomes, lines, &wishes).await?;
        loop {
            let outcomes = tokio::select! {
                heard = self.heard.recv() => self.hear(heard.ok_or(Gone)?, lines).await?,
                event = self.runtime.recv() => {
                    let labels = |namespace: &str| self.objects.namespace_labels(namespace);
                    self.pods.container(event.ok_or(Gone)?, &labels)
                }
            };
            self.pass_on(outcomes, lines, &wishes).await?;
        }
    }

    async fn hear(&mut self, heard: Heard, lines: &Lines) -> Result<Vec<Outcome>, Gone> {
        match heard {
            Heard::Pod(news) => {
                let labels = |namespace: &str| self.objects.namespace_labels(namespace);
                return Ok(self.pods.object(*news, &labels));
            }
            Heard::Namespace(news) => {
                self.objects.namespace(news);
                let labels = |namespace: &str| self.objects.namespace_labels(namespace);
                return Ok(self.pods.relabelled(&labels));
            }
            Heard::Ruleset(news) => self.objects.ruleset(news),
            Heard::Policy(news) => self.objects.policy(news),
        }
        let enforced = self.objects.enforced(Some(&self.enforced));
        if enforced != self.enforced {
            self.enforced = enforced.clone();
            lines.changes.send(enforced).await.map_err(|_| Gone)?;
        }
        Ok(Vec::new())
    }

    async fn pass_on(
        &mut self,
        outcomes: Vec<Outcome>,
        lines: &Lines,
        wishes: &mpsc::UnboundedSender<Wish>,
    ) -> Result<(), Gone> {
        for outcome in outcomes {
            match outcome {
                Outcome::Container(ContainerEvent::Synced) => self.runtime_synced = true,
                Outcome::Container(event) => lines.containers.send(event).await?,
                Outcome::Isolated(uid) => wishes.send(Wish::Isolate(uid)).map_err(|_| Gone)?,
                Outcome::Released(uid) => wishes.send(Wish::Release(uid)).map_err(|_| Gone)?,
                Outcome::Gate(gate) => lines.gates.send(gate).map_err(|_| Gone)?,
            }
        }
        if self.runtime_synced && self.pods.synced() && !self.synced {
            self.synced = true;
            lines.containers.send(ContainerEvent::Synced).await?;
        }
        Ok(())
    }
}

/// What users ask for by a pod's label.
enum Wish {
    Isolate(String),
    Release(String),
}

/// Passes wishes on one after the other, in their order.
async fn grant(mut wishes: mpsc::UnboundedReceiver<Wish>, commands: &mpsc::Sender<Command>) {
    while let Some(wish) = wishes.recv().await {
        let (answer, answered) = oneshot::channel();
        let command = match wish {
            Wish::Isolate(uid) => Command::Isolate(uid, Some("its label says so".to_owned()), answer),
            Wish::Release(uid) => Command::Release(uid, answer),
        };
        if commands.send(command).await.is_err() {
            return;
        }
        if let Ok(Err(problem)) = answered.await {
            tracing::warn!("{problem}");
        }
    }
}
