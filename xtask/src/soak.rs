//! A long life in a cluster: `ringfence-integration soak` does it; this builds it and stands by. No part of the tests: it
//! takes an hour.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    Refusal, process,
    products::Products,
    setup::{self, Purpose},
};

/// Arguments of `cargo xtask soak`.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask soak --minutes 15")]
pub struct Arguments {
    /// How long, in minutes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
}

/// `cargo xtask soak`. Fails if a violation was not told, or if memory, files, pins or the kernel's maps have grown.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Refusal("a cluster has network and mount namespaces of its own: run it as root".to_owned()).into());
    }
    setup::ensure(&[Purpose::Build, Purpose::Containers, Purpose::Cluster])?;
    let mut soak = Command::new(Products::build()?.integration());
    soak.arg("soak").arg("--minutes").arg(arguments.minutes.to_string());
    let status = process::status(&mut soak)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
