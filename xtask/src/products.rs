//! The programs that are shipped and those that test them, built as they are shipped: static, for musl, optimised.

use std::path::PathBuf;

use anyhow::Result;

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

/// A folder with static programs.
pub struct Products(PathBuf);

impl Products {
    /// Builds them, or finds them built.
    pub fn build() -> Result<Self> {
        let mut cargo = places::cargo();
        cargo.args(["build", "--release", "--target", TARGET]);
        cargo.args(PROGRAMS.iter().flat_map(|(package, _)| ["--package", package]));
        println!("==> {}", process::line(&cargo));
        process::succeed(&mut cargo)?;
        Ok(Self(places::target().join(TARGET).join("release")))
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
