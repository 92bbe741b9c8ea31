//! The command line.

use crate::uninstall::IsolatedPods;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// The agent of a node: detects violations of rulesets in its containers, and mitigates them right there.
#[derive(Debug, Parser)]
#[command(name = "enforcer", version, after_help = EXAMPLE, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// What to do instead of enforcing.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to enforce.
    #[command(flatten)]
    pub run: Run,
}

const EXAMPLE: &str = "Examples:\n  enforcer --standalone --rulesets /etc/ringfence/rulesets --output text\n  \
                       enforcer --cluster --policy default --node worker-1";

/// What to do instead of enforcing.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Removes every trace from the kernel: programs, maps, pins, filters. Proves it by listing what is left.
    #[command(after_help = "Example:\n  enforcer uninstall")]
    Uninstall {
        /// Where the bpf file system is mounted.
        #[arg(long, default_value = BPFFS, value_name = "DIR")]
        bpffs: PathBuf,
        /// Folder for what outlived the enforcer.
        #[arg(long, default_value = STATE, value_name = "DIR")]
        state: PathBuf,
        /// What becomes of containers and pods that are isolated. Kept ones stay cut off by what is left for them alone,
        /// until this is run again without it, or the node restarts.
        #[arg(long, value_enum, default_value = "release")]
        isolated: IsolatedPods,
    },
    /// Mounts the bpf file system where it is missing. It stays.
    #[command(after_help = "Example:\n  enforcer mount")]
    Mount {
        /// Where it is, or is to be, mounted.
        #[arg(long, default_value = BPFFS, value_name = "DIR")]
        bpffs: PathBuf,
    },
    /// Loads every program without attaching it, and prints what it took the verifier. Exit code 2 if one is refused.
    #[command(after_help = "Example:\n  enforcer verify exec")]
    Verify {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        /// The kernel's types, where /sys/kernel/btf/vmlinux is hidden.
        #[arg(long, value_name = "FILE")]
        btf: Option<PathBuf>,
        /// Only programs whose name contains this.
        #[arg(default_value = "")]
        filter: String,
    },
}

const BPFFS: &str = "/sys/fs/bpf";
const STATE: &str = "/run/ringfence";

/// How to enforce.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct Run {
    /// Without a cluster: rulesets from files, containers from the container runtime.
    #[arg(long)]
    pub standalone: bool,
    /// In a Kubernetes cluster: rulesets, policy and this node's pods from the API server.
    #[arg(long, conflicts_with_all = ["standalone", "rulesets", "cgroup"])]
    pub cluster: bool,
    /// With --cluster: name of the policy (`RuntimePolicy`) that is active.
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub policy: Option<String>,
    /// With --cluster: the namespace that Ringfence runs in, which is never governed. Default: of the service account.
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub namespace: Option<String>,
    /// With --cluster: the `DaemonSet` in that namespace whose pod this is. When it is deleted and this enforcer ends,
    /// every trace is removed from the kernel, as by `enforcer uninstall`.
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub daemon_set: Option<String>,
    /// With --daemon-set: the `ConfigMap` in that namespace whose key isolatedPods says what becomes of isolated pods then:
    /// release (the default) or keep.
    #[arg(long, value_name = "NAME", requires = "daemon_set")]
    pub removal: Option<String>,
    /// With --cluster: the pod in that namespace that this is. It bears the node's report, for the statuses of rulesets
    /// and policies. Default: there is none.
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub pod: Option<String>,
    /// With --cluster: how to reach the API server. Default: as a pod does, by its service account.
    #[arg(long, value_name = "FILE", requires = "cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// File or folder of rulesets (YAML); changes are loaded as they appear.
    #[arg(long, value_name = "PATH")]
    pub rulesets: Option<PathBuf>,
    /// Folder of rules (RF-nnn.yaml) to use instead of the built-in catalogue, to try out rules of one's own.
    #[arg(long, value_name = "DIR")]
    pub catalogue: Option<PathBuf>,
    /// containerd's socket.
    #[arg(long, value_name = "SOCKET", default_value = ringfence_containers::CONTAINERD_SOCKET)]
    pub containerd: PathBuf,
    /// A namespace of containerd to govern; may be repeated. Default: default, k8s.io, moby.
    #[arg(long, value_name = "NAME")]
    pub containerd_namespace: Vec<String>,
    /// Find containers through CRI at this socket (CRI-O) instead of containerd.
    #[arg(long, value_name = "SOCKET", conflicts_with = "containerd_namespace")]
    pub cri: Option<PathBuf>,
    /// Govern this cgroup (an absolute path below the hierarchy's root) without a runtime; may be repeated. Labels that
    /// selectors match may follow: /app:tier=web,app=shop.
    #[arg(long, value_name = "PATH[:KEY=VALUE,..]", conflicts_with_all = ["cri", "containerd_namespace"])]
    pub cgroup: Vec<String>,
    /// cgroup v2 directory above all containers, where their packets are dropped when they are isolated. Default: the
    /// root of the v2 hierarchy.
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// Isolate by these datapaths only; may be repeated. Default: cgroup, and tcx (clsact where the kernel has no tcx).
    #[arg(long, value_enum)]
    pub datapath: Vec<Datapath>,
    /// Networks that an isolated container may still exchange packets with; may be repeated.
    #[arg(long, value_name = "CIDR")]
    pub exception: Vec<String>,
    /// When isolated, drop also the node's own probes.
    #[arg(long)]
    pub strict: bool,
    /// No stronger tier than this.
    #[arg(long, value_enum, default_value = "lsm")]
    pub tier: StrongestTier,
    /// The kernel's types, where /sys/kernel/btf/vmlinux is hidden: bare BTF, or an ELF file with a section .BTF, such as
    /// this kernel's vmlinux.
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
    /// Where `ringfence` finds this enforcer.
    #[arg(long, value_name = "SOCKET", default_value = ringfence_control::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Folder for what must outlive the enforcer but not the node.
    #[arg(long, value_name = "DIR", default_value = STATE)]
    pub state: PathBuf,
    /// Where the bpf file system is, or is to be, mounted.
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    pub bpffs: PathBuf,
    /// How violations are printed.
    #[arg(long, value_enum, default_value = "json")]
    pub output: Output,
    /// Append violations to this file instead of printing them.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Name of this node: in events, and with --cluster at the API server. Default: the host name.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Hold every answer of the kernel against the rules' declarations, and say where they differ.
    #[arg(long)]
    pub check: bool,
}

/// Where the packets of isolated containers are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Datapath {
    /// At the sockets, by the cgroup v2 above them.
    Cgroup,
    /// On the host side of their veths, by tcx (6.6).
    Tcx,
    /// On the host side of their veths, by a clsact qdisc's filters.
    Clsact,
}

/// An upper bound for the tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StrongestTier {
    /// LSM programs, which deny.
    Lsm,
    /// Trampolines on the functions of security hooks: detect and kill.
    Fentry,
    /// Kprobes on the same functions.
    Kprobe,
    /// Tracepoints, which detect and kill.
    Tracepoint,
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// One JSON object per line.
    Json,
    /// For a terminal.
    Text,
}
