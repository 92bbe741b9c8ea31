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
pub struct Arguments {}

/// `cargo xtask demo`. Ends as the demo ends, after it has cleaned up, also on Ctrl-C.
pub fn run(_: &Arguments) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Refusal("the demo loads eBPF programs and starts containers: run it as root".to_owned()).into());
    }
    setup::ensure(&[Purpose::Build, Purpose::Containers])?;
    let products = Products::build()?;
    let status = process::status(Command::new(products.integration()).arg("demo"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
