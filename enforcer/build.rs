//! Builds the eBPF object with stable rustc (`-Z build-std=core`, which `RUSTC_BOOTSTRAP` permits) and bpf-linker.
//!
//! `aya-build` does the same, but takes `RUSTC_BOOTSTRAP` from the caller's environment, and an ordinary
//! `cargo build` has to do.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "ringfence-enforcer-ebpf";
/// Where Debian puts the LLVM that bpf-linker loads.
const LLVM: &str = "/usr/lib/llvm-22/bin";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    let out = PathBuf::from(variable("OUT_DIR")?);
    for dir in ["enforcer-ebpf", "abi"] {
        println!("cargo:rerun-if-changed={}", root.join(dir).display());
    }
    let path = format!("{LLVM}:{}", env::var("PATH").unwrap_or_default());
    require_linker(&path)?;
    let sysroot = require_core_sources()?;

    let target_dir = out.join("ebpf");
    let output = Command::new(variable("CARGO")?)
        .current_dir(&root)
        .args(["build", "--package", PACKAGE, "--bins", "--release", "--target", TARGET, "-Z", "build-std=core"])
        .args(["--config", &format!("target.{TARGET}.linker=\"bpf-linker\"")])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", &path)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&root, &sysroot)?.join("\x1f"))
        // Wrappers such as clippy's are meant for the host's crates.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC")
        .output()
        .map_err(|e| format!("cargo could not be run for the eBPF programs: {e}"))?;
    if !output.status.success() {
        return Err(format!("the eBPF programs do not build:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let object = target_dir.join(TARGET).join("release/ringfence");
    strip(&path, &object, &out.join("ringfence.bpf.o"))
}

/// BTF names the source of every instruction. Where that lay on this machine is left out of it: the same sources are the
/// same object everywhere.
fn flags(root: &Path, sysroot: &Path) -> Result<Vec<String>, String> {
    let root = root.canonicalize().map_err(|e| format!("{}: {e}", root.display()))?;
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    let mut flags =
        ["--cfg=bpf_target_arch=\"x86_64\"", "-Cdebuginfo=2", "-Clink-arg=--btf"].map(str::to_owned).to_vec();
    let places = [(cargo.as_deref(), "/cargo"), (Some(sysroot), "/rust"), (Some(&root), "/ringfence")];
    for (from, to) in places {
        flags.extend(from.map(|from| format!("--remap-path-prefix={}={to}", from.display())));
    }
    Ok(flags)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set: this is a cargo build script"))
}

/// Leaves BTF, and takes away the debug information that it was made from: two thirds of the object, which would lie in
/// the enforcer's memory.
fn strip(path: &str, from: &Path, to: &Path) -> Result<(), String> {
    let output = Command::new("llvm-objcopy")
        .args(["--strip-debug".as_ref(), from, to])
        .env("PATH", path)
        .output()
        .map_err(|e| format!("llvm-objcopy could not be run ({e}); run: cargo xtask setup"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("llvm-objcopy: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn require_linker(path: &str) -> Result<(), String> {
    let found = env::split_paths(path).any(|dir| dir.join("bpf-linker").is_file());
    if found { Ok(()) } else { Err("bpf-linker is missing; run: cargo xtask setup".to_owned()) }
}

/// The folder of the toolchain, which has to have them.
fn require_core_sources() -> Result<PathBuf, String> {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let sysroot = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|e| format!("rustc could not be run: {e}"))?
        .stdout;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot).trim());
    if sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        Ok(sysroot)
    } else {
        Err("the sources of core (rust-src) are missing; run: cargo xtask setup".to_owned())
    }
}
