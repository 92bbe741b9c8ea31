//! `ringfence convert`: from Trend Micro Container Security to here.

mod keys;
mod overrides;
mod report;
mod rulesets;

use clap::{Args, Subcommand};

use crate::failure::Outcome;

/// `ringfence convert`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "What was made is written to standard output; what became of each key or rule, to standard error. \
                  Nothing is left out without being named, and a file with something unknown in it is not converted.\n\n\
                  Example:\n  ringfence convert overrides overrides.yaml > ringfence.yaml"
)]
pub struct Convert {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    #[command(about = "An overrides file of Helm, for the chart of Ringfence")]
    Overrides(overrides::Overrides),
    #[command(about = "Runtime rulesets: RuntimeRuleset and a RuntimePolicy that names them")]
    Rulesets(rulesets::Rulesets),
}

impl Convert {
    /// Converts.
    pub fn run(self) -> Outcome {
        match self.what {
            What::Overrides(overrides) => overrides.run(),
            What::Rulesets(rulesets) => rulesets.run(),
        }
    }
}
