//! What the enforcer costs on this kernel, and how fast it is. Prints Markdown; how far it is goes to the error output.
//!
//! Processes of a governed cgroup and of an ungoverned one do the same, without an enforcer and with one, in turns:
//! what else the machine does hits all of them alike.

#![expect(clippy::format_push_string, reason = "a few lines of a table, pushed once")]

mod cgroups;
mod costs;
mod events;
mod floor;
mod footprint;
mod latencies;
mod manifold;
mod profiles;
mod rest;
mod results;
mod run_times;
mod setting;
mod statistics;
mod targets;
mod worker;
mod workloads;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum as _;
use ringfence_containers::cgroups::Hierarchies;
use ringfence_control::Tier;
use ringfence_policy::{Catalogue, Mitigation};

use crate::bpffs::Bpffs;
use crate::enforcer::{Enforcer, finish};
use crate::journal::Journal;
use crate::rulesets::{self, MITIGATION, RULE};
use cgroups::Cgroups;
use floor::Hook;
use manifold::Manifold;
use results::Results;
use setting::Setting;
pub use targets::Targets;
use worker::Worker;
pub use worker::serve;

/// Everything that is made, and unmade at the end.
struct Bench {
    enforcer: PathBuf,
    directory: PathBuf,
    bpffs: Bpffs,
    cgroups: Cgroups,
    journal: Journal,
    manifold: Manifold,
    /// Rules of the built-in catalogue.
    rules: usize,
    /// Where the enforcer has programs with all rules.
    hooks: Vec<Hook>,
    /// What sees each class.
    tiers: BTreeMap<String, Tier>,
    effort: Effort,
    /// No stronger tier than this.
    strongest: Tier,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    /// Rounds of the price per operation; odd, so that a median is a measured value.
    rounds: usize,
    /// Repetitions in each are divided by this.
    less: u32,
    /// What is compared.
    settings: &'static [Setting],
}

const WHOLE: Effort = Effort { rounds: 15, less: 1, settings: costs::SETTINGS };
/// Emulated, everything takes ten to twenty times as long.
const IN_A_VM: Effort = Effort { rounds: 7, less: 10, settings: costs::FEW_SETTINGS };

/// Who is measured.
struct Workers {
    /// Of the governed cgroup.
    inside: Worker,
    /// Of the other.
    outside: Worker,
}

/// What the governed cgroup's ruleset names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    One(&'static str),
    /// Ten of the catalogue's.
    Ten,
    All,
    /// A hundred of that catalogue's.
    Hundred,
    /// All of a catalogue that is many times as large.
    Manifold,
    /// A thousand, of a catalogue of as many.
    Thousand,
}

/// Labels of rulesets with as many rules.
const TEN: &str = "ten";
const HUNDRED: &str = "hundred";
const THOUSAND: &str = "thousand";

/// Where everything lies, before this process's id.
const DIRECTORY: &str = "/run/ringfence-bench-";

/// Removes what runs left behind that were interrupted: their processes are gone with them.
fn sweep() -> Result<()> {
    let (parent, name) = DIRECTORY.rsplit_once('/').context("a path")?;
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let owner = path.file_name().and_then(|file| file.to_str()?.strip_prefix(name));
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
    }
    if let Some(root) = Hierarchies::detect()?.v2() {
        Cgroups::sweep(root)?;
    }
    Ok(())
}

/// What can be measured on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The price per operation.
    Costs,
    /// The kernel's statistics of the programs.
    RunTimes,
    /// Compiler, database and web server.
    Workloads,
    /// From the violation to the mitigation.
    Latencies,
    /// Events a second without loss.
    Events,
    /// Memory, and time to the first enforced violation.
    Footprint,
    /// Where the time goes, by perf.
    Profiles,
}

/// Measures (everything, if no part is named), and prints the tables; every sample goes to the file, as JSON.
pub fn run(enforcer: &Path, only: &[Part], json: Option<&Path>) -> Result<()> {
    within(enforcer, WHOLE, Tier::Lsm, |bench| bench.all(only, json))
}

