//! All tests, and their sum.

use std::{
    iter,
    num::NonZero,
    process::{Command, ExitCode},
    thread,
    time::Instant,
};

use anyhow::Result;
use clap::ValueEnum;

use crate::{
    Refusal, places, process,
    products::Products,
    setup::{self, Purpose},
    tally::{Suite, Tally},
    vm::{self, Kernel, Matrix},
};

/// A group of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Unit and property tests, beside the code.
    Unit,
    /// Everything that needs root, containers and this machine's kernel.
    Containers,
    /// What needs a real Kubernetes cluster: one is started for it.
    Cluster,
    /// The same in a VM, with what this machine's kernel refuses.
    Vm,
}

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask test --only containers RF-901")]
pub struct Arguments {
    /// Run these groups only; may be repeated. Default: all.
    #[arg(long, value_enum, value_name = "GROUP")]
    only: Vec<Group>,
    /// All VM tests on this kernel alone; may be repeated. Without it: on all kernels, and some with cgroup v1 too.
    #[arg(long, value_enum)]
    kernel: Vec<Kernel>,
    /// Without the tests of two nodes, whose second one is a VM with the first --kernel, or 6.1: some four minutes less.
    #[arg(long)]
    one_node: bool,
    /// All cluster tests on this Kubernetes alone, such as 1.34, and only them unless --only says more; may be repeated.
    /// Without it: all on the newest, and the essential on the others if they are built already.
    #[arg(long, value_name = "VERSION")]
    kubernetes: Vec<String>,
    /// Run only tests whose name contains this.
    #[arg(value_parser = vm::part_of_a_name)]
    name: Option<String>,
}

/// `cargo xtask test`. The last line is the count.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let only = if arguments.only.is_empty() && !arguments.kubernetes.is_empty() {
        &[Group::Cluster][..]
    } else {
        &arguments.only
    };
    let wanted = |group| only.is_empty() || only.contains(&group);
    let mut purposes = vec![Purpose::Build];
    if wanted(Group::Containers) || wanted(Group::Cluster) {
        if !nix::unistd::geteuid().is_root() {
            let hint = "without them: cargo xtask test --only unit --only vm";
            return Err(
                Refusal(format!("the container and cluster tests load eBPF programs and need root; {hint}")).into()
            );
        }
        purposes.push(Purpose::Containers);
    }
    if wanted(Group::Cluster) {
        purposes.push(Purpose::Cluster);
    }
    let second_node = wanted(Group::Cluster) && !arguments.one_node;
    if wanted(Group::Vm) || second_node {
        purposes.push(Purpose::Vm);
    }
    setup::ensure(&purposes)?;

    let name = arguments.name.as_deref();
    let mut results = Results { began: Instant::now(), of: Vec::new() };
    if wanted(Group::Unit) {
        results.add("unit", unit(name)?);
    }
    if [Group::Containers, Group::Cluster, Group::Vm].into_iter().any(wanted) {
        let products = Products::build()?;
        let matrix = if wanted(Group::Vm) { Some(Matrix::new(&arguments.kernel, &products, name)?) } else { None };
        // The other groups keep no more than one CPU busy: the VMs have the rest, and at last all.
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        thread::scope(|scope| -> Result<()> {
            if let Some(matrix) = &matrix {
                (1..cpus).for_each(|_| drop(scope.spawn(|| matrix.work())));
            }
            let beside = on_this_machine(arguments, &products, &mut results, wanted, second_node);
            if let Some(matrix) = &matrix {
                if beside.is_err() {
                    matrix.stop();
                }
                matrix.work();
            }
            beside
        })?;
        if let Some(matrix) = matrix {
            results.of.extend(matrix.finish()?);
        }
    }
    let mut sum = Tally::default();
    for (group, tally) in &results.of {
        println!("{group}: {tally}");
        sum += *tally;
    }
    if sum.is_empty() {
        println!("no test has a name with {:?} in it", name.unwrap_or_default());
        sum = Tally::FAILURE;
    }
    println!("{sum}");
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of each group.
struct Results {
    began: Instant,
    of: Vec<(String, Tally)>,
}

