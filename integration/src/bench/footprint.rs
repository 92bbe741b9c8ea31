//! What the enforcer itself takes: memory, and the time until it enforces.

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use ringfence_actor::now;
use ringfence_policy::{Mitigation, RuleId};

use super::results::Results;
use super::worker::{Task, Worker};
use super::{Bench, Rules, as_f64, labelled, median, rest};

/// Governed cgroups while memory is looked at.
const GOVERNED: usize = 250;
/// Violations before memory is looked at again.
const VIOLATIONS: u32 = 20_000;
/// Starts that are timed; odd.
const STARTS: usize = 5;

impl Bench {
    /// Memory with many governed cgroups, and the time from the start to the first enforced violation.
    pub(super) fn footprint(&self, inside: &mut Worker, results: &mut Results) -> Result<String> {
        let [fresh, used] = self.memory(inside)?;
        results.targets.at_most(&format!("resident memory, {GOVERNED} governed"), 40.0, used.proportional, "MiB");
        let starts = self.starts(inside)?;
        results.add("footprint", "start to first enforced violation", "", "ms", starts.clone());
        results.targets.at_most("start to first enforced violation, median", 1_000.0, median(&starts), "ms");
        let worst = starts.iter().copied().fold(0.0, f64::max);
        Ok(format!(
            "\n## The enforcer itself\n\n| | |\n|---|---|\n\
             | resident memory, {GOVERNED} governed cgroups, all rules | {fresh} |\n\
             | the same, {VIOLATIONS} reported violations later | {used} |\n\
             | start to first enforced violation, median of {STARTS} starts | {:.0} ms |\n\
             | the same, worst | {worst:.0} ms |\n\n\
             Memory: PSS. RSS counts the ring buffers twice, because their pages are mapped twice, one behind the \
             other. Start: nothing of an earlier enforcer is left, and \
             what the kernel frees after one is freed; from before the program is started until the \
             kernel judges a violation of a process that was in the governed cgroup already and tries once a \
             millisecond.\n",
            median(&starts)
        ))
    }

    /// What is resident when all are governed, and after violations.
    fn memory(&self, inside: &mut Worker) -> Result<[Resident; 2]> {
        eprintln!("memory with {GOVERNED} governed cgroups");
        let further = self.cgroups.further(GOVERNED - 1)?;
        let governed = |path| ["--cgroup".to_owned(), labelled(path, Rules::All, Mitigation::Log)];
        let options: Vec<_> = further.paths().flat_map(governed).collect();
        let enforcer = self.start_with(Rules::All, Mitigation::Log, &options)?;
        let status = enforcer.status()?;
        ensure!(status.containers.len() == GOVERNED, "{} cgroups are governed", status.containers.len());
        let fresh = Resident::of(enforcer.pid())?;
        inside.run_at(Task::Violate, VIOLATIONS, 5_000)?;
        let rule: RuleId = "RF-501".parse()?;
        let count = usize::try_from(VIOLATIONS)?;
        let ours = |event: &ringfence_control::Violation| event.rule_id == rule;
        self.journal.wait_for_count("violations of RF-501", count, ours)?;
        let used = Resident::of(enforcer.pid())?;
        self.remove(enforcer)?;
        Ok([fresh, used])
    }

    /// Milliseconds of each start.
    fn starts(&self, inside: &mut Worker) -> Result<Vec<f64>> {
        let rule: RuleId = "RF-501".parse()?;
        let mut times = Vec::new();
        for number in 1..=STARTS {
            eprintln!("start {number} of {STARTS}");
            rest::wait()?;
            let found = AtomicBool::new(false);
            let (from, first) = thread::scope(|scope| {
                let violating = scope.spawn(|| {
                    while !found.load(Ordering::Relaxed) {
                        inside.run_at(Task::Violate, 20, 1_000)?;
                    }
                    anyhow::Ok(())
                });
                let from = now();
                let first = self.start(Rules::All, Mitigation::Log).and_then(|enforcer| {
                    let ours =
                        |event: &ringfence_control::Violation| event.rule_id == rule && event.kernel_time_ns > from;
                    let first = self.journal.wait_for("the first violation", ours)?;
                    self.remove(enforcer)?;
                    Ok(first.kernel_time_ns)
                });
                found.store(true, Ordering::Relaxed);
                violating.join().map_err(|_| anyhow::anyhow!("the thread that drives the worker panicked"))??;
                anyhow::Ok((from, first?))
            })?;
            times.push(as_f64(first - from) / 1e6);
        }
        Ok(times)
    }
}

/// Memory of a process, in MiB.
struct Resident {
    /// Every page by the number of places that it is mapped at.
    proportional: f64,
    /// Every mapping of every page.
    all: f64,
}

impl Resident {
    fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).context(path)?;
        let value = |key: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| key.to_owned())?;
            Ok(as_f64(line.trim().trim_end_matches(" kB").parse()?) / 1024.0)
        };
        Ok(Self { proportional: value("Pss:")?, all: value("Rss:")? })
    }
}

impl fmt::Display for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB (RSS {:.1} MiB)", self.proportional, self.all)
    }
}
