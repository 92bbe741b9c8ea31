//! What the enforcer costs on this kernel, and how fast it is. Prints Markdown; how far it is goes to the error output.
//!
//! Processes of a governed cgroup and of an ungoverned one do the same, without an enforcer and with one, in turns:
//! what else the machine does hits all of them alike. Medians of all rounds are compared.

#![expect(clippy::format_push_string, reason = "a few lines of a table, pushed once")]

mod statistics;
mod targets;
mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ringfence_containers::cgroups::Hierarchies;
use ringfence_policy::{Catalogue, Mitigation, RuleId};

use crate::bpffs::Bpffs;
use crate::enforcer::{Enforcer, finish};
use crate::journal::Journal;
use crate::rulesets::{self, MITIGATION, RULE};
use statistics::Counting;
use targets::Targets;
use worker::Task;
pub use worker::serve;

/// Rounds; odd, so that a median is a measured value.
const ROUNDS: usize = 11;
/// Violations whose isolation is timed.
const ISOLATIONS: usize = 2_000;
/// Violations whose killing is timed.
const KILLS: usize = 500;

/// One column: without an enforcer, or beside which ruleset, governed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Setting {
    Without,
    NotGoverned,
    OneRule,
    AllRules,
}

/// Everything that is made, and unmade at the end.
struct Bench {
    enforcer: PathBuf,
    directory: PathBuf,
    bpffs: Bpffs,
    cgroup: Cgroup,
    journal: Journal,
}

/// A v2 cgroup of our own; its processes have ended when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

