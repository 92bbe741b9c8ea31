//! `ringfence-integration`: the proof. Real containers break each rule, and what the enforcer did is judged.

mod bare;
mod bench;
mod bpffs;
mod cache;
mod cases;
mod chart;
mod cluster;
mod debian;
mod demo;
mod enforcer;
mod harness;
mod image;
mod in_cluster;
mod journal;
mod messages;
mod rulesets;
mod scale;
mod sink;
mod suite;
mod vm;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use ringfence_control::Tier;
use suite::Programs;

/// Real containers break each rule, and what the enforcer did is judged.
#[derive(Parser)]
#[command(name = "ringfence-integration", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Performs every behaviour and near miss in containers without an enforcer: they must all be possible. Needs root.
    Behaviours {
        /// Only those whose name holds this text, such as `RF-501/`.
        #[arg(long, default_value = "")]
        filter: String,
        /// The actor, static; `ringfence-actor` beside this program by default.
        #[arg(long)]
        actor: Option<PathBuf>,
    },
    /// Runs the tests: one line each, `N passed, N failed, N skipped` at the end. Needs root.
    Suite {
        /// Only tests whose name holds this text, such as `RF-501/` or `crash`.
        #[arg(long, default_value = "")]
        filter: String,
        /// Only tests whose name begins with this and a slash, such as `networks` or `networks/dual`.
        #[arg(long, default_value = "")]
        part: String,
        /// Says which tests there are instead of running them.
        #[arg(long)]
        list: bool,
        /// The enforcer; the one beside this program by default.
        #[arg(long)]
        enforcer: Option<PathBuf>,
        /// The actor, static; `ringfence-actor` beside this program by default.
        #[arg(long)]
        actor: Option<PathBuf>,
    },
    /// Shows three containers breaking rules, and what the node does about it. Needs root.
    Demo {
        /// The enforcer; the one beside this program by default.
        #[arg(long)]
        enforcer: Option<PathBuf>,
        /// The actor, static; `ringfence-actor` beside this program by default.
        #[arg(long)]
        actor: Option<PathBuf>,
        /// In Kubernetes; the programs are those beside this one.
        #[arg(long, conflicts_with_all = ["enforcer", "actor"])]
        cluster: bool,
    },
    /// A real Kubernetes cluster on this machine. Needs root.
    #[command(subcommand)]
    Cluster(cluster::Subcommand),
    /// Runs the tests that need a cluster, in one of their own for each Kubernetes. Needs root.
    ClusterSuite {
        /// Only tests whose name holds this text.
        #[arg(long, default_value = "")]
        filter: String,
        /// Says which tests there are instead of running them.
        #[arg(long)]
        list: bool,
        /// The folder with the enforcer, the webhook and `ringfence`, static; this program's by default.
        #[arg(long)]
        programs: Option<PathBuf>,
        /// All tests on this Kubernetes alone; may be repeated. Without it, all on the newest, and the essential on the
        /// others if they are built already.
        #[arg(long, value_enum, value_name = "VERSION")]
        kubernetes: Vec<cluster::Version>,
        /// A second node is a VM that boots with the files `vmlinuz` and `initramfs` of this folder. Without it, tests of
        /// two nodes are skipped.
        #[arg(long, value_name = "FOLDER")]
        boot: Option<PathBuf>,
    },
    /// Lets a cluster live for a while with pods that break rules, and looks whether anything grows. Needs root.
    Soak {
        /// How long, in minutes.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// The folder with the programs, as for cluster-suite.
        #[arg(long)]
        programs: Option<PathBuf>,
    },
    /// Measures the enforcer's price per operation and its latencies on this kernel; prints Markdown. Needs root.
    Bench {
        /// The enforcer; the one beside this program by default.
        #[arg(long)]
        enforcer: Option<PathBuf>,
        /// Only this part; may be repeated.
        #[arg(long, value_enum, value_name = "PART")]
        only: Vec<bench::Part>,
        /// Where every sample is written, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Only the price per operation and the latencies with no stronger tier than this, as rows of tables that have
        /// ratios alone: for kernels that are emulated.
        #[arg(long, value_name = "TIER", value_parser = tier, conflicts_with_all = ["only", "json"])]
        ratios: Option<Tier>,
    },
    /// Measures the webhook, and what enforcers cost an API server, in a cluster of many objects; prints Markdown. Needs
    /// root.
    Scale {
        /// What is measured.
        #[command(subcommand)]
        part: scale::Part,
        /// The folder with the enforcer and the webhook, static; this program's by default.
        #[arg(long)]
        programs: Option<PathBuf>,
        /// Where the numbers are written, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// What is measured.
    #[command(hide = true)]
    BenchWorker { cgroup: PathBuf },
    /// Runs the tests of a VM: no container runtime, bare containers, the tiers that this machine's kernel refuses.
    VmSuite {
        /// Only tests whose name holds this text.
        #[arg(long, default_value = "")]
        filter: String,
        /// How much of them.
        #[arg(long, value_enum, default_value = "full")]
        extent: vm::Extent,
        /// How cgroups have to be mounted; tested.
        #[arg(long, value_enum, default_value = "v2")]
        cgroups: vm::Cgroups,
    },
}

