//! What can be wrong with the node's kernel, or with what is on it.

use std::path::PathBuf;

/// Why the programs could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel shows no types.
    #[error(
        "this kernel lacks BTF (/sys/kernel/btf/vmlinux); a kernel >= 5.8 built with CONFIG_DEBUG_INFO_BTF=y is needed, and \
         --btf FILE where it has it and the file is hidden"
    )]
    NoTypes,
    /// They can't be read.
    #[error(
        "the kernel's types can't be read from {path} (--btf FILE: BTF, or an ELF file with a section .BTF): {source}",
        path = path.display()
    )]
    Types {
        /// The file.
        path: PathBuf,
        /// What the BTF reader said.
        #[source]
        source: ringfence_btf::Error,
    },
    /// They are another kernel's.
    #[error(
        "--btf {path}: these are not the types of this kernel, which are in /sys/kernel/btf/vmlinux; leave --btf away",
        path = .0.display()
    )]
    ForeignTypes(PathBuf),
    /// The kernel does not know them.
    #[error(
        "with the types of --btf {path} this kernel loads nothing: they are another kernel's, or it was built without its own \
         (CONFIG_DEBUG_INFO_BTF=n), in which it looks up what a program sits on: {source}",
        path = path.display()
    )]
    UnknownTypes {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Box<Self>,
    },
    /// A kernel struct lacks a member that the programs read.
    #[error("this kernel's BTF has no unambiguous {member}: {source}")]
    Member {
        /// Struct and member.
        member: String,
        /// What the BTF reader said.
        #[source]
        source: ringfence_btf::Error,
    },
    /// A feature that everything depends on is missing.
    #[error("this kernel lacks {feature}; {remedy}")]
    Missing {
        /// What is missing.
        feature: &'static str,
        /// Since when it is there, or what to switch on.
        remedy: &'static str,
    },
    /// Not enough rights.
    #[error(
        "missing capability {0}; run as root, or in a container with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYS_ADMIN"
    )]
    Capability(&'static str),
    /// The object as a whole.
    #[error("the eBPF object was refused: {0}")]
    Object(#[from] aya::EbpfError),
    /// One program.
    #[error("program {program} for {hook}: {source}")]
    Program {
        /// Its name in the object.
        program: &'static str,
        /// Its hook.
        hook: String,
        /// What the kernel said.
        #[source]
        source: aya::programs::ProgramError,
    },
    /// A map.
    #[error("map {map}: {source}")]
    Map {
        /// Its name in the object.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: aya::maps::MapError,
    },
    /// A file of the bpf file system, or another one.
    #[error("{path}: {source}", path = path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Another enforcer has the pins.
    #[error("an enforcer is already at work over {path}: stop it first", path = .0.display())]
    InUse(PathBuf),
    /// A link that can't be kept over a restart.
    #[error("link {0} can't be pinned: {1}")]
    Pin(String, String),
    /// More pods than slots.
    #[error("all {0} slots are taken: no more containers can be governed on this node")]
    NoSlot(u32),
    /// The network side.
    #[error(transparent)]
    Network(#[from] ringfence_netiso::Error),
}
