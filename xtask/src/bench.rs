//! Benchmarks.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    places, process,
    setup::{self, Purpose},
};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {}

/// `cargo xtask bench`: criterion's benchmarks of pure code. The kernel's cost per hook is not measured yet.
pub fn run(_: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Purpose::Build])?;
    // `--bench '*'`: only what is written for criterion, not the unit tests once more.
    let mut criterion = places::cargo();
    process::succeed(criterion.args(["bench", "--workspace", "--exclude", "ringfence-enforcer-ebpf", "--bench", "*"]))?;
    Ok(ExitCode::SUCCESS)
}
