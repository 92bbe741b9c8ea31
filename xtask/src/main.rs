//! The project's chores. `cargo xtask --help` lists them.

mod architecture;
mod bench;
mod cluster;
mod crdgen;
mod demo;
mod document;
mod image;
mod interrupt;
mod places;
mod process;
mod products;
mod scale;
mod setup;
mod soak;
mod tally;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the Ringfence workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what building, the demo and the tests need, where it is missing.
    Setup(setup::Arguments),
    /// Show containers breaking rules and being cut off, for real, in a containerd of the demo's own.
    Demo(demo::Arguments),
    /// Run all tests: unit, containers, cluster, VM. The last line is the count.
    Test(test::Arguments),
    /// Let a cluster live for an hour with pods that break rules, and look whether anything grows.
    Soak(soak::Arguments),
    /// A real Kubernetes cluster on this machine: up, down, a shell for it.
    Cluster(cluster::Arguments),
    /// Write the custom resource definitions of the chart anew, from `api`.
    Crdgen,
    /// Make the container images, as OCI archives, with what they are made of.
    Image(image::Arguments),
    /// Measure: criterion benchmarks, the cost of every hook on this kernel, the webhook over TLS.
    Bench(bench::Arguments),
    /// Measure in a cluster of 1,000 nodes and 20,000 pods that are objects alone: memory, requests, times. Minutes.
    Scale(scale::Arguments),
    /// Boot a Debian kernel in a VM and run the tests, a command or a shell in it.
    Vm(vm::Arguments),
}

/// What the user has to change: reported without a backtrace of causes, with exit code 2.
#[derive(Debug)]
struct Refusal(String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

fn main() -> ExitCode {
    let chore = Arguments::parse().chore;
    let done = interrupt::forward_to_children().and_then(|()| match chore {
        Chore::Setup(arguments) => setup::run(&arguments),
        Chore::Demo(arguments) => demo::run(&arguments),
        Chore::Test(arguments) => test::run(&arguments),
        Chore::Soak(arguments) => soak::run(&arguments),
        Chore::Cluster(arguments) => cluster::run(&arguments),
        Chore::Crdgen => crdgen::run(),
        Chore::Image(arguments) => image::run(&arguments),
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::Scale(arguments) => scale::run(&arguments),
        Chore::Vm(arguments) => vm::run(&arguments),
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Refusal>() { 2 } else { 1 })
        }
    }
}
