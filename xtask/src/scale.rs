//! A cluster of many nodes and pods.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{
    Refusal, document, places, process,
    products::Products,
    setup::{self, Purpose},
};

/// Arguments of `cargo xtask scale`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Nodes, pods and rulesets instead of those of the document, which is not written then: as --nodes 100 --pods 2000.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "SIZE")]
    size: Vec<String>,
}

/// Where the numbers are written, below the workspace.
const FILE: &str = "docs/scale.md";

/// `cargo xtask scale`: minutes, most of them at the webhook's own pace.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Refusal("a cluster needs root".to_owned()).into());
    }
    setup::ensure(&[Purpose::Build, Purpose::Containers, Purpose::Cluster])?;
    let folder = places::target().join("bench");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut crowd = Command::new(Products::build()?.integration());
    crowd.arg("scale").arg("--json").arg(folder.join("scale.json")).arg("crowd").args(&arguments.size);
    let measured = process::output(&mut crowd)?;
    print!("{measured}");
    if arguments.size.is_empty() {
        document::write(FILE, "measured", &measured)?;
    }
    Ok(ExitCode::SUCCESS)
}