impl Programs {
    /// The named ones, and else those beside this program.
    fn find(enforcer: Option<PathBuf>, actor: Option<PathBuf>) -> Result<Self> {
        let beside = |name: &str, named: Option<PathBuf>| named.map_or_else(|| enforcer::beside_this_program(name), Ok);
        Ok(Self { enforcer: beside("enforcer", enforcer)?, actor: beside("ringfence-actor", actor)? })
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A tier by its name.
fn tier(name: &str) -> Result<Tier, String> {
    let tiers = [Tier::Tracepoint, Tier::Kprobe, Tier::Fentry, Tier::Lsm];
    tiers
        .into_iter()
        .find(|tier| tier.name() == name)
        .ok_or_else(|| format!("none of {}", tiers.map(Tier::name).join(", ")))
}

/// Where this program is, and usually the others.
fn own_folder() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(""))
}

fn run(command: Command) -> Result<ExitCode> {
    if let Command::Suite { filter, part, list: true, .. } = &command {
        suite::list(part, filter);
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::ClusterSuite { filter, list: true, kubernetes, .. } = &command {
        in_cluster::list(filter, kubernetes)?;
        return Ok(ExitCode::SUCCESS);
    }
    // A cluster's node has mounts of its own, and the user's shell has the user's.
    if !matches!(command, Command::Cluster(_)) {
        bpffs::private_mounts()?;
    }
    match command {
        Command::Cluster(command) => command.run(),
        Command::ClusterSuite { filter, programs, kubernetes, boot, .. } => {
            in_cluster::run(&programs.map_or_else(own_folder, Ok)?, &filter, &kubernetes, boot.as_deref())
        }
        Command::Soak { minutes, programs } => {
            in_cluster::soak::run(programs.map_or_else(own_folder, Ok)?, Duration::from_secs(minutes * 60))
        }
        Command::Suite { filter, part, enforcer, actor, .. } => {
            suite::run(&Programs::find(enforcer, actor)?, &part, &filter)
        }
        Command::Behaviours { filter, actor } => {
            // No enforcer will be started.
            suite::behaviours(&Programs::find(Some(PathBuf::new()), actor)?, &filter)
        }
        Command::Demo { cluster: true, .. } => demo::in_cluster::run(own_folder()?),
        Command::Demo { enforcer, actor, .. } => demo::run(&Programs::find(enforcer, actor)?),
        Command::Bench { enforcer, only, json, ratios } => {
            let enforcer = Programs::find(enforcer, Some(PathBuf::new()))?.enforcer;
            match ratios {
                Some(tier) => bench::ratios(&enforcer, tier)?,
                None => bench::run(&enforcer, &only, json.as_deref())?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Scale { part, programs, json } => {
            scale::run(&programs.map_or_else(own_folder, Ok)?, part, json.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::BenchWorker { cgroup } => bench::serve(&cgroup).map(|()| ExitCode::SUCCESS),
        Command::VmSuite { filter, extent, cgroups } => vm::run(&Programs::find(None, None)?, &filter, extent, cgroups),
    }
}