/// Measures, and prints the tables.
pub fn run(enforcer: &Path) -> Result<()> {
    let directory = PathBuf::from(format!("/run/ringfence-bench-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let hierarchies = Hierarchies::detect()?;
    let root = hierarchies.v2().context("no cgroup v2 hierarchy is mounted: there is nothing to govern")?;
    let cgroup = Cgroup(root.join(format!("rf-bench-{}", std::process::id())));
    fs::create_dir(&cgroup.0).with_context(|| format!("create {}", cgroup.0.display()))?;
    rulesets::write(&directory.join("rulesets"))?;
    let bpffs = Bpffs::mount(directory.join("bpf"))?;
    let bench =
        Bench { enforcer: enforcer.into(), directory: directory.clone(), bpffs, cgroup, journal: Journal::default() };
    let measured = bench.all();
    drop(bench);
    fs::remove_dir_all(&directory)?;
    print!("{}", measured?);
    Ok(())
}

impl Bench {
    fn all(&self) -> Result<String> {
        let mut text = machine()?;
        let enforcer = self.start("all", Mitigation::Log)?;
        let tiers: Vec<_> = enforcer.status()?.classes.iter().map(|c| format!("{} {:?}", c.class, c.tier)).collect();
        self.remove(enforcer)?;
        text += &format!("Tiers: {}.\n", tiers.join(", ").replace("Some(", "").replace(')', "").to_lowercase());
        let mut inside = worker::Worker::start(Some(&self.cgroup.0))?;
        let mut outside = worker::Worker::start(None)?;
        let mut targets = Targets::default();
        let costs = self.costs(&mut inside, &mut outside, &mut targets)?;
        let run_times = self.run_times(&mut inside, &mut targets)?;
        let latencies = self.latencies(&mut inside, &mut targets)?;
        text.extend([targets.table(), costs, run_times, latencies]);
        Ok(text)
    }

    fn start(&self, rule: &str, mitigation: Mitigation) -> Result<Enforcer> {
        let control = self.directory.join("enforcer.sock");
        let mut command = Command::new(&self.enforcer);
        command.arg("--standalone").arg("--rulesets").arg(self.directory.join("rulesets"));
        command.arg("--cgroup").arg(format!("/{}:{RULE}={rule},{MITIGATION}={mitigation}", self.cgroup.name()));
        command.args(["--datapath", "cgroup"]).arg("--cgroup-root").arg(&self.cgroup.0);
        command.arg("--socket").arg(&control).arg("--state").arg(self.directory.join("state"));
        command.arg("--bpffs").arg(self.bpffs.path());
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

    /// The price per operation.
    fn costs(
        &self,
        inside: &mut worker::Worker,
        outside: &mut worker::Worker,
        targets: &mut Targets,
    ) -> Result<String> {
        let mut samples = BTreeMap::<(&str, Setting), Vec<f64>>::new();
        let mut sample = |worker: &mut worker::Worker, setting| -> Result<()> {
            for (task, repetitions) in Task::MEASURED {
                samples.entry((task.word(), setting)).or_default().push(worker.run(task, repetitions)?);
            }
            Ok(())
        };
        for round in 1..=ROUNDS {
            eprintln!("round {round} of {ROUNDS}");
            sample(inside, Setting::Without)?;
            for (rule, setting) in [("RF-901", Setting::OneRule), ("all", Setting::AllRules)] {
                let enforcer = self.start(rule, Mitigation::Log)?;
                let before = seen(&enforcer)?;
                if setting == Setting::AllRules {
                    sample(outside, Setting::NotGoverned)?;
                    ensure!(seen(&enforcer)? == before, "the ungoverned process was seen: it is governed");
                }
                sample(inside, setting)?;
                ensure!(seen(&enforcer)? > before, "the governed process was not seen");
                self.remove(enforcer)?;
            }
        }
        let mut text = String::from(
            "\n## Price per operation\n\n\
             | operation | no enforcer | enforcer, not governed | governed, 1 rule (RF-901) | governed, all rules |\n\
             |---|---|---|---|---|\n",
        );
        for (task, _) in Task::MEASURED {
            let base = median(&samples[&(task.word(), Setting::Without)]);
            text += &format!("| {} | {base:.0} ns |", task.title());
            for setting in [Setting::NotGoverned, Setting::OneRule, Setting::AllRules] {
                let value = median(&samples[&(task.word(), setting)]);
                let more = (value / base - 1.0) * 100.0;
                text += &format!(" {value:.0} ns ({more:+.1} %) |");
                match setting {
                    Setting::NotGoverned => targets.at_most(&format!("{}, not governed", task.title()), 3.0, more, "%"),
                    Setting::AllRules => targets.at_most(&format!("{}, all rules", task.title()), 20.0, more, "%"),
                    Setting::Without | Setting::OneRule => {}
                }
            }
            text.push('\n');
        }
        text += &format!(
            "\nMedians of {ROUNDS} interleaved rounds; percentages against no enforcer. The targets for the \
             `tracepoint` tier are over the floor of empty programs on the same hooks, which is not measured here: \
             above they are held against no enforcer at all, which is stricter. All rules: the {} of the \
             catalogue, with mitigation `log`. Ten times the rules is not measured: the catalogue has no more.\n",
            Catalogue::builtin().rules().count()
        );
        Ok(text)
    }

    /// The kernel's own account of the programs, with all rules.
    fn run_times(&self, inside: &mut worker::Worker, targets: &mut Targets) -> Result<String> {
        eprintln!("run time of programs");
        let counting = Counting::start()?;
        let mut text = String::from(
            "\n## Run time of eBPF programs\n\n\
             | operation (governed) | program | 1 rule, ns per run | all rules, ns per run |\n|---|---|---|---|\n",
        );
        let mut columns = Vec::new();
        for rule in ["RF-901", "all"] {
            let enforcer = self.start(rule, Mitigation::Log)?;
            let mut column = BTreeMap::new();
            for (task, repetitions) in Task::MEASURED {
                inside.run(task, repetitions)?;
                let before = statistics::programs()?;
                inside.run(task, repetitions)?;
                for (program, runs) in statistics::between(&before, &statistics::programs()?) {
                    // Others' events on the machine meanwhile are no part of the task.
                    if runs.count >= u64::from(repetitions) / 2 {
                        column.insert((task.word(), program), runs);
                    }
                }
            }
            columns.push(column);
            self.remove(enforcer)?;
        }
        drop(counting);
        let (one, all) = (&columns[0], &columns[1]);
        for (task, program, limit) in
            [("exec", "sched_process_e", 1_500.0), ("open", "exit_open", 450.0), ("connect", "exit_connect", 400.0)]
        {
            if let Some(runs) = all.get(&(task, program.to_owned())) {
                targets.at_most(&format!("`{program}`, all rules"), limit, runs.each(), "ns");
                if let Some(alone) = one.get(&(task, program.to_owned())) {
                    let more = (runs.each() / alone.each() - 1.0) * 100.0;
                    targets.at_most(&format!("`{program}`, all rules against 1 rule"), 10.0, more, "%");
                }
            }
        }
        for (task, _) in Task::MEASURED {
            for ((_, program), runs) in all.iter().filter(|((of, _), _)| *of == task.word()) {
                let alone =
                    one.get(&(task.word(), program.clone())).map_or("-".into(), |runs| format!("{:.0}", runs.each()));
                text += &format!("| {} | `{program}` | {alone} | {:.0} |\n", task.title(), runs.each());
            }
        }
        text += "\nFrom the kernel's statistics, warm, runs for ungoverned processes of the machine included; `-`: the \
                 rule does not need the program.\n";
        Ok(text)
    }

    /// From the violation to what is done about it, by the kernel's clock.
    fn latencies(&self, inside: &mut worker::Worker, targets: &mut Targets) -> Result<String> {
        let rule: RuleId = "RF-501".parse().map_err(|error| anyhow::anyhow!("RF-501: {error:?}"))?;
        let mut text = String::from(
            "\n## From the violation to the mitigation\n\n| mitigation | repetitions | median | p99 | worst |\n|---|---|---|---|---|\n",
        );
        for (title, mitigation, task, count) in [
            ("isolated bit set", Mitigation::Isolate, Task::Violate, ISOLATIONS),
            ("process killed", Mitigation::Block, Task::ViolateInChild, KILLS),
        ] {
            eprintln!("latency: {title}");
            let enforcer = self.start("RF-501", mitigation)?;
            let ours = |event: &ringfence_control::Violation| event.rule_id == rule && event.mitigation == mitigation;
            let mut latencies = Vec::with_capacity(count);
            let mut last = 0;
            while latencies.len() < count {
                inside.run(task, 1)?;
                let new = |event: &ringfence_control::Violation| ours(event) && event.kernel_time_ns > last;
                let event = self.journal.wait_for("the violation", new)?;
                last = event.kernel_time_ns;
                latencies.push(event.latency_ns.context("an event without a latency")?);
                if mitigation == Mitigation::Isolate {
                    enforcer.release(self.cgroup.name())?;
                }
            }
            self.remove(enforcer)?;
            latencies.sort_unstable();
            let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
            if mitigation == Mitigation::Isolate {
                targets.at_most("violation to isolated, median", 5_000.0, as_ns(at(50)), "ns");
                targets.at_most("violation to isolated, p99", 50_000.0, as_ns(at(99)), "ns");
            }
            text += &format!("| {title} | {count} | {} ns | {} ns | {} ns |\n", at(50), at(99), at(100));
        }
        text += "\nBoth by the kernel's clock, from the beginning of the hook's run. RF-501, open of /etc/shadow; the \
                 isolation is lifted after each.\n";
        Ok(text)
    }
}

/// Events of governed containers so far.
fn seen(enforcer: &Enforcer) -> Result<u64> {
    Ok(enforcer.status()?.classes.iter().map(|class| class.seen).sum())
}

/// The machine, in a paragraph.
fn machine() -> Result<String> {
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
fn as_ns(time: u64) -> f64 {
    time as f64
}

fn median(samples: &[f64]) -> f64 {
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
