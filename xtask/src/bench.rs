//! Benchmarks.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

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

/// Where the kernel's numbers are written, below the workspace.
const FILE: &str = "docs/performance.md";

/// `cargo xtask bench`: criterion's benchmarks of pure code, then the kernel's cost per operation.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !arguments.user_space && !nix::unistd::geteuid().is_root() {
        return Err(Refusal("measuring in the kernel needs root; without it: --user-space".to_owned()).into());
    }
    setup::ensure(&[Purpose::Build])?;
    // `--bench '*'`: only what is written for criterion, not the unit tests once more.
    let mut criterion = places::cargo();
    process::succeed(criterion.args(["bench", "--workspace", "--exclude", "ringfence-enforcer-ebpf", "--bench", "*"]))?;
    if !arguments.user_space {
        let measured = process::output(Command::new(Products::build()?.integration()).arg("bench"))?;
        print!("{measured}");
        let path = places::workspace().join(FILE);
        fs::write(&path, format!("{HEAD}{measured}")).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

const HEAD: &str = "# Performance\n\nWritten by `cargo xtask bench`; read the ratios, not the nanoseconds.\n\n";
