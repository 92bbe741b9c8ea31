//! Command line.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use k8s_openapi::jiff::SignedDuration;

use crate::reconcile::IsolatedPods;

/// Where a pod finds its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Ringfence's admission webhook: labels pods with what governs them, and checks rulesets and policies.
#[derive(Clone, Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Arguments {
    /// Where the API server reaches the webhooks `/mutate` and `/validate` (HTTPS).
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where `/healthz`, `/readyz` and `/metrics` are (HTTP).
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub health: SocketAddr,
    /// Name of the policy that is in force.
    #[arg(long, value_name = "NAME")]
    pub policy: String,
    /// Our own namespace. Default: the service account's.
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Our own service account.
    #[arg(long, value_name = "NAME", default_value = "ringfence-webhook")]
    pub service_account: String,
    /// The enforcers' service account.
    #[arg(long, value_name = "NAME", default_value = "ringfence-enforcer")]
    pub enforcer_service_account: String,
    /// There are no enforcers: the marks of isolated pods and their readiness gates are kept in order here.
    #[arg(long)]
    pub without_enforcers: bool,
    /// With --without-enforcers: what has become of pods that were isolated.
    #[arg(long, value_enum, default_value = "release", requires = "without_enforcers")]
    pub isolated_pods: IsolatedPods,
    /// The Lease of the leader.
    #[arg(long, value_name = "NAME", default_value = "ringfence-webhook")]
    pub lease: String,
    /// Our name among the replicas. Default: the host's.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub identity: Option<String>,

    /// Folder with `tls.crt` and `tls.key` of a mounted Secret. Without it: a certificate authority of our own.
    #[arg(long, value_name = "FOLDER", help_heading = "Certificate")]
    pub tls_dir: Option<PathBuf>,
    /// The Service by which the API server reaches us.
    #[arg(long, value_name = "NAME", default_value = "ringfence-webhook", help_heading = "Certificate")]
    pub service: String,
    /// A further name or address of ours in the certificate; may be repeated.
    #[arg(long, value_name = "NAME", help_heading = "Certificate")]
    pub certificate_name: Vec<String>,
    /// The Secret of our own authority and certificate.
    #[arg(long, value_name = "NAME", default_value = "ringfence-webhook-tls", help_heading = "Certificate")]
    pub tls_secret: String,
    /// The `MutatingWebhookConfiguration` that is told what to trust.
    #[arg(long, value_name = "NAME", default_value = "ringfence", help_heading = "Certificate")]
    pub mutating_configuration: String,
    /// The `ValidatingWebhookConfiguration` that is told what to trust.
    #[arg(long, value_name = "NAME", default_value = "ringfence", help_heading = "Certificate")]
    pub validating_configuration: String,
    /// How long our authority lasts; it is replaced after two thirds of that.
    #[arg(long, value_name = "DURATION", default_value = "8760h", help_heading = "Certificate")]
    pub authority_lifetime: SignedDuration,
    /// How long a certificate lasts; it is replaced after two thirds of that.
    #[arg(long, value_name = "DURATION", default_value = "2160h", help_heading = "Certificate")]
    pub certificate_lifetime: SignedDuration,
    /// How long the steps of replacing an authority are apart.
    #[arg(long, value_name = "DURATION", default_value = "2m", help_heading = "Certificate")]
    pub rotation_pause: SignedDuration,

    /// How many pods that exist already are labelled in a second, at most.
    #[arg(long, value_name = "NUMBER", default_value = "100", help_heading = "Pace")]
    pub labels_per_second: NonZeroU32,
    /// How often statuses are written, at most.
    #[arg(long, value_name = "DURATION", default_value = "5s", help_heading = "Pace")]
    pub status_interval: SignedDuration,
    /// How long requests are still answered after SIGTERM, until nobody sends any more.
    #[arg(long, value_name = "DURATION", default_value = "10s", help_heading = "Pace")]
    pub drain: SignedDuration,
}

impl Arguments {
    /// Our own namespace.
    pub fn own_namespace(&self) -> Result<String> {
        if let Some(namespace) = &self.namespace {
            return Ok(namespace.clone());
        }
        let hint = || format!("outside of a pod give --namespace ({NAMESPACE_FILE} cannot be read)");
        Ok(std::fs::read_to_string(NAMESPACE_FILE).with_context(hint)?.trim().to_owned())
    }

    /// What does not fit together.
    pub fn check(&self) -> Result<()> {
        let times = [
            ("--authority-lifetime", self.authority_lifetime),
            ("--certificate-lifetime", self.certificate_lifetime),
            ("--rotation-pause", self.rotation_pause),
            ("--status-interval", self.status_interval),
        ];
        if let Some((flag, _)) = times.into_iter().find(|(_, time)| *time < SignedDuration::from_secs(1)) {
            bail!("{flag} must be at least 1s");
        }
        // The last third has to hold all steps of replacing it.
        if self.rotation_pause * 6 > self.authority_lifetime {
            bail!("--rotation-pause must be at most a sixth of --authority-lifetime");
        }
        Ok(())
    }
}
