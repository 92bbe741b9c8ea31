//! The first root file system of a VM: busybox, our programs, modules, an init script.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{
    Cgroups,
    kernels::{self, Unpacked},
    quiet,
};

/// What init writes before it runs the command.
pub const BEGIN: &str = "init: the command begins";

/// What init writes in front of the command's exit code.
pub const END: &str = "init: the command ended with";

const INIT: &str = include_str!("init.sh");
const DISK: &str = include_str!("disk.sh");

/// What a VM does once it has booted.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// Runs a shell command.
    Command(&'a str),
    /// Offers an interactive shell.
    Shell,
    /// Goes on from its first disk, which has an `/init`.
    Disk,
}

/// What goes into a VM besides busybox.
pub struct Contents<'a> {
    /// Static programs; they come to lie in /bin.
    pub programs: Vec<PathBuf>,
    /// Programs of this machine, with the libraries that they need, and where they come to lie.
    pub of_this_machine: Vec<(PathBuf, PathBuf)>,
    /// Kernel modules to load.
    pub modules: &'a [&'a str],
    /// How control groups are mounted.
    pub cgroups: Cgroups,
}

impl Contents<'_> {
    /// Packs an initramfs into a file.
    pub fn pack(&self, kernel: &Unpacked, purpose: Purpose, image: &Path) -> Result<()> {
        let root = tempfile::Builder::new().prefix("ringfence-initramfs-").tempdir()?;
        let root = root.path();
        for folder in ["bin", "dev", "disk", "etc", "modules", "proc", "root", "run", "sys", "tmp", "usr", "var"] {
            fs::create_dir(root.join(folder))?;
        }
        for program in self.programs.iter().chain([&kernels::busybox(kernel.architecture())?]) {
            let name = program.file_name().with_context(|| format!("{} is no file", program.display()))?;
            fs::copy(program, root.join("bin").join(name))
                .with_context(|| format!("cannot copy {}", program.display()))?;
        }
        let mut libraries = BTreeSet::new();
        for (program, place) in &self.of_this_machine {
            libraries.extend(needed(program)?);
            copy(program, root, place)?;
        }
        libraries.iter().try_for_each(|library| copy(library, root, library))?;
        for (number, module) in kernel.modules(self.modules)?.iter().enumerate() {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            let name = name.trim_end_matches(".xz").trim_end_matches(".zst");
            // The number keeps the order: a module's dependencies are loaded before it.
            fs::write(root.join(format!("modules/{number:03}-{name}")), uncompressed(module)?)?;
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )?;
        fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        if let Purpose::Command(command) = purpose {
            fs::write(root.join("command"), format!("{command}\n"))?;
        }
        let init = root.join("init");
        let script = if matches!(purpose, Purpose::Disk) { DISK } else { INIT };
        fs::write(
            &init,
            script.replace("@CGROUPS@", self.cgroups.name()).replace("@BEGIN@", BEGIN).replace("@END@", END),
        )?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        cpio(root, image)
    }
}

fn copy(from: &Path, root: &Path, to: &Path) -> Result<()> {
    let to = root.join(to.strip_prefix("/").unwrap_or(to));
    fs::create_dir_all(to.parent().unwrap_or(root))?;
    fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display())).map(drop)
}

/// The shared libraries that a program needs, its loader included; none of a static one.
fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    // It fails for a static program.
    let said = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// A module's bytes, whichever way the distribution packed them.
fn uncompressed(module: &Path) -> Result<Vec<u8>> {
    let program = match module.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(module).with_context(|| format!("cannot read {}", module.display())),
    };
    let output = quiet(program).args(["--decompress", "--stdout", "--quiet"]).arg(module).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} cannot unpack {}", module.display());
    }
    Ok(output.stdout)
}

/// Packs a folder into the format that the kernel unpacks, everything owned by root.
fn cpio(root: &Path, image: &Path) -> Result<()> {
    let mut command = Command::new("cpio");
    command.args(["--create", "--format=newc", "--null", "--owner=+0:+0", "--quiet"]).current_dir(root);
    let image = File::create(image).with_context(|| format!("cannot make {}", image.display()))?;
    let mut child = command.stdin(Stdio::piped()).stdout(image).spawn().context("cannot start cpio")?;
    let mut names = Vec::new();
    list(root, Path::new(""), &mut names)?;
    child.stdin.take().context("standard input is piped")?.write_all(&names)?;
    if !child.wait()?.success() {
        bail!("cpio cannot pack {}", root.display());
    }
    Ok(())
}

/// Names below a folder, folders before what is in them, each ended by a zero.
fn list(root: &Path, below: &Path, names: &mut Vec<u8>) -> Result<()> {
    for entry in root.join(below).read_dir()? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        names.extend_from_slice(name.as_os_str().as_encoded_bytes());
        names.push(0);
        if entry.file_type()?.is_dir() {
            list(root, &name, names)?;
        }
    }
    Ok(())
}
