//! Debian packages.

use std::{collections::HashSet, path::Path, process::Command};

use anyhow::{Context, Result};

use super::Purpose;
use crate::process;

/// A package that is needed.
#[derive(Debug)]
pub struct Package {
    /// Debian's name for it.
    pub name: &'static str,
    /// What it is, for those who have another distribution.
    pub what: &'static str,
    purpose: Purpose,
    /// A program or file that shows on any distribution that it is there.
    sign: &'static str,
}

const fn package(purpose: Purpose, name: &'static str, sign: &'static str, what: &'static str) -> Package {
    Package { name, what, purpose, sign }
}

const C_FOR_ARM: &str = "a C compiler for 64-bit Arm, for the C in crate ring";
const C_HEADERS_FOR_ARM: &str = "/usr/aarch64-linux-gnu/include/assert.h";

/// All packages. LLVM has to be the version that rustc uses.
const PACKAGES: &[Package] = &[
    package(Purpose::Build, "musl-tools", "musl-gcc", "the compiler wrapper musl-gcc, for static programs"),
    package(Purpose::Build, "protobuf-compiler", "protoc", "protoc, for the containerd and CRI interfaces"),
    package(
        Purpose::Build,
        "llvm-22",
        "/usr/lib/llvm-22/bin/llvm-objcopy",
        "llvm-objcopy of LLVM 22, for the eBPF object",
    ),
    package(Purpose::Linker, "llvm-22-dev", "/usr/lib/llvm-22/bin/llvm-config", "LLVM 22 with headers, for bpf-linker"),
    package(Purpose::Linker, "libpolly-22-dev", "/usr/lib/llvm-22/lib/libPolly.a", "Polly of LLVM 22"),
    package(Purpose::Linker, "zlib1g-dev", "/usr/include/zlib.h", "zlib with headers"),
    package(Purpose::Linker, "libzstd-dev", "/usr/include/zstd.h", "zstd with headers"),
    package(Purpose::Containers, "containerd", "containerd", "containerd 1.6 or later, with its shim and ctr"),
    package(Purpose::Containers, "runc", "runc", "runc 1.1 or later"),
    package(Purpose::Containers, "containernetworking-plugins", "/usr/lib/cni/bridge", "the CNI plug-ins"),
    package(Purpose::Containers, "iproute2", "ip", "ip and tc"),
    package(Purpose::Containers, "busybox-static", "/bin/busybox", "a static busybox as /bin/busybox"),
    package(Purpose::Containers, "mmdebstrap", "mmdebstrap", "mmdebstrap, which fetches a Debian root file system"),
    package(Purpose::Bench, "linux-perf", "perf", "perf, for profiles"),
    package(Purpose::Cluster, "iptables", "iptables", "iptables, for kube-proxy"),
    package(Purpose::Cluster, "dpkg-dev", "dpkg-source", "dpkg-source, which unpacks the oldest Kubernetes' source"),
    package(Purpose::Image, "gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc", C_FOR_ARM),
    package(Purpose::Image, "libc6-dev-arm64-cross", C_HEADERS_FOR_ARM, "the C headers for it"),
    package(Purpose::Vm, "containerd", "containerd", "containerd 1.6 or later, with its shim and ctr"),
    package(Purpose::Vm, "runc", "runc", "runc 1.1 or later"),
    package(Purpose::Vm, "containernetworking-plugins", "/usr/lib/cni/bridge", "the CNI plug-ins"),
    package(Purpose::Vm, "iproute2", "ip", "ip and tc"),
    package(Purpose::Vm, "busybox-static", "/bin/busybox", "a static busybox as /bin/busybox"),
    package(Purpose::Vm, "qemu-system-x86", "qemu-system-x86_64", "qemu for x86-64"),
    package(Purpose::Vm, "qemu-system-arm", "qemu-system-aarch64", "qemu for 64-bit Arm"),
    package(Purpose::Vm, "gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc", C_FOR_ARM),
    package(Purpose::Vm, "libc6-dev-arm64-cross", C_HEADERS_FOR_ARM, "the C headers for it"),
    package(Purpose::Vm, "cpio", "cpio", "cpio, which packs the initramfs"),
    package(Purpose::Vm, "e2fsprogs", "mkfs.ext4", "mkfs.ext4, which makes the disk of a cluster's second node"),
    package(Purpose::Vm, "kmod", "modprobe", "modprobe and depmod"),
    package(Purpose::Vm, "xz-utils", "xz", "xz, for kernel modules"),
    package(Purpose::Vm, "zstd", "zstd", "zstd, for kernel modules"),
];

/// The packages that these purposes need and that are not installed.
pub fn missing(purposes: &[Purpose]) -> Result<Vec<Package>> {
    let installed = if is_debian() { Some(installed()?) } else { None };
    let mut named = HashSet::new();
    let needed = PACKAGES.iter().filter(|package| purposes.contains(&package.purpose) && named.insert(package.name));
    let is_missing = |package: &&Package| match &installed {
        Some(installed) => !installed.contains(package.name),
        None => !is_there(package.sign),
    };
    Ok(needed.filter(is_missing).map(|found| Package { ..*found }).collect())
}

/// Why packages cannot be installed here, if they cannot.
pub fn obstacle() -> Option<&'static str> {
    if !is_debian() {
        Some("this is not Debian (no dpkg-query and apt-get)")
    } else if !nix::unistd::geteuid().is_root() {
        Some("you are not root")
    } else {
        None
    }
}

/// Installs packages from the machine's own sources.
pub fn install(packages: &[Package]) -> Result<()> {
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    println!("setup: installing Debian packages: {}", names.join(" "));
    process::succeed(apt_get().args(["--quiet", "update"]))?;
    process::succeed(apt_get().args(["--quiet", "--yes", "--no-install-recommends", "install"]).args(&names))
        .with_context(|| format!("installing {}", names.join(" ")))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Another apt may be at work; wait for it, at most five minutes.
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}

fn is_debian() -> bool {
    process::exists("dpkg-query") && process::exists("apt-get")
}

fn is_there(sign: &str) -> bool {
    if sign.starts_with('/') { Path::new(sign).exists() } else { process::exists(sign) }
}

fn installed() -> Result<HashSet<String>> {
    let list =
        process::output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status} ${Package}\n"]))?;
    Ok(list.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect())
}
