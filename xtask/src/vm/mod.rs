//! Debian kernels in VMs, for what this machine's own kernel does not let us do.
//!
//! `kernels` fetches them, `initramfs` packs one with programs and modules, `machine` boots it and reads its console,
//! `verify` shows our programs to the verifier of each, `matrix` says what is tested where, `prices` measures the tiers.

mod initramfs;
mod kernels;
mod machine;
mod matrix;
mod prices;
mod verify;

use std::{
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::Result;
use clap::ValueEnum;
use ringfence_image::Architecture;
use tempfile::TempDir;

use self::{
    initramfs::Contents,
    kernels::Unpacked,
    machine::Machine,
    matrix::{Extent, NETWORKS, Place},
};
pub use self::{
    kernels::Kernel,
    matrix::{Matrix, part_of_a_name},
    prices::table as prices,
};
use crate::{
    Refusal,
    architecture::Arch,
    products::Products,
    setup::{self, Purpose},
};

/// How the control groups are mounted in the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cgroups {
    /// cgroup v2 alone, as on current distributions.
    V2,
    /// v1 controllers with an empty v2 hierarchy beside them.
    Hybrid,
    /// v1 alone.
    V1,
}

impl Cgroups {
    fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
            Self::V1 => "v1",
        }
    }
}

/// Modules to load, with what they depend on; what a kernel has built in is no module there.
const MODULES: [&str; 10] = [
    "overlay", // containers
    "veth",
    "bridge",
    "macvlan",
    "ipvlan",
    "br_netfilter",
    "sch_ingress", // the datapaths
    "cls_bpf",
    "tun",  // traffic
    "loop", // disks to be mounted
];

/// Arguments of `cargo xtask vm`. Without `--run` or `--shell` the VM tests run.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask vm --kernel 6.1 --run 'uname -r; cat /sys/kernel/security/lsm'")]
pub struct Arguments {
    /// The kernel: 6.1 where none is named, and all of them for --verify.
    #[arg(long, value_enum)]
    kernel: Option<Kernel>,
    /// The architecture that is emulated. On arm64 the tests are a smoke set.
    #[arg(long, value_enum, default_value = "amd64")]
    arch: Arch,
    /// A command for the VM's shell; its exit code is handed on.
    #[arg(long, value_name = "COMMAND", conflicts_with = "shell")]
    run: Option<String>,
    /// A shell on the VM's console. `exit` ends the VM.
    #[arg(long)]
    shell: bool,
    /// Only load every program on every kernel; print what it took the verifier, and what grew since the last commit.
    #[arg(long, conflicts_with_all = ["run", "shell", "filter", "cgroups", "file", "timeout", "memory"])]
    verify: bool,
    /// How control groups are mounted.
    #[arg(long, value_enum, default_value = "v2")]
    cgroups: Cgroups,
    /// A static program or another file to put into the VM's /bin; may be repeated.
    #[arg(long, value_name = "PATH")]
    file: Vec<PathBuf>,
    /// Seconds until a VM that is not done counts as hung.
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    timeout: u64,
    /// Memory in MiB.
    #[arg(long, value_name = "MIB", default_value = "1536")]
    memory: u32,
    /// Run the tests of networks that CNI plug-ins make, with containerd and runc, instead of the others.
    #[arg(long, conflicts_with_all = ["run", "shell", "verify", "arch"])]
    networks: bool,
    /// Run only the VM tests whose name contains this.
    #[arg(long, value_name = "TEXT", value_parser = part_of_a_name, conflicts_with_all = ["run", "shell"])]
    filter: Option<String>,
}

/// `cargo xtask vm`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(file) = arguments.file.iter().find(|file| !file.is_file()) {
        return Err(Refusal(format!("--file {}: there is no such file", file.display())).into());
    }
    let architecture = Architecture::from(arguments.arch);
    if arguments.verify {
        return verify(arguments.kernel, architecture);
    }
    let kernel = arguments.kernel.unwrap_or(Kernel::V6_1);
    if arguments.run.is_none() && !arguments.shell {
        setup::ensure(&[Purpose::Build, Purpose::Vm])?;
        let extent = match architecture {
            Architecture::Amd64 if arguments.networks => Extent::Networks(NETWORKS),
            Architecture::Amd64 => Extent::Full,
            Architecture::Arm64 => Extent::Smoke,
        };
        let place = Place { kernel, architecture, cgroups: arguments.cgroups, extent };
        let tally = place.suite(&Products::build_for(architecture)?, arguments.filter.as_deref())?;
        println!("{tally}");
        return Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    setup::ensure(&[Purpose::Vm])?;
    let contents = Contents {
        programs: arguments.file.clone(),
        of_this_machine: Vec::new(),
        modules: &MODULES,
        cgroups: arguments.cgroups,
    };
    let machine = Machine::new(kernel, architecture, &contents, arguments.memory)?;
    if arguments.shell {
        return machine.shell();
    }
    let command = arguments.run.as_deref().unwrap_or_default();
    let exit = machine.run(command, Duration::from_secs(arguments.timeout), |line| println!("{line}"))?;
    Ok(ExitCode::from(u8::try_from(exit).unwrap_or(1)))
}

fn verify(kernel: Option<Kernel>, architecture: Architecture) -> Result<ExitCode> {
    setup::ensure(&[Purpose::Build, Purpose::Vm])?;
    let kernels = kernel.map_or_else(|| Kernel::value_variants().to_vec(), |kernel| vec![kernel]);
    let products = Products::build_for(architecture)?;
    // What an earlier commit made of it is only built for this machine's.
    let build = architecture == Architecture::Amd64;
    let tally = verify::run(&verify::Kernels { kernels, architecture }, &products.enforcer(), build);
    println!("{tally}");
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The same for a VM with a disk and a network.
const MODULES_OF_A_NODE: [&str; 9] =
    ["virtio_pci", "virtio_blk", "virtio_net", "overlay", "veth", "bridge", "br_netfilter", "sch_ingress", "cls_bpf"];

/// What a VM boots with that goes on from its first disk: the files `vmlinuz` and `initramfs` of a folder.
pub fn boot_from_disk(kernel: Kernel) -> Result<TempDir> {
    let unpacked = Unpacked::fetch(kernel, Architecture::Amd64)?;
    let folder = tempfile::Builder::new().prefix("ringfence-boot-").tempdir()?;
    std::os::unix::fs::symlink(unpacked.image()?, folder.path().join("vmlinuz"))?;
    let contents = Contents {
        programs: Vec::new(),
        of_this_machine: Vec::new(),
        modules: &MODULES_OF_A_NODE,
        cgroups: Cgroups::V2,
    };
    contents.pack(&unpacked, initramfs::Purpose::Disk, &folder.path().join("initramfs"))?;
    Ok(folder)
}

/// A program whose output is not of interest unless it fails.
fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}
