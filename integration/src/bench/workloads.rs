//! Whole workloads beside the enforcer: a compiler, a database server, a web server.

mod compiler;
mod database;
mod web;

use std::collections::BTreeMap;

use anyhow::Result;
use ringfence_policy::Mitigation;

use super::floor::Floor;
use super::targets::Targets;
use super::{Bench, Rules, Workers, median};

/// Rounds; odd, so that a median is a measured value.
const ROUNDS: usize = 9;

/// What is governed while it is measured, with all its processes.
trait Workload {
    /// What it is, in a table.
    fn title(&self) -> String;

    /// Nanoseconds of one sample.
    fn sample(&self, workers: &mut Workers) -> Result<f64>;
}

/// A workload, or which program is missing for it.
enum Found {
    Here(Box<dyn Workload>),
    Missing(&'static str, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Setting {
    Nothing,
    Floor,
    AllRules,
}

const SETTINGS: [Setting; 3] = [Setting::Nothing, Setting::Floor, Setting::AllRules];

impl Bench {
    /// What all rules cost a whole workload.
    pub(super) fn workloads(&self, workers: &mut Workers, targets: &mut Targets) -> Result<String> {
        let mut text = String::from(
            "\n## Whole workloads\n\n| governed, all rules | no enforcer | empty programs | all rules |\n|---|---|---|---|\n",
        );
        let mut workloads = Vec::new();
        for found in [
            compiler::find(&self.directory)?,
            database::find(&self.directory, &mut workers.inside)?,
            web::find(&self.directory, &mut workers.inside)?,
        ] {
            match found {
                Found::Here(workload) => workloads.push(workload),
                Found::Missing(title, program) => targets.not_measured(title, &format!("{program} is not installed")),
            }
        }
        let mut samples = BTreeMap::<(usize, Setting), Vec<f64>>::new();
        for round in 0..ROUNDS {
            eprintln!("workloads: round {} of {ROUNDS}", round + 1);
            for turn in 0..SETTINGS.len() {
                let setting = SETTINGS[(round + turn) % SETTINGS.len()];
                let mut sample = |workers: &mut Workers| -> Result<()> {
                    for (number, workload) in workloads.iter().enumerate() {
                        samples.entry((number, setting)).or_default().push(workload.sample(workers)?);
                    }
                    Ok(())
                };
                match setting {
                    Setting::Nothing => sample(workers)?,
                    Setting::Floor => {
                        let _floor = Floor::attach(&self.hooks, &self.cgroups.parent())?;
                        sample(workers)?;
                    }
                    Setting::AllRules => {
                        let enforcer = self.start(Rules::All, Mitigation::Log)?;
                        sample(workers)?;
                        self.remove(enforcer)?;
                    }
                }
            }
        }
        for (number, workload) in workloads.iter().enumerate() {
            let base = &samples[&(number, Setting::Nothing)];
            text += &format!("| {} | {:.2} ms |", workload.title(), median(base) / 1e6);
            for setting in [Setting::Floor, Setting::AllRules] {
                let values = &samples[&(number, setting)];
                let ratios: Vec<f64> =
                    values.iter().zip(base).map(|(value, base)| (value / base - 1.0) * 100.0).collect();
                let more = median(&ratios);
                text += &format!(" {:.2} ms ({more:+.1} %) |", median(values) / 1e6);
                if setting == Setting::AllRules {
                    targets.at_most(&format!("{}, all rules", workload.title()), 3.0, more, "%");
                }
            }
            text.push('\n');
        }
        text += &format!(
            "\nMedians of {ROUNDS} interleaved rounds; percentages against no enforcer, medians of the rounds' own \
             ratios. Every process of the compiler and of the servers is in the governed cgroup.\n"
        );
        Ok(text)
    }
}
