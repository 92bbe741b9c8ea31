//! `ringfence completion`: a script that completes arguments.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{args, failure::Outcome, output};

/// `ringfence completion`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ringfence completion bash > /etc/bash_completion.d/ringfence")]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    /// Prints the script.
    pub fn run(self) -> Outcome {
        // Into memory first: the generator panics when the output is a closed pipe.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut args::Args::command(), "ringfence", &mut script);
        output::text(&String::from_utf8_lossy(&script))
    }
}
