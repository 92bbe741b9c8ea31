//! What an operation costs beside the enforcer, against no enforcer and against empty programs.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ringfence_actor::now;
use ringfence_control::Tier;
use ringfence_policy::Mitigation;

use super::floor::Floor;
use super::results::Results;
use super::setting::Setting;
use super::statistics::{self, Counting};
use super::worker::{Task, Worker};
use super::{Bench, Workers, median, rest, seen};

/// What is measured where nanoseconds count.
pub const SETTINGS: &[Setting] = &[Setting::Nothing, Setting::Floor, Setting::OneRule, Setting::AllRules];
/// What ratios take.
pub const FEW_SETTINGS: &[Setting] = &[Setting::Nothing, Setting::Floor, Setting::AllRules];

/// Nanoseconds by operation, governed or not, and setting; one sample a round.
#[derive(Default)]
struct Samples(BTreeMap<(Task, bool, Setting), Vec<f64>>);

impl Samples {
    fn take(&mut self, worker: &mut Worker, governed: bool, setting: Setting, less: u32) -> Result<()> {
        for (task, repetitions) in Task::MEASURED {
            self.0.entry((task, governed, setting)).or_default().push(worker.run(task, repetitions / less)?);
        }
        Ok(())
    }

    fn tell(&self, results: &mut Results) {
        for ((task, governed, setting), samples) in &self.0 {
            let whose = if *governed { "governed" } else { "not governed" };
            let what = format!("{}, {whose}", task.title());
            results.add("costs", &what, setting.title(), "ns", samples.clone());
        }
    }

    fn median(&self, task: Task, governed: bool, setting: Setting) -> f64 {
        median(&self.0[&(task, governed, setting)])
    }

    /// By how many percent more than `base`: the median of the rounds, each of which is compared with itself.
    fn more(&self, task: Task, governed: bool, setting: Setting, base: Setting) -> f64 {
        let of = |setting| self.0[&(task, governed, setting)].iter();
        let ratios: Vec<f64> = of(setting).zip(of(base)).map(|(value, base)| (value / base - 1.0) * 100.0).collect();
        median(&ratios)
    }
}

impl Bench {
    /// The price per operation.
    pub(super) fn costs(&self, workers: &mut Workers, results: &mut Results) -> Result<String> {
        let samples = self.rounds(workers)?;
        samples.tell(results);
        for (task, _) in Task::MEASURED {
            for (governed, limit) in [(false, 3.0), (true, 20.0)] {
                let judged_against = match self.tiers.get(task.class()) {
                    Some(Tier::Tracepoint) => Setting::Floor,
                    _ => Setting::Nothing,
                };
                let more = samples.more(task, governed, Setting::AllRules, judged_against);
                let against = if judged_against == Setting::Floor { ", over empty programs" } else { "" };
                let whose = if governed { "governed, all rules" } else { "not governed" };
                results.targets.at_most(&format!("{}, {whose}{against}", task.title()), limit, more, "%");
            }
        }
        Ok(table(&samples) + &self.notes())
    }

    /// The same on a kernel that is emulated, where a nanosecond says nothing: rows of a table; and what an open and close
    /// takes there by itself.
    pub(super) fn cost_ratios(&self, workers: &mut Workers) -> Result<(String, f64)> {
        let samples = self.rounds(workers)?;
        let mut rows = String::new();
        for (task, _) in Task::MEASURED {
            let tier = self.tiers.get(task.class()).context("the class has no tier")?;
            for governed in [false, true] {
                let more = |base| samples.more(task, governed, Setting::AllRules, base);
                let whose = if governed { "governed" } else { "not governed" };
                rows += &format!("| {} | {tier} | {} | {whose} |", self.strongest, task.title());
                rows += &format!(" {:+.1} % | {:+.1} % |\n", more(Setting::Nothing), more(Setting::Floor));
            }
        }
        Ok((rows, samples.median(Task::Open, false, Setting::Nothing)))
    }

