//! `ringfence release`: lift an isolation.

use std::path::Path;

use clap::Args;
use ringfence_control::Client;

use crate::{failure::Outcome, output};

/// `ringfence release`.
#[derive(Debug, Args)]
#[command(
    after_help = "In Kubernetes a pod is released by `ringfence cluster release POD`.\n\nExample:\n  ringfence release web"
)]
pub struct Release {
    /// The container: its id, the beginning of it, or its name
    container: String,
}

impl Release {
    /// Asks the enforcer.
    pub async fn run(self, socket: &Path) -> Outcome {
        let done = Client::connect(socket).await?.release(&self.container).await?;
        output::text(&format!("{done}\n"))
    }
}