impl Results {
    /// A group is through: says when, so that it is seen which one grows.
    fn add(&mut self, group: &str, tally: Tally) {
        let seconds = self.began.elapsed().as_secs();
        println!("==> {group} ended after {} min {} s", seconds / 60, seconds % 60);
        self.of.push((group.to_owned(), tally));
    }
}

/// What needs root and this machine's kernel.
fn on_this_machine(
    arguments: &Arguments,
    products: &Products,
    results: &mut Results,
    wanted: impl Fn(Group) -> bool,
    second_node: bool,
) -> Result<()> {
    let name = arguments.name.as_deref();
    if wanted(Group::Containers) {
        results.add("containers", suite(products, &["suite"], "containers", name)?);
        results.add("datapath", datapath(products, name)?);
    }
    if wanted(Group::Cluster) {
        let versions = arguments.kubernetes.iter().flat_map(|version| ["--kubernetes", version.as_str()]);
        let mut words: Vec<_> = iter::once("cluster-suite").chain(versions).collect();
        let kernel = arguments.kernel.first().copied().unwrap_or(Kernel::V6_1);
        // Needed until the suite has ended.
        let boot = second_node.then(|| vm::boot_from_disk(kernel)).transpose()?;
        if let Some(folder) = boot.as_ref().and_then(|folder| folder.path().to_str()) {
            words.extend(["--boot", folder]);
        }
        results.add("cluster", suite(products, &words, "cluster", name)?);
    }
    Ok(())
}

/// Cargo's own tests of every crate that runs on this machine.
fn unit(name: Option<&str>) -> Result<Tally> {
    let mut cargo = places::cargo();
    // The eBPF programs are built for another target, by the enforcer's build script.
    cargo.args(["test", "--workspace", "--exclude", "ringfence-enforcer-ebpf", "--no-fail-fast"]);
    cargo.args(name.map(|name| ["--", name]).iter().flatten());
    println!("==> {}", process::line(&cargo));
    let mut tally = Tally::default();
    let status = process::lines(&mut cargo, |line| {
        println!("{line}");
        if let Some(result) = Tally::of_cargo_line(line) {
            tally += result;
        }
    })?;
    if !status.success() && tally.failed == 0 {
        println!("FAILED cargo test: it did not build, or a test program died ({status})");
        tally += Tally::FAILURE;
    }
    Ok(tally)
}

/// The crate `netiso` with the enforcer's programs, in network namespaces.
fn datapath(products: &Products, name: Option<&str>) -> Result<Tally> {
    let mut cargo = places::cargo();
    // The same choice of packages as for unit tests: dependencies are built already.
    cargo.args(["test", "--quiet", "--workspace", "--exclude", "ringfence-enforcer-ebpf", "--test", "datapath"]);
    cargo.args(name.map(|name| ["--", name]).iter().flatten());
    cargo.env("RINGFENCE_EBPF_OBJECT", products.object()?);
    counted(cargo, "datapath")
}

/// A suite of the integration program; `what` names it when it does not end as it should.
fn suite(products: &Products, words: &[&str], what: &str, name: Option<&str>) -> Result<Tally> {
    let mut command = Command::new(products.integration());
    command.args(words).args(name.map(|name| ["--filter", name]).iter().flatten());
    counted(command, what)
}

/// Runs what tells its tests line by line.
fn counted(mut command: Command, what: &str) -> Result<Tally> {
    println!("==> {}", process::line(&command));
    let mut suite = Suite::default();
    let status = process::lines(&mut command, |line| {
        println!("{line}");
        suite.line(line);
    })?;
    let (tally, complaint) = suite.finish(status.code());
    if let Some(complaint) = complaint {
        println!("FAILED {what}: {complaint}");
    }
    Ok(tally)
}
