//! The demo: the scene itself is `ringfence-integration demo`; this builds it and stands by.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    Refusal, process,
    products::Products,
    setup::{self, Purpose},
};

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Arguments {
    /// In Kubernetes: the chart is installed into a cluster of the demo's own
    #[arg(long)]
    cluster: bool,
}

/// `cargo xtask demo`. Ends as the demo ends, after it has cleaned up, also on Ctrl-C.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Refusal("the demo loads eBPF programs and starts containers: run it as root".to_owned()).into());
    }
    let mut purposes = vec![Purpose::Build, Purpose::Containers];
    purposes.extend(arguments.cluster.then_some(Purpose::Cluster));
    setup::ensure(&purposes)?;
    let mut demo = Command::new(Products::build()?.integration());
    demo.arg("demo").args(arguments.cluster.then_some("--cluster"));
    let status = process::status(&mut demo)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