/// What stands between the rows of the two tables that [`ratios`] prints.
const LATENCIES: &str = "latencies:";

/// Measures the price per operation and the latencies on a tier, for a kernel that is emulated; prints rows of two tables,
/// ratios alone.
pub fn ratios(enforcer: &Path, tier: Tier) -> Result<()> {
    within(enforcer, IN_A_VM, tier, Bench::ratios)
}

fn within(
    enforcer: &Path,
    effort: Effort,
    strongest: Tier,
    measure: impl FnOnce(&Bench) -> Result<String>,
) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "this program was built without --release: it would measure itself");
    floor::mount_tracefs()?;
    sweep()?;
    let directory = PathBuf::from(format!("{DIRECTORY}{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let measured = set_up(enforcer, &directory, effort, strongest).and_then(|bench| measure(&bench));
    fs::remove_dir_all(&directory)?;
    print!("{}", measured?);
    Ok(())
}

fn set_up(enforcer: &Path, directory: &Path, effort: Effort, strongest: Tier) -> Result<Bench> {
    let hierarchies = Hierarchies::detect()?;
    let root = hierarchies.v2().context("no cgroup v2 hierarchy is mounted: there is nothing to govern")?;
    let rulesets = directory.join("rulesets");
    rulesets::write(&rulesets, Catalogue::builtin())?;
    write_some(&rulesets, TEN, 10, Catalogue::builtin())?;
    let mut bench = Bench {
        enforcer: enforcer.into(),
        directory: directory.into(),
        cgroups: Cgroups::create(root)?,
        bpffs: Bpffs::mount(directory.join("bpf"))?,
        journal: Journal::default(),
        manifold: Manifold::write(directory)?,
        rules: Catalogue::builtin().rules().len(),
        hooks: Vec::new(),
        tiers: BTreeMap::new(),
        effort,
        strongest,
    };
    let enforcer = bench.start(Rules::All, Mitigation::Log)?;
    bench.hooks = floor::hooks(bench.bpffs.path())?;
    let classes = enforcer.status()?.classes;
    bench.tiers = classes.into_iter().filter_map(|class| Some((class.class, class.tier?))).collect();
    bench.remove(enforcer)?;
    Ok(bench)
}

impl Bench {
    fn all(&self, only: &[Part], json: Option<&Path>) -> Result<String> {
        let tiers: Vec<_> = self.tiers.iter().map(|(class, tier)| format!("{class} {tier}")).collect();
        let mut results = Results::of(machine()?, self.tiers.clone());
        let text = results.machine.clone() + &format!("Tiers: {}.\n", tiers.join(", "));
        let mut workers = self.workers()?;
        let mut tables = String::new();
        for part in Part::value_variants().iter().filter(|part| only.is_empty() || only.contains(part)) {
            tables += &match part {
                Part::Costs => self.costs(&mut workers, &mut results)?,
                Part::RunTimes => self.run_times(&mut workers, &mut results)?,
                Part::Workloads => self.workloads(&mut workers, &mut results)?,
                Part::Latencies => self.latencies(&mut workers.inside, &mut results)?,
                Part::Events => self.events(&mut workers.inside, &mut results)?,
                Part::Footprint => self.footprint(&mut workers.inside, &mut results)?,
                Part::Profiles => self.profiles(&mut workers)?,
            };
        }
        if let Some(path) = json {
            fs::write(path, serde_json::to_vec_pretty(&results)?).with_context(|| path.display().to_string())?;
        }
        Ok(text + &results.targets.table() + &tables)
    }

    fn ratios(&self) -> Result<String> {
        let mut workers = self.workers()?;
        let (costs, open) = self.cost_ratios(&mut workers)?;
        Ok(format!("{costs}{LATENCIES}\n{}", self.latency_ratios(&mut workers.inside, open)?))
    }

    fn workers(&self) -> Result<Workers> {
        let (inside, outside) = (Worker::start(&self.cgroups.governed())?, Worker::start(&self.cgroups.other())?);
        Ok(Workers { inside, outside })
    }

    fn start(&self, rules: Rules, mitigation: Mitigation) -> Result<Enforcer> {
        self.start_with(rules, mitigation, &[])
    }

    /// Starts one that governs the governed cgroup, with further options.
    fn start_with(&self, rules: Rules, mitigation: Mitigation, options: &[String]) -> Result<Enforcer> {
        let control = self.directory.join("enforcer.sock");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(&self.enforcer);
        command.arg("--standalone").arg("--tier").arg(self.strongest.name()).arg("--cgroup").arg(labelled(
            &self.cgroups.governed_path(),
            rules,
            mitigation,
        ));
        let larger = match rules {
            Rules::One(_) | Rules::Ten | Rules::All => None,
            Rules::Hundred | Rules::Manifold => Some(&self.manifold.whole),
            Rules::Thousand => Some(&self.manifold.thousand),
        };
        match larger {
            Some(folders) => {
                command.arg("--catalogue").arg(&folders.catalogue).arg("--rulesets").arg(&folders.rulesets)
            }
            None => command.arg("--rulesets").arg(self.directory.join("rulesets")),
        };
        command.args(["--datapath", "cgroup"]).arg("--cgroup-root").arg(self.cgroups.parent());
        command.arg("--socket").arg(&control).arg("--state").arg(self.directory.join("state"));
        command.arg("--bpffs").arg(self.bpffs.path()).args(options);
        Enforcer::launch(command, &control, &self.journal)
    }

    /// Ends it, and takes its programs out of the kernel.
    fn remove(&self, enforcer: Enforcer) -> Result<()> {
        enforcer.stop()?;
        let mut command = Command::new(&self.enforcer);
        command.arg("uninstall").arg("--bpffs").arg(self.bpffs.path()).arg("--state").arg(self.directory.join("state"));
        let output = finish(&mut command)?;
        ensure!(output.status.success(), "uninstall: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// Writes a ruleset with so many rules of a catalogue, at even distances, which are logged.
fn write_some(directory: &Path, label: &str, count: usize, catalogue: &Catalogue) -> Result<()> {
    let all: Vec<_> = catalogue.rules().map(|rule| rule.id).collect();
    ensure!(all.len() >= count, "there are no {count} rules, but {}", all.len());
    let some: Vec<_> = (0..count).map(|number| all[number * all.len() / count]).collect();
    let path = directory.join(format!("{label}.yaml"));
    fs::write(&path, rulesets::ruleset(label, &some, Mitigation::Log)).with_context(|| path.display().to_string())
}

/// A cgroup, as the enforcer's option names it, with the labels by which rulesets select it.
fn labelled(path: &str, rules: Rules, mitigation: Mitigation) -> String {
    let rule = match rules {
        Rules::One(rule) => rule,
        Rules::Ten => TEN,
        Rules::Hundred => HUNDRED,
        Rules::Thousand => THOUSAND,
        Rules::All | Rules::Manifold => "all",
    };
    format!("/{path}:{RULE}={rule},{MITIGATION}={mitigation}")
}

/// Events of governed containers so far.
fn seen(enforcer: &Enforcer) -> Result<u64> {
    Ok(enforcer.status()?.classes.iter().map(|class| class.seen).sum())
}

/// The machine, in a paragraph.
pub fn machine() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let models: Vec<_> = processors.lines().filter_map(|line| line.strip_prefix("model name")).collect();
    let model = models.first().map_or("unknown processor", |line| line.trim_start_matches([':', '\t', ' ']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load: Vec<_> = load.split(' ').take(3).collect();
    Ok(format!(
        "{model}, {} processors, Linux {}. Load average at the start: {}.\n",
        models.len().max(1),
        kernel.trim(),
        load.join(" ")
    ))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

/// The middle one.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_one() {
        assert!((median(&[9.0, 1.0, 4.0]) - 4.0).abs() < f64::EPSILON);
    }
}
