//! Hears the API server and the container runtime, and tells the agent what follows.

use super::{
    memory::{Kind, Memory},
    objects::Objects,
    pods::{Gate, Outcome, Pods, Remembered, unknown},
    watch::Heard,
};
use crate::{agent::Command, rulesets::Compiled};
use ringfence_containers::ContainerEvent;
use ringfence_policy::Labels;
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// How long the API server may take to tell what is enforced, where that is known from before.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an ear is made of.
pub struct Ear {
    objects: Objects,
    pods: Pods,
    memory: Memory,
    heard: mpsc::Receiver<Heard>,
    runtime: mpsc::Receiver<ContainerEvent>,
    /// What is enforced may be something else.
    dirty: bool,
    /// The runtime has told everything once.
    runtime_synced: bool,
    synced: bool,
}

/// The agent's ends.
pub struct Lines {
    /// Pods.
    pub containers: mpsc::Sender<ContainerEvent>,
    /// What the cluster enforces, or why that can't be.
    pub changes: mpsc::Sender<Result<Compiled, String>>,
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
    /// Listens until the API server has told what is enforced: before that there is nothing to start with, unless an
    /// earlier enforcer has left word. What it left in the kernel stays in force meanwhile. Pods come later.
    pub async fn open(
        objects: Objects,
        memory: Memory,
        heard: mpsc::Receiver<Heard>,
        runtime: mpsc::Receiver<ContainerEvent>,
    ) -> anyhow::Result<Self> {
        let mut ear = Self {
            objects,
            pods: Pods::default(),
            memory,
            heard,
            runtime,
            dirty: false,
            runtime_synced: false,
            synced: false,
        };
        for (uid, remembered) in ear.memory.all::<Remembered>(Kind::Pods) {
            let (namespace, labels) = remembered.namespace();
            ear.objects.recall_namespace(namespace, labels);
            ear.pods.recall(uid, remembered);
        }
        if let Ok(listened) = timeout(PATIENCE, ear.listen_for_objects()).await {
            listened?;
        } else if ear.objects.has_policy() {
            tracing::warn!("the API server does not answer: what was in force last is in force, until it does");
            ear.pods.assume();
        } else {
            tracing::warn!("the API server does not answer, and nothing is known from before: waiting for it");
            ear.listen_for_objects().await?;
        }
        Ok(ear)
    }

    /// What is enforced from the start, and why that is not what is asked for.
    pub fn first(&mut self) -> Result<(Compiled, Option<String>), String> {
        self.objects.first()
    }

    async fn listen_for_objects(&mut self) -> anyhow::Result<()> {
        while !self.objects.synced() {
            let heard = self.heard.recv().await;
            // What follows for pods is told again later, with their namespaces' labels.
            drop(self.hear(heard.ok_or_else(|| anyhow::anyhow!("the watches at the API server have ended"))?));
        }
        Ok(())
    }

    /// Tells the agent, until it is gone.
    pub async fn listen(mut self, lines: Lines) {
        // The agent hears of wishes only once it has heard of all pods: they must not keep the pods waiting.
        let (wishes, granted) = mpsc::unbounded_channel();
        let (_, ()) = tokio::join!(self.follow(&lines, wishes), grant(granted, &lines.commands));
    }

    async fn follow(&mut self, lines: &Lines, wishes: mpsc::UnboundedSender<Wish>) -> Result<(), Gone> {
        lines.containers.send(ContainerEvent::Known(Box::new(unknown()))).await?;
        let outcomes = self.pods.retell(&labels(&self.objects));
        self.pass_on(outcomes, lines, &wishes).await?;
        loop {
            let outcomes = tokio::select! {
                biased;
                heard = self.heard.recv() => self.hear(heard.ok_or(Gone)?),
                event = self.runtime.recv() => self.pods.container(event.ok_or(Gone)?, &labels(&self.objects)),
                // Nothing more is waiting: many changes at once are one.
                () = std::future::ready(()), if self.dirty && self.objects.is_settled() => {
                    self.dirty = false;
                    if let Some(change) = self.objects.change() {
                        lines.changes.send(change).await.map_err(|_| Gone)?;
                    }
                    Vec::new()
                }
            };
            self.pass_on(outcomes, lines, &wishes).await?;
        }
    }

    fn hear(&mut self, heard: Heard) -> Vec<Outcome> {
        match heard {
            Heard::Pod(news) => self.pods.object(*news, &labels(&self.objects)),
            Heard::Namespace(news) => {
                self.objects.namespace(news);
                self.pods.relabelled(&labels(&self.objects))
            }
            Heard::Ruleset(news) => {
                self.objects.ruleset(news);
                self.dirty = true;
                Vec::new()
            }
            Heard::Policy(news) => {
                self.objects.policy(news);
                self.dirty = true;
                Vec::new()
            }
        }
    }

    async fn pass_on(
        &mut self,
        outcomes: Vec<Outcome>,
        lines: &Lines,
        wishes: &mpsc::UnboundedSender<Wish>,
    ) -> Result<(), Gone> {
        for outcome in outcomes {
            self.remember(&outcome);
            match outcome {
                Outcome::Container(ContainerEvent::Synced) => self.runtime_synced = true,
                Outcome::Container(event) => lines.containers.send(event).await?,
                Outcome::Forgotten(_) => {}
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

    /// For an enforcer that starts while the API server does not answer.
    fn remember(&self, outcome: &Outcome) {
        let uid = match outcome {
            Outcome::Container(ContainerEvent::Known(container)) => &container.key.id,
            Outcome::Container(ContainerEvent::Removed(key)) => &key.id,
            Outcome::Forgotten(uid) | Outcome::Isolated(uid) | Outcome::Released(uid) => uid,
            Outcome::Container(_) | Outcome::Gate(_) => return,
        };
        match self.pods.remembered(uid, &labels(&self.objects)) {
            Some(remembered) => self.memory.put(Kind::Pods, uid, &remembered),
            None => self.memory.remove(Kind::Pods, uid),
        }
    }
}

/// Labels of namespaces, as they are known.
fn labels(objects: &Objects) -> impl Fn(&str) -> Labels {
    |namespace| objects.namespace_labels(namespace)
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
