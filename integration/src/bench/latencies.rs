//! From the violation to what is done about it, by the kernel's clock.

use anyhow::{Context, Result};
use ringfence_policy::{Mitigation, RuleId};

use super::results::Results;
use super::worker::{Task, Worker};
use super::{Bench, Rules, as_f64};

/// Violations whose isolation is timed.
const ISOLATIONS: usize = 2_000;
/// Violations whose killing is timed.
const KILLS: usize = 500;

impl Bench {
    /// Time to the isolated bit, and to the signal.
    pub(super) fn latencies(&self, inside: &mut Worker, results: &mut Results) -> Result<String> {
        let rule: RuleId = "RF-501".parse()?;
        let mut text = String::from(
            "\n## From the violation to the mitigation\n\n| mitigation | repetitions | median | p99 | worst |\n|---|---|---|---|---|\n",
        );
        for (title, mitigation, task, count) in [
            ("isolated bit set", Mitigation::Isolate, Task::Violate, ISOLATIONS),
            ("process killed", Mitigation::Block, Task::ViolateInChild, KILLS),
        ] {
            eprintln!("latency: {title}");
            let enforcer = self.start(Rules::One("RF-501"), mitigation)?;
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
                    enforcer.release(&self.cgroups.governed_name())?;
                }
            }
            self.remove(enforcer)?;
            let samples = latencies.iter().copied().map(as_f64).collect();
            results.add("latencies", title, &mitigation.to_string(), "ns", samples);
            latencies.sort_unstable();
            let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
            if mitigation == Mitigation::Isolate {
                results.targets.at_most("violation to isolated, median", 5_000.0, as_f64(at(50)), "ns");
                results.targets.at_most("violation to isolated, p99", 50_000.0, as_f64(at(99)), "ns");
            }
            text += &format!("| {title} | {count} | {} ns | {} ns | {} ns |\n", at(50), at(99), at(100));
        }
        text += "\nBoth by the kernel's clock, from the beginning of the hook's run. RF-501, open of /etc/shadow; the \
                 isolation is lifted after each.\n";
        Ok(text)
    }
}
