//! One replica leads: the one that holds a Lease.

use std::future::Future;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tracing::{info, warn};

/// How long a leader that is not heard of stays the leader.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is heard of.
const RENEW: Duration = Duration::from_secs(5);

/// A Lease, and who we are.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The holder's last sign of life and when we saw it, by our own clock: others' clocks may be wrong.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Election {
    /// For the Lease `name` of our namespace.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), identity: identity.to_owned(), seen: None }
    }

    /// Takes part until `stop`, then gives the Lease up. `leading` says whether we lead.
    pub async fn run(mut self, leading: watch::Sender<bool>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut renewed = Instant::now();
        loop {
            let attempt = tokio::time::timeout(RENEW, self.attempt());
            let now = Instant::now();
            match attempt.await {
                Ok(Ok(lead)) => {
                    renewed = now;
                    Self::set(&leading, lead);
                }
                Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
                    // Somebody else was quicker.
                    Self::set(&leading, false);
                }
                failed => {
                    // Before anybody else can take it.
                    if renewed.elapsed() + RENEW > DURATION {
                        Self::set(&leading, false);
                    }
                    if let Ok(Err(error)) = failed {
                        warn!(%error, lease = self.name, "cannot renew");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                () = &mut stop => break,
            }
        }
        if leading.send_replace(false)
            && let Err(error) = self.give_up().await
        {
            warn!(%error, lease = self.name, "cannot give the lease up: it runs out");
        }
    }

    fn set(leading: &watch::Sender<bool>, lead: bool) {
        let changed = leading.send_if_modified(|leading| std::mem::replace(leading, lead) != lead);
        if changed {
            info!(lead, "leader election");
        }
    }

    /// Whether the Lease is ours now.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let now = MicroTime(Timestamp::now());
        let mut spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            self.api.create(&PostParams::default(), &lease).await?;
            return Ok(true);
        };
        let held = lease.spec.take().unwrap_or_default();
        spec.lease_transitions = held.lease_transitions;
        if held.holder_identity.as_ref() == Some(&self.identity) {
            spec.acquire_time.clone_from(&held.acquire_time);
        } else {
            if held.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty()) && !self.lapsed(&held) {
                return Ok(false);
            }
            spec.lease_transitions = Some(held.lease_transitions.unwrap_or_default() + 1);
        }
        // The resource version is still the one that was read: of two, one wins.
        lease.spec = Some(spec);
        self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        Ok(true)
    }

    /// Whether its holder has not been heard of for too long.
    fn lapsed(&mut self, held: &LeaseSpec) -> bool {
        match &self.seen {
            Some((spec, since)) if spec == held => since.elapsed() > DURATION,
            _ => {
                self.seen = Some((held.clone(), Instant::now()));
                false
            }
        }
    }

    async fn give_up(&self) -> kube::Result<()> {
        let mut lease = self.api.get(&self.name).await?;
        if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity)) {
            spec.holder_identity = Some(String::new());
            self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}

/// Does something for as long as we lead, from the start each time.
pub async fn while_leading<F: Future<Output = ()>>(mut leading: watch::Receiver<bool>, mut work: impl FnMut() -> F) {
    while leading.wait_for(|lead| *lead).await.is_ok() {
        let mut lost = leading.clone();
        tokio::select! {
            () = work() => {}
            _ = lost.wait_for(|lead| !*lead) => {}
        }
    }
}
