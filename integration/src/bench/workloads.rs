//! Whole workloads beside the enforcer: a compiler, a database server, a web server.

mod compiler;
mod database;
mod web;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use ringfence_policy::Mitigation;

use super::results::Results;
use super::setting::Setting;
use super::worker::Worker;
use super::{Bench, Workers, median};

/// Rounds; odd, so that a median is a measured value.
const ROUNDS: usize = 9;

/// What is governed while it is measured, with all its processes.
pub(super) trait Workload {
    /// What it is, in a table.
    fn title(&self) -> String;

    /// Nanoseconds that one sample takes.
    fn sample(&self, workers: &mut Workers) -> Result<f64>;
}

/// A workload, or which program is missing for it.
enum Found {
    Here(Box<dyn Workload>),
    Missing(&'static str, &'static str),
}

/// A web server, which runs in the worker's cgroup until it is dropped.
pub(super) fn web_server(directory: &Path, inside: &mut Worker) -> Result<Box<dyn Workload>> {
    Ok(Box::new(web::start(directory, inside)?))
}

const SETTINGS: [Setting; 3] = [Setting::Nothing, Setting::Floor, Setting::AllRules];

/// Nanoseconds of one sample.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// By the clock.
    passed: f64,
    /// Of the processors, by the governed cgroup.
    used: f64,
}

/// By workload and setting; one sample a round.
type Samples = BTreeMap<(usize, Setting), Vec<Sample>>;

impl Bench {
    /// What all rules cost a whole workload.
    pub(super) fn workloads(&self, workers: &mut Workers, results: &mut Results) -> Result<String> {
        let mut workloads = Vec::new();
        for found in [
            compiler::find(&self.directory)?,
            database::find(&self.directory, &mut workers.inside)?,
            Found::Here(web_server(&self.directory, &mut workers.inside)?),
        ] {
            match found {
                Found::Here(workload) => workloads.push(workload),
                Found::Missing(title, program) => {
                    results.targets.not_measured(title, &format!("{program} is not installed"));
                }
            }
        }
        let mut samples = Samples::new();
        for round in 0..ROUNDS {
            eprintln!("workloads: round {} of {ROUNDS}", round + 1);
            for turn in 0..SETTINGS.len() {
                let setting = SETTINGS[(round + turn) % SETTINGS.len()];
                let _floor = self.floor_of(setting)?;
                let enforcer = setting.rules().map(|rules| self.start(rules, Mitigation::Log)).transpose()?;
                for (number, workload) in workloads.iter().enumerate() {
                    let before = self.cgroups.used()?;
                    let passed = workload.sample(workers)?;
                    let sample = Sample { passed, used: self.cgroups.used()? - before };
                    samples.entry((number, setting)).or_default().push(sample);
                }
                enforcer.map_or(Ok(()), |enforcer| self.remove(enforcer))?;
            }
        }
        let mut text = String::from(
            "\n## Whole workloads\n\n| governed | | no enforcer | empty programs | all rules |\n|---|---|---|---|---|\n",
        );
        for (number, workload) in workloads.iter().enumerate() {
            let title = workload.title();
            for setting in SETTINGS {
                let passed = samples[&(number, setting)].iter().map(|sample| sample.passed).collect();
                results.add("workloads", &title, setting.title(), "ns", passed);
            }
            let more = more(&samples, number, Setting::AllRules, |sample| sample.passed);
            results.targets.at_most(&format!("{title}, all rules"), 3.0, more, "%");
            text += &row(&samples, number, &format!("{title} | time"), |sample| sample.passed);
            text += &row(&samples, number, " | processor time", |sample| sample.used);
        }
        Ok(text
            + &format!(
                "\nOf one run, 2,000 transactions, and 2,000 requests; medians of {ROUNDS} interleaved rounds; percentages against no enforcer, medians of the \
             rounds' own ratios. Every process of the compiler and of the servers is in the governed cgroup, whose \
             processor time is told besides: other work on the machine does not lengthen it.\n"
            ))
    }
}

/// By how many percent more than without an enforcer.
fn more(samples: &Samples, number: usize, setting: Setting, of: fn(&Sample) -> f64) -> f64 {
    let pairs = samples[&(number, setting)].iter().zip(&samples[&(number, Setting::Nothing)]);
    median(&pairs.map(|(sample, base)| (of(sample) / of(base) - 1.0) * 100.0).collect::<Vec<_>>())
}

fn row(samples: &Samples, number: usize, title: &str, of: fn(&Sample) -> f64) -> String {
    let mut text = format!("| {title} |");
    for setting in SETTINGS {
        let values: Vec<f64> = samples[&(number, setting)].iter().map(of).collect();
        text += &format!(" {:.0} ms", median(&values) / 1e6);
        if setting != Setting::Nothing {
            text += &format!(" ({:+.1} %)", more(samples, number, setting, of));
        }
        text += " |";
    }
    text + "\n"
}
