//! Benchmarks.

mod plots;

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{
    Refusal, document, places, process,
    products::Products,
    setup::{self, Purpose},
    vm,
};

/// What can be measured on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Criterion's benchmarks of pure code, which need no root.
    UserSpace,
    /// What the enforcer's programs cost on this kernel, and how fast they are.
    Kernel,
    /// The same on each tier of a kernel in a VM, as ratios.
    Tiers,
    /// The webhook over TLS, before a real API server.
    Admission,
}

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only this part; may be repeated.
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// The same as `--only user-space`.
    #[arg(long, conflicts_with = "only")]
    user_space: bool,
    /// Measures nothing: draws the plots of what was measured last in the kernel.
    #[arg(long, conflicts_with_all = ["only", "user_space"])]
    redraw: bool,
}

/// Where numbers are written, below the workspace.
const FILE: &str = "docs/performance.md";

/// And where they are drawn.
const PLOTS: &str = "docs/performance";

/// `cargo xtask bench`: criterion's benchmarks of pure code, the kernel's cost per operation, and the webhook.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let samples = places::target().join("bench/kernel.json");
    let plots = places::workspace().join(PLOTS);
    if arguments.redraw {
        plots::draw(&samples, &plots)?;
        return Ok(ExitCode::SUCCESS);
    }
    let only = if arguments.user_space { &[Part::UserSpace][..] } else { &arguments.only };
    let wanted = |part| only.is_empty() || only.contains(&part);
    let root = wanted(Part::Kernel) || wanted(Part::Admission);
    if root && !nix::unistd::geteuid().is_root() {
        let hint = "without it: --only user-space";
        return Err(Refusal(format!("measuring in the kernel or in a cluster needs root; {hint}")).into());
    }
    let mut purposes = vec![Purpose::Build];
    if wanted(Part::Kernel) {
        purposes.push(Purpose::Bench);
    }
    if wanted(Part::Tiers) {
        purposes.push(Purpose::Vm);
    }
    if wanted(Part::Admission) {
        purposes.extend([Purpose::Containers, Purpose::Cluster]);
    }
    setup::ensure(&purposes)?;
    let folder = places::target().join("bench");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    if wanted(Part::UserSpace) {
        // `--bench '*'`: only what is written for criterion, not the unit tests once more.
        let mut criterion = places::cargo();
        criterion.args(["bench", "--workspace", "--exclude", "ringfence-enforcer-ebpf", "--bench", "*"]);
        process::succeed(&mut criterion)?;
    }
    if wanted(Part::Kernel) {
        measure("kernel", Command::new(Products::build()?.integration()).arg("bench").arg("--json").arg(&samples))?;
        plots::draw(&samples, &plots)?;
    }
    if wanted(Part::Tiers) {
        let table = vm::prices(&Products::build()?)?;
        print!("{table}");
        document::write(FILE, "tiers", &table)?;
    }
    if wanted(Part::Admission) {
        let mut admission = Command::new(Products::build()?.integration());
        admission.arg("scale").arg("--json").arg(folder.join("admission.json")).arg("admission");
        measure("admission", &mut admission)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(part: &str, command: &mut Command) -> Result<()> {
    let measured = process::output(command)?;
    print!("{measured}");
    document::write(FILE, part, &measured)
}
