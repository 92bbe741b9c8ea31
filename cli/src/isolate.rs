//! `ringfence isolate`: cut a container off by hand.

use std::path::Path;

use clap::Args;
use ringfence_control::Client;

use crate::{failure::Outcome, output};

/// `ringfence isolate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ringfence isolate web --reason 'odd traffic, see ticket 4711'")]
pub struct Isolate {
    /// The container: its id, the beginning of it, or its name
    container: String,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

impl Isolate {
    /// Asks the enforcer.
    pub async fn run(self, socket: &Path) -> Outcome {
        let done = Client::connect(socket).await?.isolate(&self.container, self.reason.as_deref()).await?;
        output::text(&format!("{done}\n"))
    }
}
