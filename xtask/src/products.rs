//! The programs that are shipped and those that test them, built as they are shipped: static, for musl, optimised.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{places, process};

/// The target of every static program.
pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// Crates and the programs that they build. All end up side by side, and find each other there.
const PROGRAMS: [(&str, &str); 5] = [
    ("ringfence-enforcer", "enforcer"),
    ("ringfence-cli", "ringfence"),
    ("ringfence-webhook", "ringfence-webhook"),
    ("ringfence-integration", "ringfence-integration"),
    ("ringfence-actor", "ringfence-actor"),
];

/// What the enforcer's build script makes.
const OBJECT: &str = "ringfence.bpf.o";

/// A folder with static programs.
pub struct Products(PathBuf);

impl Products {
    /// Builds them, or finds them built.
    pub fn build() -> Result<Self> {
        let mut cargo = cargo();
        println!("==> {}", process::line(&cargo));
        process::succeed(&mut cargo)?;
        Ok(Self(places::target().join(TARGET).join("release")))
    }

    /// The eBPF object that the enforcer was built with.
    pub fn object(&self) -> Result<PathBuf> {
        let output = cargo().args(["--quiet", "--message-format", "json"]).output().context("cannot run cargo")?;
        let executed = String::from_utf8(output.stdout)?.lines().find_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let is_its = message["package_id"].as_str()?.contains("#ringfence-enforcer@");
            let made = is_its && message["reason"] == "build-script-executed";
            made.then(|| message["out_dir"].as_str().map(PathBuf::from)).flatten()
        });
        let object = executed.context("cargo does not say where the enforcer's object is")?.join(OBJECT);
        ensure!(object.starts_with(&self.0) && object.is_file(), "{} is missing", object.display());
        Ok(object)
    }

    /// The program that runs what needs root, containers or a kernel of its own.
    pub fn integration(&self) -> PathBuf {
        self.0.join("ringfence-integration")
    }

    /// The enforcer.
    pub fn enforcer(&self) -> PathBuf {
        self.0.join("enforcer")
    }

    /// Every program, for a VM.
    pub fn programs(&self) -> Vec<PathBuf> {
        PROGRAMS.iter().map(|(_, program)| self.0.join(program)).collect()
    }
}

fn cargo() -> Command {
    let mut cargo = places::cargo();
    cargo.args(["build", "--release", "--target", TARGET]);
    cargo.args(PROGRAMS.iter().flat_map(|(package, _)| ["--package", package]));
    cargo
}
