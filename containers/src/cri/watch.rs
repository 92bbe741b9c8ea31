//! Following a CRI runtime for ever: look, tell the difference, wait for a hint or a second.

use std::{collections::HashMap, time::Duration};

use k8s_cri::v1::{ContainerState, GetEventsRequest, PodSandboxState};
use tokio::sync::{Notify, mpsc};
use tracing::{debug, warn};

use super::{Cri, info};
use crate::{
    Container, ContainerEvent, Error,
    backoff::Backoff,
    state::{State, Task},
};

/// Between two looks, if the runtime gives no hint.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between two attempts to get hints from a runtime that gives none.
const HINTS_INTERVAL: Duration = Duration::from_secs(30);

/// Tells everything to `sender` until its receiver is dropped.
pub async fn run(cri: Cri, sender: mpsc::Sender<ContainerEvent>) {
    let hint = Notify::new();
    tokio::select! {
        () = look(&cri, &sender, &hint) => {}
        () = listen(&cri, &hint) => {}
        () = sender.closed() => {}
    }
}

/// Looks at once, after every hint, and every second. Ends when nobody listens.
async fn look(cri: &Cri, sender: &mpsc::Sender<ContainerEvent>, hint: &Notify) {
    let mut seen = Seen::default();
    let mut state = State::default();
    let mut backoff = Backoff::new();
    let mut synced = false;
    loop {
        let (news, wait) = match seen.look(cri).await {
            Ok(listing) => {
                let mut news = state.all(listing);
                if !synced {
                    news.push(ContainerEvent::Synced);
                }
                synced = true;
                backoff.reset();
                (news, INTERVAL)
            }
            Err(error) => {
                let reason = error.to_string();
                debug!(reason, "lost the runtime");
                let news = if synced { vec![ContainerEvent::Disconnected { reason }] } else { Vec::new() };
                synced = false;
                (news, backoff.next())
            }
        };
        for event in news {
            if sender.send(event).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = hint.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Every event of the runtime is a hint to look; what it says is not needed. Never ends.
async fn listen(cri: &Cri, hint: &Notify) {
    loop {
        // containerd before 1.7 and CRI-O without `enable_pod_events` answer that they cannot.
        if let Ok(events) = cri.client.clone().get_container_events(GetEventsRequest {}).await {
            let mut events = events.into_inner();
            while let Ok(Some(_)) = events.message().await {
                hint.notify_one();
            }
            hint.notify_one();
        }
        tokio::time::sleep(HINTS_INTERVAL).await;
    }
}

/// Verbose answers are costly, so they are asked for only when a container's state changed.
#[derive(Default)]
struct Seen(HashMap<String, (i32, Container, Option<Task>)>);

impl Seen {
    async fn look(&mut self, cri: &Cri) -> Result<Vec<(Container, Option<Task>)>, Error> {
        let sandboxes = cri.sandboxes().await?;
        let containers = cri.containers().await?;
        let mut before = std::mem::take(&mut self.0);
        let mut listing = Vec::new();
        for listed in &sandboxes {
            let entry = match before.remove(&listed.id).filter(|(state, ..)| *state == listed.state) {
                Some(entry) => entry,
                None => match cri.sandbox_status(&listed.id).await? {
                    None => continue,
                    Some(status) => {
                        let Some((container, pid)) = readable(info::sandbox(listed, &status)) else { continue };
                        let ready = listed.state() == PodSandboxState::SandboxReady;
                        (listed.state, container, task(pid, ready, true))
                    }
                },
            };
            listing.push(self.keep(listed.id.clone(), entry));
        }
        let pods: HashMap<&str, _> =
            sandboxes.iter().map(|sandbox| (sandbox.id.as_str(), info::pod(sandbox))).collect();
        for listed in &containers {
            let entry = match before.remove(&listed.id).filter(|(state, ..)| *state == listed.state) {
                Some(entry) => entry,
                None => match cri.container_status(&listed.id).await? {
                    None => continue,
                    Some(status) => {
                        let pod = pods.get(listed.pod_sandbox_id.as_str());
                        let Some((container, pid)) = readable(info::pod_container(listed, pod, &status)) else {
                            continue;
                        };
                        let state = listed.state();
                        let alive =
                            matches!(state, ContainerState::ContainerCreated | ContainerState::ContainerRunning);
                        (listed.state, container, task(pid, alive, state == ContainerState::ContainerRunning))
                    }
                },
            };
            listing.push(self.keep(listed.id.clone(), entry));
        }
        Ok(listing)
    }

    fn keep(&mut self, id: String, entry: (i32, Container, Option<Task>)) -> (Container, Option<Task>) {
        let told = (entry.1.clone(), entry.2);
        self.0.insert(id, entry);
        told
    }
}

fn task(pid: u32, alive: bool, started: bool) -> Option<Task> {
    (alive && pid != 0).then_some(Task { pid, started })
}

/// One container that cannot be understood must not hide the others.
fn readable<T>(understood: Result<T, Error>) -> Option<T> {
    understood.inspect_err(|error| warn!(%error, "a container is left out")).ok()
}
