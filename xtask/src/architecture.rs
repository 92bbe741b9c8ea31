//! Architectures that programs are built for, on whichever this machine is.

use std::process::Command;

use clap::ValueEnum;
use ringfence_image::Architecture;

/// An architecture, as images and Debian name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// 64-bit x86.
    Amd64,
    /// 64-bit Arm.
    Arm64,
}

impl From<Arch> for Architecture {
    fn from(arch: Arch) -> Self {
        match arch {
            Arch::Amd64 => Self::Amd64,
            Arch::Arm64 => Self::Arm64,
        }
    }
}

/// Has cargo build static programs for an architecture, C included.
pub fn build_for(cargo: &mut Command, architecture: Architecture) {
    cargo.args(["--target", architecture.target()]);
    if architecture == Architecture::Arm64 {
        // musl's own objects come with the target. Debian's compiler has glibc's headers, which agree with musl in all that
        // the C in here (ring, the webhook's allocator) takes from them.
        cargo.env("CC_aarch64_unknown_linux_musl", "aarch64-linux-gnu-gcc");
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld");
    }
}
