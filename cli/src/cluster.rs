//! `ringfence cluster`, and with it `kubectl ringfence`: the commands that speak to an API server, as the user.

mod connection;
mod isolated;
mod pods;
mod release;
mod status;

use clap::{Args, Subcommand};

pub use connection::Connection;

use crate::failure::Outcome;

/// `ringfence cluster`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "As a plug-in of kubectl, `kubectl ringfence COMMAND`: make a link to this program that is called \
                  kubectl-ringfence, somewhere in PATH.\n\n\
                  Examples:\n  ringfence cluster isolated --all-namespaces\n  ringfence cluster release web-5c7 -n shop"
)]
pub struct Cluster {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

/// What to do there.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(about = "List the pods that are cut off the network")]
    Isolated(isolated::Isolated),
    #[command(about = "Lift a pod's isolation, and wait until its node has done it")]
    Release(release::Release),
    #[command(about = "Show what is in force: policy, rulesets, enforcers, webhook, isolated pods")]
    Status(status::Status),
}

impl Cluster {
    /// Does it.
    pub async fn run(self) -> Outcome {
        self.command.run(&self.connection).await
    }
}

impl Command {
    /// Does it.
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self {
            Self::Isolated(isolated) => isolated.run(connection).await,
            Self::Release(release) => release.run(connection).await,
            Self::Status(status) => status.run(connection).await,
        }
    }
}
