//! The programs that are shipped and those that test them, built as they are shipped: static, for musl, optimised.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use ringfence_image::Architecture;
use serde_json::Value;

use crate::{architecture, places, process};

/// The target of every static program that runs here.
pub const TARGET: &str = Architecture::Amd64.target();

/// Crates and the programs that they build. All end up side by side, and find each other there.
const PROGRAMS: [(&str, &str); 5] = [
    ("ringfence-enforcer", "enforcer"),
    ("ringfence-integration", "ringfence-integration"),
    ("ringfence-actor", "ringfence-actor"),
    ("ringfence-cli", "ringfence"),
    ("ringfence-webhook", "ringfence-webhook"),
];

/// So many of them are what the tests in a VM need; no more is built for another architecture.
const IN_A_VM: usize = 3;

/// What the enforcer's build script makes.
const OBJECT: &str = "ringfence.bpf.o";

/// A folder with static programs.
pub struct Products {
    architecture: Architecture,
    folder: PathBuf,
}

impl Products {
    /// Builds them, or finds them built.
    pub fn build() -> Result<Self> {
        Self::build_for(Architecture::Amd64)
    }

    /// Those of an architecture.
    pub fn build_for(architecture: Architecture) -> Result<Self> {
        let mut cargo = cargo(architecture);
        // For a VM, and maybe beside tests.
        if architecture != Architecture::Amd64 {
            cargo = process::behind(&cargo);
        }
        println!("==> {}", process::line(&cargo));
        process::succeed(&mut cargo)?;
        Ok(Self { architecture, folder: places::target().join(architecture.target()).join("release") })
    }

    /// What they are for.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The eBPF object that the enforcer was built with.
    pub fn object(&self) -> Result<PathBuf> {
        let mut cargo = cargo(self.architecture);
        let output = cargo.args(["--quiet", "--message-format", "json"]).output().context("cannot run cargo")?;
        let executed = String::from_utf8(output.stdout)?.lines().find_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let is_its = message["package_id"].as_str()?.contains("#ringfence-enforcer@");
            let made = is_its && message["reason"] == "build-script-executed";
            made.then(|| message["out_dir"].as_str().map(PathBuf::from)).flatten()
        });
        let object = executed.context("cargo does not say where the enforcer's object is")?.join(OBJECT);
        ensure!(object.starts_with(&self.folder) && object.is_file(), "{} is missing", object.display());
        Ok(object)
    }

    /// The program that runs what needs root, containers or a kernel of its own.
    pub fn integration(&self) -> PathBuf {
        self.folder.join("ringfence-integration")
    }

    /// The enforcer.
    pub fn enforcer(&self) -> PathBuf {
        self.folder.join("enforcer")
    }

    /// Every program, for a VM.
    pub fn programs(&self) -> Vec<PathBuf> {
        built(self.architecture).iter().map(|(_, program)| self.folder.join(program)).collect()
    }
}

fn built(architecture: Architecture) -> &'static [(&'static str, &'static str)] {
    match architecture {
        Architecture::Amd64 => &PROGRAMS,
        Architecture::Arm64 => &PROGRAMS[..IN_A_VM],
    }
}

fn cargo(architecture: Architecture) -> Command {
    let mut cargo = places::cargo();
    cargo.args(["build", "--release"]);
    architecture::build_for(&mut cargo, architecture);
    cargo.args(built(architecture).iter().flat_map(|(package, _)| ["--package", package]));
    cargo
}
