//! `ringfence lint`: are these rulesets right?

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use ringfence_control::{printable, sources};
use ringfence_policy::{Catalogue, read};

use crate::failure::{Failure, Outcome};

/// `ringfence lint`.
#[derive(Debug, Args)]
#[command(after_help = "All files are checked as one set: names must be unique over all of them.\n\n\
                        Example:\n  ringfence lint /etc/ringfence/rulesets")]
pub struct Lint {
    /// Files, or folders of .yaml and .yml files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl Lint {
    /// Prints every problem.
    pub fn run(self) -> Outcome {
        let mut files = Vec::new();
        for path in &self.paths {
            let found = sources::read(path).map_err(Failure::input)?;
            if found.is_empty() {
                return Err(Failure::input(format_args!("{} holds no .yaml or .yml file", path.display())));
            }
            files.extend(found);
        }
        match read(&files, Catalogue::builtin()) {
            Ok(rulesets) if rulesets.is_empty() => {
                Err(Failure::input(format_args!("no ruleset in {}", counted(files.len(), "file"))))
            }
            Ok(rulesets) => Ok(writeln!(
                io::stdout().lock(),
                "{} and {}: no problem",
                counted(rulesets.len(), "ruleset"),
                counted(files.len(), "file")
            )?),
            Err(diagnostics) => {
                for diagnostic in &diagnostics.0 {
                    writeln!(io::stdout().lock(), "{}", printable(&diagnostic.to_string()))?;
                }
                eprintln!("ringfence: {} in {}", counted(diagnostics.0.len(), "problem"), counted(files.len(), "file"));
                Err(Failure::Reported)
            }
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
