//! Builds the eBPF object with stable rustc (`-Z build-std=core`, which `RUSTC_BOOTSTRAP` permits) and bpf-linker, once for
//! each way to read kernel memory.
//!
//! `aya-build` does the same, but takes `RUSTC_BOOTSTRAP` from the caller's environment, and an ordinary
//! `cargo build` has to do.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "ringfence-enforcer-ebpf";
/// Where Debian puts the LLVM that bpf-linker loads.
const LLVM: &str = "/usr/lib/llvm-22/bin";
/// The objects, and the features that each is built with.
const OBJECTS: [(&str, &str); 2] =
    [("ringfence.bpf.o", ""), ("ringfence-direct-reads.bpf.o", "ringfence-enforcer-ebpf/direct-reads")];
/// Set while somebody works on the programs: the verifier's log then names lines of the source.
const LINES: &str = "RINGFENCE_EBPF_LINES";

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

    println!("cargo:rerun-if-env-changed={LINES}");
    let target_dir = out.join("ebpf");
    for (object, features) in OBJECTS {
        let output = Command::new(variable("CARGO")?)
            .current_dir(&root)
            .args(["build", "--package", PACKAGE, "--bins", "--release", "--target", TARGET, "-Z", "build-std=core"])
            .args(["--features", features, "--config", &format!("target.{TARGET}.linker=\"bpf-linker\"")])
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
        strip(&path, &target_dir.join(TARGET).join("release/ringfence"), &out.join(object))?;
    }
    Ok(())
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

/// Leaves BTF, and takes away the debug information that it was made from, and which line of the source each instruction
/// is of: together nine tenths of the object, which would lie in the enforcer's memory, be handed to the kernel with each
/// program, and be moved there with every instruction that the verifier takes out.
fn strip(path: &str, from: &Path, to: &Path) -> Result<(), String> {
    let objcopy = |args: &[&OsStr]| {
        let output = Command::new("llvm-objcopy").args(args).env("PATH", path).output();
        let output = output.map_err(|e| format!("llvm-objcopy could not be run ({e}); run: cargo xtask setup"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("llvm-objcopy: {said}")) }
    };
    objcopy(&["--strip-debug".as_ref(), from.as_ref(), to.as_ref()])?;
    if env::var_os(LINES).is_some() {
        return Ok(());
    }
    let section = to.with_extension("btf-ext");
    let named = |option: &str| OsString::from_iter([OsStr::new(option), section.as_ref()]);
    objcopy(&[&named("--dump-section=.BTF.ext="), to.as_ref(), to.as_ref()])?;
    let failed = |e| format!("{}: {e}", section.display());
    let stripped = without_lines(&fs::read(&section).map_err(failed)?).ok_or("the object's .BTF.ext is cut short")?;
    fs::write(&section, stripped).map_err(failed)?;
    // Nobody applies its relocations: a record says by itself which instruction it is of.
    objcopy(&["--remove-section=.rel.BTF.ext".as_ref(), &named("--update-section=.BTF.ext="), to.as_ref(), to.as_ref()])
}

/// A `.BTF.ext` section (Documentation/bpf/btf.rst) without its part on lines, which stands between that on functions and
/// that on relocations.
fn without_lines(section: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u32::from_le_bytes(*section.get(at..)?.first_chunk()?));
    let header = word(4)? as usize;
    let [lines, lines_len, relocations, relocations_len] = [word(16)?, word(20)?, word(24)?, word(28)?];
    let body = section.get(header..)?;
    let part = |from: u32, len: u32| body.get(from as usize..(from as usize).checked_add(len as usize)?);
    let mut stripped = section.get(..header)?.to_vec();
    stripped.extend(part(0, lines)?);
    stripped.extend(part(relocations, relocations_len)?);
    stripped[20..24].copy_from_slice(&0_u32.to_le_bytes());
    stripped[24..28].copy_from_slice(&(relocations.checked_sub(lines_len)?).to_le_bytes());
    Some(stripped)
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
