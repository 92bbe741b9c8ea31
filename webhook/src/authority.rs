//! Our own certificate authority, for clusters without one: it is kept in a Secret of our namespace, signs the
//! webhook's certificate, and is written into the webhook configurations for the API server to trust.
//!
//! The leader keeps it ([`keep`]), every replica follows it ([`follow`]). A new authority is introduced before it is
//! used, and the old one is dropped only after it is not used any more, each after a pause in which everybody has seen
//! the change. So the API server trusts whatever any replica shows, at every moment.

mod keeping;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::certificate;
use crate::metrics::Metrics;
use keeping::{Keeping, Step};
pub use keeping::{KeepingError, Lifetimes};

/// Keys of the Secret.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const BUNDLE: &str = "ca.crt";
const KEEPING: &str = "authority.json";
/// Who writes the bundle, for the API server.
const MANAGER: &str = "ringfence-webhook";
/// How often the webhook configurations are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// What the authority is for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Our namespace.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// Names (and addresses) of the certificate: those by which the API server calls us.
    pub names: Vec<String>,
    /// Of certificates.
    pub lifetimes: Lifetimes,
    /// The `MutatingWebhookConfiguration` that gets the bundle.
    pub mutating: String,
    /// The `ValidatingWebhookConfiguration` that gets the bundle.
    pub validating: String,
}

/// Follows the certificate in the Secret. It goes on for ever.
pub async fn follow(client: Client, plan: Plan, sender: certificate::Sender) {
    let api: Api<Secret> = Api::namespaced(client, &plan.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", plan.secret));
    let mut events = watcher(api, config).default_backoff().applied_objects().boxed();
    let mut failing = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(secret) => {
                failing = false;
                let data = secret.data.unwrap_or_default();
                let (Some(certificate), Some(key)) = (data.get(CERTIFICATE), data.get(KEY)) else { continue };
                match certificate::pair(&certificate.0, &key.0) {
                    Ok(pair) => {
                        let pair = Arc::new(pair);
                        let new = sender.send_if_modified(|current| {
                            let old = current.replace(Arc::clone(&pair));
                            old.is_none_or(|old| old.cert != pair.cert)
                        });
                        if new {
                            info!(secret = plan.secret, "new certificate");
                        }
                    }
                    Err(error) => warn!(secret = plan.secret, %error, "the old certificate stays"),
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(secret = plan.secret, %error, "cannot watch: the certificate stays");
                }
            }
        }
    }
}

/// Why the authority could not be kept.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Keeping(#[from] KeepingError),
}

/// Keeps the authority: makes it, renews it, and makes the API server trust it. For the leader; it goes on for ever.
pub async fn keep(client: Client, plan: Plan, metrics: Arc<Metrics>) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &plan.namespace);
    let keeper = Keeper { client, secrets, plan, metrics };
    loop {
        let wait = match keeper.turn().await {
            Ok(wait) => wait.min(LOOK),
            Err(error) => {
                warn!(%error, "cannot keep the certificate authority: trying again");
                Duration::from_secs(2)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

struct Keeper {
    client: Client,
    secrets: Api<Secret>,
    plan: Plan,
    metrics: Arc<Metrics>,
}

impl Keeper {
    /// One step, if one is due. Returns how long nothing is to be done but to look at the configurations.
    async fn turn(&self) -> Result<Duration, Error> {
        let secret = self.secrets.get_opt(&self.plan.secret).await?;
        let mut keeping = secret.as_ref().and_then(read);
        if secret.is_some() && keeping.is_none() {
            info!(secret = self.plan.secret, "no certificate authority in it yet");
        }
        // What the API server trusts has to be what it was told, before anything changes.
        if let Some(keeping) = &mut keeping
            && self.trust(&keeping.bundle()).await?
            && keeping.restart_pause(Timestamp::now())
        {
            self.save(secret.as_ref(), keeping).await?;
            return Ok(Duration::ZERO);
        }
        match keeping::next(keeping, Timestamp::now(), &self.plan.names, &self.plan.lifetimes)? {
            Step::Wait(wait) => Ok(wait),
            Step::Save(keeping, what) => {
                self.save(secret.as_ref(), &keeping).await?;
                info!(what, "certificates");
                self.trust(&keeping.bundle()).await?;
                Ok(Duration::ZERO)
            }
        }
    }

    async fn save(&self, old: Option<&Secret>, keeping: &Keeping) -> Result<(), Error> {
        let text = serde_json::to_vec(keeping).map_err(KeepingError::from)?;
        let data: BTreeMap<_, _> = [
            (CERTIFICATE, keeping.certificate().as_bytes().to_vec()),
            (KEY, keeping.key().as_bytes().to_vec()),
            (BUNDLE, keeping.bundle().into_bytes()),
            (KEEPING, text),
        ]
        .map(|(key, value)| (key.to_owned(), ByteString(value)))
        .into();
        let saved = if let Some(old) = old {
            // The resource version is still the one that was read: a leader that was deposed meanwhile fails.
            let secret = Secret { data: Some(data), ..old.clone() };
            self.secrets.replace(&self.plan.secret, &PostParams::default(), &secret).await
        } else {
            let metadata = ObjectMeta { name: Some(self.plan.secret.clone()), ..ObjectMeta::default() };
            let secret = Secret { metadata, data: Some(data), ..Secret::default() };
            self.secrets.create(&PostParams::default(), &secret).await
        };
        self.metrics.write("certificate", saved.is_ok());
        saved?;
        Ok(())
    }

    /// Makes both webhook configurations trust the bundle. Whether one did not yet.
    async fn trust(&self, bundle: &str) -> Result<bool, Error> {
        let mutating: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let validating: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let mutating = self.trust_one(&mutating, &self.plan.mutating, bundle).await?;
        let validating = self.trust_one(&validating, &self.plan.validating, bundle).await?;
        Ok(mutating || validating)
    }

    async fn trust_one<K>(&self, api: &Api<K>, name: &str, bundle: &str) -> Result<bool, Error>
    where
        K: Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
    {
        // Not there yet: the chart makes it at any time.
        let Some(configuration) = api.get_opt(name).await? else { return Ok(false) };
        let configuration = serde_json::to_value(configuration).map_err(KeepingError::from)?;
        let bundle = serde_json::to_value(ByteString(bundle.as_bytes().to_vec())).map_err(KeepingError::from)?;
        let webhooks = configuration["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let stale = webhooks.iter().filter(|webhook| webhook["clientConfig"]["caBundle"] != bundle);
        let webhooks: Vec<Value> =
            stale.map(|webhook| json!({"name": webhook["name"], "clientConfig": {"caBundle": bundle}})).collect();
        if webhooks.is_empty() {
            return Ok(false);
        }
        // Merged by name; what else is in them stays.
        let patch = Patch::Strategic(json!({"webhooks": webhooks}));
        // Whoever applies another bundle is told whose this one is.
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patched = api.patch(name, &parameters, &patch).await;
        self.metrics.write("bundle", patched.is_ok());
        patched?;
        info!(configuration = name, "the API server is told what to trust");
        Ok(true)
    }
}

/// What is kept in a Secret; nothing if that is not ours or broken.
fn read(secret: &Secret) -> Option<Keeping> {
    let text = secret.data.as_ref()?.get(KEEPING)?;
    serde_json::from_slice(&text.0)
        .inspect_err(|error| warn!(%error, "the certificate authority is broken: a new one"))
        .ok()
}
