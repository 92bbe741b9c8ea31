//! `ringfence uninstall`: hands over to the enforcer, who knows what it left behind.

use std::{env, io, os::unix::process::CommandExt, path::PathBuf, process::Command};

use anyhow::anyhow;
use clap::Args;

use crate::failure::{Failure, Outcome};

/// Name of the enforcer's binary.
const ENFORCER: &str = "enforcer";

/// `ringfence uninstall`.
#[derive(Debug, Args)]
#[command(
    after_help = "Runs `enforcer uninstall`, with the `enforcer` that lies beside this program, else the one in PATH.\n\n\
                        Example:\n  ringfence uninstall"
)]
pub struct Uninstall {
    /// Options for `enforcer uninstall`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<String>,
}

impl Uninstall {
    /// Becomes the enforcer; comes back only if that fails.
    pub fn run(self) -> Outcome {
        let beside = beside_this_program();
        let program = beside.clone().unwrap_or_else(|| PathBuf::from(ENFORCER));
        let error = Command::new(&program).arg("uninstall").args(&self.options).exec();
        let program = program.display();
        Err(Failure::Failed(match error.kind() {
            io::ErrorKind::NotFound if beside.is_none() => {
                anyhow!(
                    "no `{ENFORCER}` lies beside this program or in PATH; run `{ENFORCER} uninstall` where it is installed"
                )
            }
            _ => anyhow!("cannot run {program}: {error}"),
        }))
    }
}

fn beside_this_program() -> Option<PathBuf> {
    let beside = env::current_exe().ok()?.with_file_name(ENFORCER);
    beside.is_file().then_some(beside)
}
