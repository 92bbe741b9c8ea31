//! A Debian root file system with what people run in containers, made once and kept for later runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::cache;
use crate::harness::Image;

/// Name of the image.
pub const NAME: &str = "localhost/debian:1";

/// Debian's release.
const SUITE: &str = "bookworm";

/// What is installed in it, besides what every Debian has.
const INSTALLED: [&str; 24] = [
    "apache2-utils",
    "apt-utils",
    "cron",
    "curl",
    "gcc",
    "git",
    "libc6-dev",
    "logrotate",
    "make",
    "nginx-light",
    "nodejs",
    "openssh-client",
    "openssh-server",
    "perl",
    "postgresql",
    "procps",
    "python3",
    "python3-pip",
    "python3-venv",
    "redis-server",
    "rsyslog",
    "socat",
    "sqlite3",
    "xz-utils",
];

/// What lies in it as packages, to be installed while a container runs: with a daemon's, a setuid program's and a
/// library's scripts; some of them are installed already, as at an upgrade.
const BROUGHT: &str = "bash ca-certificates coreutils dash hello libc-bin libc6 libcap2-bin libpam-modules libyaml-0-2 \
                       login openssl passwd python3-wheel python3-yaml sudo";

/// Left out: of no use to any program that the workloads run, and more than half of the size.
const EXCLUDED: [&str; 8] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/bin/*-lto-dump-*",
    "/usr/lib/gcc/*/lto1",
    "/usr/lib/x86_64-linux-gnu/libLLVM-*",
    "/usr/lib/postgresql/*/lib/llvmjit.so",
    "/usr/lib/postgresql/*/lib/bitcode/*",
];

/// Done in the root file system, which is `$1`, in the end.
const FINISH: [&str; 3] = [
    // A workload makes its own.
    r#"chroot "$1" pg_dropcluster 15 main"#,
    r#"mkdir -p "$1/srv/packages""#,
    r#"chroot "$1" sh -c "cd /srv/packages && apt-get --quiet=2 download PACKAGES""#,
];

/// The image. Fetched from Debian, which takes minutes, when this machine does not have it.
pub fn image() -> Result<Image> {
    Ok(Image::archive(NAME, &archive()?))
}

/// The archive in the cache. Its name says of what it was made: another recipe is another archive.
fn archive() -> Result<PathBuf> {
    let recipe = recipe();
    let digest = Sha256::digest(recipe.join("\n"));
    let key: Vec<_> = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = cache::folder("debian")?;
    let archive = folder.join(format!("{SUITE}-{}.tar", key.concat()));
    if !archive.is_file() {
        make(&recipe, &folder, &archive).context("make a Debian root file system")?;
    }
    Ok(archive)
}

/// Arguments of mmdebstrap.
fn recipe() -> Vec<String> {
    let mut recipe: Vec<String> = ["--mode=root", "--variant=apt", "--format=tar", "--quiet"].map(str::to_owned).into();
    recipe.push(format!("--include={}", INSTALLED.join(",")));
    // The clock of a test machine may be anything.
    for option in [r#"APT::Install-Recommends "false""#, r#"Acquire::Check-Valid-Until "false""#] {
        recipe.push(format!("--aptopt={option}"));
    }
    recipe.extend(EXCLUDED.map(|path| format!("--dpkgopt=path-exclude={path}")));
    recipe.extend(FINISH.map(|hook| format!("--customize-hook={}", hook.replace("PACKAGES", BROUGHT))));
    recipe.push(SUITE.to_owned());
    recipe
}

fn make(recipe: &[String], folder: &Path, archive: &Path) -> Result<()> {
    eprintln!("fetching a Debian root file system into the cache, once: {}", archive.display());
    let unfinished = folder.join(format!(".{}.tar", std::process::id()));
    let output = Command::new("mmdebstrap").args(recipe).arg(&unfinished).stdin(Stdio::null()).output();
    let made = output.context("mmdebstrap: is it installed?").and_then(|output| {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<_> = said.lines().rev().take(8).collect();
        let last: Vec<_> = last.into_iter().rev().collect();
        ensure!(output.status.success(), "mmdebstrap ended with {}: {}", output.status, last.join("\n"));
        // One step: whoever finds the archive finds all of it.
        Ok(fs::rename(&unfinished, archive)?)
    });
    if made.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    made
}
