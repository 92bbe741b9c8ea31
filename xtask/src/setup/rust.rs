//! What comes through rustup and cargo.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use ringfence_image::Architecture;

use super::Purpose;
use crate::{Refusal, process, products::TARGET};

/// The linker of the eBPF object.
const BPF_LINKER: &str = "0.13.0";

/// Checks licences and sources of the crates in use.
const CARGO_DENY: &str = "0.20.2";

/// Writes what programs are made of.
const CARGO_CYCLONEDX: &str = "0.5.9";

/// Where Debian puts LLVM.
const LLVM: &str = "/usr/lib/llvm-22";

/// Something that rustup or cargo installs.
#[derive(Debug, PartialEq, Eq)]
pub enum Tool {
    /// Part of the toolchain.
    Component(&'static str),
    /// The standard library for static programs of an architecture.
    Target(&'static str),
    /// bpf-linker in the version that goes with LLVM 22.
    BpfLinker,
    /// cargo-deny.
    CargoDeny,
    /// cargo-cyclonedx.
    CargoCycloneDx,
}

/// What is missing for these purposes, in the order in which it has to be installed.
pub fn missing(purposes: &[Purpose]) -> Result<Vec<Tool>> {
    let sysroot = PathBuf::from(process::output(Command::new("rustc").args(["--print", "sysroot"]))?.trim_end());
    let library = sysroot.join("lib/rustlib");
    let mut tools = Vec::new();
    let mut need = |purpose, there: bool, tool| {
        if purposes.contains(&purpose) && !there {
            tools.push(tool);
        }
    };
    need(Purpose::Build, library.join("src/rust/library/core").is_dir(), Tool::Component("rust-src"));
    need(Purpose::Build, library.join(TARGET).join("lib").is_dir(), Tool::Target(TARGET));
    need(Purpose::Build, has_version("bpf-linker", &["--version"], BPF_LINKER), Tool::BpfLinker);
    for target in Architecture::ALL.map(Architecture::target).into_iter().filter(|target| *target != TARGET) {
        let is_there = library.join(target).join("lib").is_dir();
        // Once, whichever of them it is for.
        let purpose = if purposes.contains(&Purpose::Vm) { Purpose::Vm } else { Purpose::Image };
        need(purpose, is_there, Tool::Target(target));
    }
    let cyclonedx = has_version("cargo", &["cyclonedx", "--version"], CARGO_CYCLONEDX);
    need(Purpose::Image, cyclonedx, Tool::CargoCycloneDx);
    need(Purpose::Ci, sysroot.join("bin/cargo-fmt").is_file(), Tool::Component("rustfmt"));
    need(Purpose::Ci, sysroot.join("bin/cargo-clippy").is_file(), Tool::Component("clippy"));
    need(Purpose::Ci, has_version("cargo-deny", &["--version"], CARGO_DENY), Tool::CargoDeny);
    Ok(tools)
}

impl Tool {
    /// Whether LLVM's development files are needed to build it.
    pub fn needs_llvm(&self) -> bool {
        *self == Self::BpfLinker
    }

    /// Installs it.
    pub fn install(&self) -> Result<()> {
        let mut command = self.command();
        println!("setup: {}", process::line(&command));
        if command.get_program() == "rustup" && !process::exists("rustup") {
            let reason = "rustup is not installed, and the Rust toolchain lacks a part. Install it with your \
                          distribution's tools, or get rustup and run";
            return Err(Refusal(format!("{reason}:\n    {}", self.by_hand())).into());
        }
        process::succeed(&mut command).with_context(|| format!("try it by hand: {}", self.by_hand()))
    }

    /// The command to type.
    pub fn by_hand(&self) -> String {
        let command = process::line(&self.command());
        match self {
            Self::BpfLinker => format!("LLVM_PREFIX={LLVM} PATH={LLVM}/bin:$PATH {command}"),
            _ => command,
        }
    }

    fn command(&self) -> Command {
        match self {
            Self::Component(name) => rustup(&["component", "add", name]),
            Self::Target(target) => rustup(&["target", "add", target]),
            Self::BpfLinker => {
                // The default features want LLVM 23, which no Debian release has.
                let mut command = cargo_install("bpf-linker", BPF_LINKER);
                command.args(["--no-default-features", "--features", "llvm-22"]).env("LLVM_PREFIX", LLVM);
                let path = std::env::var_os("PATH").unwrap_or_default();
                let path = [Path::new(LLVM).join("bin")].into_iter().chain(std::env::split_paths(&path));
                if let Ok(path) = std::env::join_paths(path) {
                    command.env("PATH", path);
                }
                command
            }
            Self::CargoDeny => {
                let mut command = cargo_install("cargo-deny", CARGO_DENY);
                // It runs for seconds, and optimised it builds for minutes.
                command.arg("--debug");
                command
            }
            Self::CargoCycloneDx => cargo_install("cargo-cyclonedx", CARGO_CYCLONEDX),
        }
    }
}

fn rustup(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(arguments);
    command
}

fn cargo_install(name: &str, version: &str) -> Command {
    let mut command = Command::new("cargo");
    command.args(["install", "--locked", name, "--version", version]);
    // Built beside the workspace, not with its settings or in its folder.
    for variable in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command
}

fn has_version(program: &str, arguments: &[&str], version: &str) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| {
        output.status.success()
            && String::from_utf8_lossy(&output.stdout).split_whitespace().any(|word| word == version)
    })
}
