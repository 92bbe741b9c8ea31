//! Debian's cloud kernels, fetched with an apt configuration of our own and unpacked, never installed.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::{ValueEnum, builder::PossibleValue};
use ringfence_apt::{Apt, Kind};
use ringfence_image::Architecture;
use sha2::{Digest as _, Sha256};

use super::quiet;
use crate::{places, process};

/// A kernel that tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 11.
    V5_10,
    /// Debian 12.
    V6_1,
    /// Debian 13.
    V6_12,
    /// What Debian unstable has today.
    Newest,
}

impl Kernel {
    fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::Newest => "sid",
        }
    }

    /// Whether a package `linux-image-VERSION-cloud-amd64` is one of this kernel. Packages without a version are
    /// empty ones that depend on the current.
    fn is_image(self, architecture: Architecture, package: &str) -> bool {
        let end = format!("-cloud-{architecture}");
        let version = package.strip_prefix("linux-image-").and_then(|rest| rest.strip_suffix(end.as_str()));
        version.is_some_and(|version| match self {
            Self::Newest => version.starts_with(|c: char| c.is_ascii_digit()),
            _ => version.strip_prefix(self.name()).is_some_and(|rest| rest.starts_with(['.', '-'])),
        })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ValueEnum for Kernel {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// An unpacked kernel.
#[derive(Debug)]
pub struct Unpacked {
    folder: PathBuf,
    architecture: Architecture,
}

impl Unpacked {
    /// Fetches a kernel, or finds it in the cache. A kernel in the cache stays there, under its version and hash, until it
    /// is deleted by hand; so does the link of its name, which says which version is used.
    pub fn fetch(kernel: Kernel, architecture: Architecture) -> Result<Self> {
        let name = match architecture {
            Architecture::Amd64 => kernel.name().to_owned(),
            Architecture::Arm64 => format!("{}-{architecture}", kernel.name()),
        };
        let folder = cached(&name, |work, unpacked| {
            download(kernel, architecture, work, unpacked).with_context(|| format!("cannot fetch Linux {name}"))
        })?;
        Ok(Self { folder, architecture })
    }

    /// What it runs on.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The kernel's image. From 7.x on it lies beside its modules.
    pub fn image(&self) -> Result<PathBuf> {
        let release = module_release(&self.folder)?;
        let places = [format!("boot/vmlinuz-{release}"), format!("lib/modules/{release}/vmlinuz")];
        let mut images = places.iter().map(|place| self.folder.join(place));
        images.find(|image| image.is_file()).with_context(|| format!("no vmlinuz in {}", self.folder.display()))
    }

    /// The files of some modules and of what they depend on, in the order in which they have to be loaded. A module
    /// that this kernel does not have, or has built in, yields none.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let release = module_release(&self.folder)?;
        let mut files: Vec<PathBuf> = Vec::new();
        for name in names {
            let mut modprobe = quiet("modprobe");
            modprobe.arg("--dirname").arg(&self.folder).args(["--set-version", &release, "--show-depends", name]);
            // It fails, and says so, where there is no such module.
            let output = modprobe.output().context("cannot start modprobe")?;
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                if let Some(file) = line.strip_prefix("insmod ").map(|rest| PathBuf::from(rest.trim_end()))
                    && !files.contains(&file)
                {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

/// A static busybox for an architecture: of this machine's own, the one that is installed.
pub fn busybox(architecture: Architecture) -> Result<PathBuf> {
    if architecture == Architecture::native() {
        return Ok(PathBuf::from("/bin/busybox"));
    }
    let folder = cached(&format!("busybox-{architecture}"), |work, unpacked| {
        let suite = Kernel::V6_1.suite();
        let apt = Apt::new(work, Kind::Packages(architecture.name()), suite)?;
        println!("==> fetching busybox for {architecture} of Debian {suite} into the cache");
        process::succeed(apt.command("apt-get").args(["--quiet=2", "update"]))?;
        unpack(&apt, &["busybox-static"], work, unpacked)
    })?;
    // From Debian 13 on /bin is a link that packages do not hold.
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| folder.join(place));
    places.into_iter().find(|place| place.is_file()).with_context(|| format!("no busybox in {}", folder.display()))
}

/// A folder of the cache. Where it is missing, it is filled in `unpacked`, by who tells its own name: what it is, with its
/// hash.
fn cached(name: &str, fill: impl FnOnce(&Path, &Path) -> Result<String>) -> Result<PathBuf> {
    let kernels = places::cache("kernels")?;
    let link = kernels.join(name);
    if !link.is_dir() {
        let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(&kernels)?;
        let unpacked = work.path().join("unpacked");
        let own_name = fill(work.path(), &unpacked)?;
        let folder = kernels.join(&own_name);
        // One step: whoever finds the folder finds all of it. It may be there, or someone else may have been faster.
        fs::rename(&unpacked, &folder).or_else(|error| if folder.is_dir() { Ok(()) } else { Err(error) })?;
        let new_link = work.path().join("link");
        std::os::unix::fs::symlink(&own_name, &new_link)?;
        fs::rename(&new_link, &link)?;
    }
    Ok(link)
}

/// Fetches packages and unpacks them. Name and version of the first, and a hash of all.
fn unpack(apt: &Apt, packages: &[&str], work: &Path, unpacked: &Path) -> Result<String> {
    for package in packages {
        println!("    {package}");
        process::succeed(apt.command("apt-get").current_dir(work).args(["--quiet=2", "download", package]))?;
    }
    let mut files: Vec<_> = work.read_dir()?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    files.sort();
    let mut hash = Sha256::new();
    for file in &files {
        hash.update(fs::read(file).with_context(|| file.display().to_string())?);
        process::succeed(Command::new("dpkg-deb").arg("--extract").arg(file).arg(unpacked))?;
    }
    let mut names = files.iter().filter_map(|path| path.file_stem()?.to_str());
    let first = names.find(|name| name.split('_').next() == packages.first().copied());
    let hash: Vec<_> = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{}", first.context("apt-get fetched another package")?, hash.concat()))
}

fn download(kernel: Kernel, architecture: Architecture, work: &Path, unpacked: &Path) -> Result<String> {
    let apt = Apt::new(work, Kind::Packages(architecture.name()), kernel.suite())?;
    println!("==> fetching Linux {kernel} for {architecture} of Debian {} into the cache", kernel.suite());
    process::succeed(apt.command("apt-get").args(["--quiet=2", "update"]))?;
    let names = process::output(apt.command("apt-cache").args(["pkgnames", "linux-image-"]))?;
    let mut images: Vec<_> = names.lines().filter(|name| kernel.is_image(architecture, name)).collect();
    images.sort_by_cached_key(|name| numbers(name));
    let image = images.last().with_context(|| format!("Debian {} has no such cloud kernel", kernel.suite()))?;
    // From 7.x on the image's package is empty; the kernel and its modules are packages of their own.
    let parts = ["linux-binary", "linux-modules", "linux-base"].map(|part| image.replacen("linux-image", part, 1));
    let known = process::output(apt.command("apt-cache").args(["pkgnames", "linux-"]))?;
    let parts = parts.iter().map(String::as_str).filter(|part| known.lines().any(|name| name == *part));
    let packages: Vec<&str> = [*image].into_iter().chain(parts).collect();
    let own_name = unpack(&apt, &packages, work, unpacked)?;
    // From Debian 13 on the modules lie under usr/lib, where depmod and modprobe do not look.
    if unpacked.join("usr/lib/modules").is_dir() && !unpacked.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", unpacked.join("lib"))?;
    }
    process::succeed(Command::new("depmod").arg("--basedir").arg(unpacked).arg(module_release(unpacked)?))?;
    Ok(own_name)
}

/// The one folder of modules.
fn module_release(kernel: &Path) -> Result<String> {
    let modules = kernel.join("lib/modules");
    let entry = modules.read_dir().ok().and_then(|mut entries| entries.next()?.ok());
    let name = entry.with_context(|| format!("no modules in {}", modules.display()))?.file_name();
    Ok(name.to_string_lossy().into_owned())
}

/// The numbers in a package's name, by which versions are ordered.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told_apart() {
        assert!(Kernel::V6_1.is_image(Architecture::Amd64, "linux-image-6.1.0-39-cloud-amd64"));
        assert!(Kernel::Newest.is_image(Architecture::Amd64, "linux-image-7.2.1-cloud-amd64"));
        assert!(!Kernel::V6_1.is_image(Architecture::Amd64, "linux-image-6.12.9-cloud-amd64"));
        assert!(!Kernel::V6_1.is_image(Architecture::Amd64, "linux-image-6.1.0-39-amd64"));
        assert!(!Kernel::V6_1.is_image(Architecture::Amd64, "linux-image-6.1.0-39-cloud-amd64-unsigned"));
        assert!(!Kernel::Newest.is_image(Architecture::Amd64, "linux-image-cloud-amd64"));
        assert!(!Kernel::V6_1.is_image(Architecture::Amd64, "linux-image-6.1.0-39-cloud-arm64"));
        assert!(Kernel::V6_1.is_image(Architecture::Arm64, "linux-image-6.1.0-39-cloud-arm64"));
    }

    #[test]
    fn later_versions_come_last() {
        let mut names = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-39-cloud-amd64"];
        names.sort_by_key(|name| numbers(name));
        assert_eq!(names[1], "linux-image-6.1.0-39-cloud-amd64");
    }
}
