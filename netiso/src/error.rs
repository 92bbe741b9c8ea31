//! What can go wrong, and where.

use aya::{maps::MapError, programs::ProgramError};
use std::{io, path::PathBuf};

/// Why a datapath could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The eBPF object was built without this map.
    #[error("the eBPF object has no map {0}; it does not belong to this version")]
    NoMap(&'static str),
    /// The eBPF object was built without this program, or with one of another type.
    #[error("the eBPF object has no program {0} of the right type; it does not belong to this version")]
    NoProgram(&'static str),
    /// A map refused an access.
    #[error("eBPF map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        source: MapError,
    },
    /// The kernel refused to load a program.
    #[error("loading eBPF program {program}: {}", causes(.source))]
    Load {
        /// Its name.
        program: &'static str,
        /// The kernel's answer.
        source: ProgramError,
    },
    /// The kernel refused to attach a program.
    #[error("attaching eBPF program {program} to {to}: {}", causes(.source))]
    Attach {
        /// Its name.
        program: &'static str,
        /// Interface or cgroup.
        to: String,
        /// The kernel's answer.
        source: ProgramError,
    },
    /// A link could not be pinned, or a pin not be read or removed.
    #[error("pin {}: {source}", .path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory for pins is missing or not on a bpf file system.
    #[error("{} is not a directory on a bpf file system (mount -t bpf bpf /sys/fs/bpf, then make it)", .0.display())]
    NoPins(PathBuf),
    /// The cgroup could not be opened.
    #[error("cgroup {}: {source}", .path.display())]
    Cgroup {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory is not a cgroup v2; socket programs need one.
    #[error("{} is not a directory of a cgroup v2 hierarchy", .0.display())]
    NotCgroup2(PathBuf),
    /// A network namespace could not be opened or entered.
    #[error("network namespace {}: {source}", .path.display())]
    Netns {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file leads to another namespace than it did before: the process ended and its id was reused.
    #[error("network namespace {} is not the one it was: its process has ended", .0.display())]
    NetnsGone(PathBuf),
    /// A netlink request failed.
    #[error("netlink, {doing}: {source}")]
    Netlink {
        /// The request.
        doing: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A netlink socket could not be opened.
    #[error("netlink socket: {0}")]
    Socket(io::Error),
    /// No such slot.
    #[error("slot {0} does not exist: slots are 1 to {max}", max = ringfence_abi::SLOTS - 1)]
    Slot(u32),
}

/// An error with all that caused it: aya's own messages leave the kernel's answer to `source`.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
