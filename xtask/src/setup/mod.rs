//! What has to be installed, and installing it. Idempotent: what is there is left alone.

mod debian;
mod go;
mod rust;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::Refusal;

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Also what only `.ci/run` needs: cargo-deny.
    #[arg(long)]
    ci: bool,
}

/// What something is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Building the enforcer with its eBPF object.
    Build,
    /// Building bpf-linker, where it is missing.
    Linker,
    /// Running containers.
    Containers,
    /// Measuring in this machine's kernel.
    Bench,
    /// A Kubernetes cluster, besides running containers.
    Cluster,
    /// Booting kernels in VMs.
    Vm,
    /// Images for every architecture, with what they are made of.
    Image,
    /// The checks of `.ci/run`.
    Ci,
}

/// `cargo xtask setup`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut purposes = vec![Purpose::Build, Purpose::Containers, Purpose::Cluster, Purpose::Vm];
    if arguments.ci {
        purposes.push(Purpose::Ci);
    }
    ensure(&purposes)?;
    Ok(ExitCode::SUCCESS)
}

/// Installs what these purposes need and is missing. Refuses, with a list, where it cannot install.
pub fn ensure(purposes: &[Purpose]) -> Result<()> {
    if purposes.contains(&Purpose::Cluster) {
        go::check()?;
    }
    let (packages, tools) = missing(purposes)?;
    if packages.is_empty() && tools.is_empty() {
        println!("setup: everything is there");
        return Ok(());
    }
    if !packages.is_empty() {
        if let Some(obstacle) = debian::obstacle() {
            return Err(Refusal(by_hand(obstacle, &packages, &tools)).into());
        }
        debian::install(&packages)?;
    }
    for tool in &tools {
        tool.install()?;
    }
    let (packages, tools) = missing(purposes)?;
    let names = packages.iter().map(|package| package.name.to_owned()).chain(tools.iter().map(rust::Tool::by_hand));
    let still_missing: Vec<_> = names.collect();
    if !still_missing.is_empty() {
        let hint = "is an older version of it earlier in PATH?";
        bail!("installed, but still not found ({hint}): {}", still_missing.join("; "));
    }
    println!("setup: done");
    Ok(())
}

fn missing(purposes: &[Purpose]) -> Result<(Vec<debian::Package>, Vec<rust::Tool>)> {
    let mut purposes = purposes.to_vec();
    let tools = rust::missing(&purposes)?;
    if tools.iter().any(rust::Tool::needs_llvm) {
        purposes.push(Purpose::Linker);
    }
    Ok((debian::missing(&purposes)?, tools))
}

/// What to type where this program may not install packages.
fn by_hand(obstacle: &str, packages: &[debian::Package], tools: &[rust::Tool]) -> String {
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    let mut lines = vec![
        format!("packages are missing and cannot be installed: {obstacle}. Run this as root on Debian:"),
        format!("    apt-get update && apt-get install --no-install-recommends {}", names.join(" ")),
        "or install what they stand for:".to_owned(),
    ];
    lines.extend(packages.iter().map(|package| format!("    {:<26} {}", package.name, package.what)));
    if !tools.is_empty() {
        lines.push("and then, as yourself:".to_owned());
        lines.extend(tools.iter().map(|tool| format!("    {}", tool.by_hand())));
    }
    lines.join("\n")
}