    fn rounds(&self, workers: &mut Workers) -> Result<Samples> {
        self.prove_floor(workers)?;
        let (mut samples, rounds) = (Samples::default(), self.effort.rounds);
        for round in 0..rounds {
            eprintln!("price per operation: round {} of {rounds}", round + 1);
            // Begun with another setting each time: what drifts favours none.
            let settings = self.effort.settings;
            for turn in 0..settings.len() {
                self.sample(workers, &mut samples, settings[(round + turn) % settings.len()])?;
            }
        }
        Ok(samples)
    }

    /// That empty programs run when the measured operations are done: else the floor would be none.
    fn prove_floor(&self, workers: &mut Workers) -> Result<()> {
        let _counting = Counting::start()?;
        let _floor = Floor::attach(&self.hooks, self.strongest, &self.cgroups.parent())?;
        for (task, repetitions) in Task::MEASURED {
            let (before, repetitions) = (statistics::programs()?, repetitions / self.effort.less);
            workers.inside.run(task, repetitions)?;
            let ran = statistics::between(&before, &statistics::programs()?);
            let called = ran.values().any(|runs| runs.count >= u64::from(repetitions));
            ensure!(called, "no empty program ran at each of {repetitions} times: {}", task.title());
        }
        Ok(())
    }

    fn sample(&self, workers: &mut Workers, samples: &mut Samples, setting: Setting) -> Result<()> {
        rest::wait()?;
        let less = self.effort.less;
        let Some(rules) = setting.rules() else {
            let _floor = self.floor_of(setting)?;
            samples.take(&mut workers.outside, false, setting, less)?;
            return samples.take(&mut workers.inside, true, setting, less);
        };
        let enforcer = self.start(rules, Mitigation::Log)?;
        let (before, began) = (seen(&enforcer)?, now());
        samples.take(&mut workers.outside, false, setting, less)?;
        ensure!(seen(&enforcer)? == before, "the ungoverned process was seen: it is governed");
        samples.take(&mut workers.inside, true, setting, less)?;
        ensure!(seen(&enforcer)? > before, "the governed process was not seen");
        self.remove(enforcer)?;
        let told = self.journal.all(|violation| violation.kernel_time_ns > began);
        // To tell of a violation has a price of its own.
        ensure!(told.is_empty(), "{} of what was measured were violations, the first: {:?}", told.len(), told[0]);
        Ok(())
    }

    fn notes(&self) -> String {
        format!(
            "\nMedians of {} interleaved rounds; percentages are medians of the rounds' own ratios. Not governed: \
             the same in a cgroup that no ruleset selects. Empty programs: two instructions each on the {} hooks that \
             the enforcer has programs on with all rules; what they cost is the kernel's price of being called there, \
             over which the targets of the `tracepoint` tier are set. All rules: the {} of the catalogue, with \
             mitigation `log`.\n",
            self.effort.rounds,
            self.hooks.len(),
            self.rules
        )
    }
}

fn table(samples: &Samples) -> String {
    let mut text = String::from(
        "\n## Price per operation\n\n\
         | operation | | no enforcer | empty programs | 1 rule (RF-901) | all rules | all rules over empty programs |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (task, _) in Task::MEASURED {
        for governed in [false, true] {
            let value = |setting| samples.median(task, governed, setting);
            let more = |setting| samples.more(task, governed, setting, Setting::Nothing);
            let whose = if governed { "governed" } else { "not governed" };
            text += &format!("| {} | {whose} | {:.0} ns |", task.title(), value(Setting::Nothing));
            for setting in &SETTINGS[1..] {
                text += &format!(" {:.0} ns ({:+.1} %) |", value(*setting), more(*setting));
            }
            let over = samples.more(task, governed, Setting::AllRules, Setting::Floor);
            text += &format!(" {over:+.1} % |\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_compared_with_itself() {
        let mut samples = Samples::default();
        let mut add = |setting, values: [f64; 3]| samples.0.insert((Task::Open, true, setting), values.to_vec());
        add(Setting::Nothing, [100.0, 200.0, 400.0]);
        add(Setting::AllRules, [110.0, 220.0, 600.0]);
        let more = samples.more(Task::Open, true, Setting::AllRules, Setting::Nothing);
        assert!((more - 10.0).abs() < 1e-9, "{more}");
    }
}
