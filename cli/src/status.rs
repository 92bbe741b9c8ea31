//! `ringfence status`: how well is this node covered?

use std::{io, path::Path};

use clap::{Args, ValueEnum};
use ringfence_control::{
    Client,
    render::{self, Paint},
};

use crate::{failure::Outcome, output};

/// `ringfence status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ringfence status\n  ringfence status -o json")]
pub struct Status {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Form of an output that has no table.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// For reading
    #[value(alias = "table")]
    Text,
    /// For scripts
    Json,
}

impl Status {
    /// Asks the enforcer.
    pub async fn run(self, socket: &Path) -> Outcome {
        let status = Client::connect(socket).await?.status().await?;
        match self.output {
            Format::Json => output::json(&status),
            Format::Text => output::text(&render::status(&status, Paint::auto(&io::stdout()))),
        }
    }
}
