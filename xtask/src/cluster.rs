//! A real Kubernetes cluster on this machine: `ringfence-integration cluster` does it; this builds it and stands by.

use std::{
    ffi::{OsStr, OsString},
    process::{Command, ExitCode},
};

use anyhow::Result;

use crate::{
    Refusal, process,
    products::Products,
    setup::{self, Purpose},
    vm::{self, Kernel},
};

/// Arguments of `cargo xtask cluster`.
#[derive(clap::Args)]
#[command(
    after_help = "Example: cargo xtask cluster up --kubernetes 1.34 && cargo xtask cluster shell kubectl get nodes"
)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Start one, and leave it running. The programs are built when this machine does not have them: some minutes, once.
    Up {
        /// Which Kubernetes it has, such as 1.34; a wrong one is answered with all that there are. Default: the newest.
        #[arg(long, value_name = "VERSION")]
        kubernetes: Option<String>,
        /// With a second node, a VM with this kernel.
        #[arg(long, value_enum, value_name = "KERNEL", num_args = 0..=1, default_missing_value = "6.1")]
        second_node: Option<Kernel>,
    },
    /// End it and remove every trace; safe when there is none.
    Down,
    /// A shell with the cluster's kubectl, helm (3 and 4) and ctr; `exit` leaves it.
    Shell {
        /// A command to run instead of the shell.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// `cargo xtask cluster`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Refusal("a cluster has network and mount namespaces of its own: run it as root".to_owned()).into());
    }
    let purposes: &[Purpose] = match arguments.what {
        What::Up { second_node: Some(_), .. } => &[Purpose::Build, Purpose::Containers, Purpose::Cluster, Purpose::Vm],
        What::Up { .. } => &[Purpose::Build, Purpose::Containers, Purpose::Cluster],
        What::Down | What::Shell { .. } => &[Purpose::Build],
    };
    setup::ensure(purposes)?;
    let mut command = Command::new(Products::build()?.integration());
    command.arg("cluster");
    // Needed until the node is up.
    let boot = match arguments.what {
        What::Up { second_node: Some(kernel), .. } => Some(vm::boot_from_disk(kernel)?),
        _ => None,
    };
    match &arguments.what {
        What::Up { kubernetes, .. } => {
            command.arg("up").args(kubernetes.iter().flat_map(|version| ["--kubernetes", version.as_str()]));
            command.args(boot.iter().flat_map(|folder| [OsStr::new("--boot"), folder.path().as_os_str()]))
        }
        What::Down => command.arg("down"),
        What::Shell { command: words } => command.arg("shell").args(words),
    };
    let status = process::status(&mut command)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
