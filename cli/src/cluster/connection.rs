//! To which cluster, and as whom.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;
use kube::{
    Client, Config, Error,
    config::{KubeConfigOptions, Kubeconfig},
};
use ringfence_control::sentence;

use crate::failure::Failure;

/// How long the API server may take to take a connection, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// As kubectl has them.
#[derive(Debug, Args)]
pub struct Connection {
    /// File with the cluster and the user; else KUBECONFIG, else ~/.kube/config, else the pod's service account
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context in it; else the current one
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Namespace; else the context's
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// User to act as
    #[arg(long = "as", global = true, value_name = "USER")]
    acting_as: Option<String>,
}

/// A cluster that can be asked.
pub struct Open {
    /// Speaks to its API server.
    pub client: Client,
    /// The namespace that is meant.
    pub namespace: String,
    /// The API server.
    server: String,
}

impl Connection {
    /// Reads the configuration. Nothing is sent yet.
    pub async fn open(&self) -> Result<Open, Failure> {
        let mut config = self.config().await.map_err(Failure::Input)?;
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(PATIENCE);
        if let Some(user) = &self.acting_as {
            config.auth_info.impersonate = Some(user.clone());
        }
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).context("the configuration of the cluster cannot be used")?;
        Ok(Open { client, namespace, server: server.trim_end_matches('/').to_owned() })
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        if let Some(file) = &self.kubeconfig {
            let read = Kubeconfig::read_from(file).with_context(|| format!("--kubeconfig {}", file.display()))?;
            return Ok(Config::from_custom_kubeconfig(read, &options).await?);
        }
        if self.context.is_some() {
            return Ok(Config::from_kubeconfig(&options).await?);
        }
        let config = Config::infer().await;
        config.context("no cluster is configured: give --kubeconfig FILE, or set KUBECONFIG")
    }
}

impl Open {
    /// Why a request did not work, in the API server's own words where it has answered.
    pub fn failure(&self, error: Error) -> Failure {
        match error {
            Error::Api(status) if (400..500).contains(&status.code) => Failure::input(status.message),
            Error::Api(status) => Failure::Failed(anyhow!("the API server failed: {}", status.message)),
            Error::Auth(error) => Failure::Input(anyhow!("who you are cannot be told: {}", sentence(&error))),
            Error::Service(error) => Failure::Failed(anyhow!("no answer from {}: {}", self.server, sentence(&*error))),
            error => Failure::Failed(anyhow!("no answer from {}: {}", self.server, sentence(&error))),
        }
    }
}
