//! Benchmarks.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    Refusal, places, process,
    products::Products,
    setup::{self, Purpose},
};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only the criterion benchmarks, which need no root.
    #[arg(long)]
    user_space: bool,
}

/// `cargo xtask bench`: criterion's benchmarks of pure code, then the kernel's cost per hook.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !arguments.user_space && !nix::unistd::geteuid().is_root() {
        return Err(Refusal("measuring in the kernel needs root; without it: --user-space".to_owned()).into());
    }
    setup::ensure(&[Purpose::Build])?;
    // `--bench '*'`: only what is written for criterion, not the unit tests once more.
    let mut criterion = places::cargo();
    process::succeed(criterion.args(["bench", "--workspace", "--exclude", "ringfence-enforcer-ebpf", "--bench", "*"]))?;
    if !arguments.user_space {
        process::succeed(Command::new(Products::build()?.integration()).arg("bench"))?;
    }
    Ok(ExitCode::SUCCESS)
}
