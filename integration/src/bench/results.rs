//! All numbers of a run, sample by sample, for programs: what tables and plots are made of.

use std::collections::BTreeMap;

use ringfence_control::Tier;
use serde::Serialize;

use super::median;
use super::targets::Targets;

/// What a run has measured so far.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// Processor, kernel and load.
    pub machine: String,
    /// What sees each class of events.
    pub tiers: BTreeMap<String, Tier>,
    /// What was to be reached.
    pub targets: Targets,
    series: Vec<Series>,
}

/// Samples of one thing in one setting.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    /// The part of the benchmark, by the name of its option.
    part: &'static str,
    what: String,
    setting: String,
    unit: &'static str,
    median: f64,
    /// Half of the samples lie between them.
    quartiles: [f64; 2],
    samples: Vec<f64>,
}

impl Results {
    /// Of a machine, nothing yet.
    pub fn of(machine: String, tiers: BTreeMap<String, Tier>) -> Self {
        Self { machine, tiers, ..Self::default() }
    }

    /// Samples, in the order in which they were taken.
    pub fn add(&mut self, part: &'static str, what: &str, setting: &str, unit: &'static str, samples: Vec<f64>) {
        if samples.is_empty() {
            return;
        }
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let quartiles = [1, 3].map(|quarter| sorted[(sorted.len() - 1) * quarter / 4]);
        let (what, setting) = (what.to_owned(), setting.to_owned());
        self.series.push(Series { part, what, setting, unit, median: median(&samples), quartiles, samples });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_samples_lie_between_the_quartiles() {
        let mut results = Results::default();
        results.add("costs", "open", "all rules", "ns", vec![5.0, 1.0, 3.0, 2.0, 4.0]);
        results.add("costs", "open", "nothing", "ns", Vec::new());
        assert_eq!(results.series.len(), 1);
        assert_eq!((results.series[0].median, results.series[0].quartiles), (3.0, [2.0, 4.0]));
    }
}
