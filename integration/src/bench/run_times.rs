//! The kernel's own account of the programs: nanoseconds per run, by how many rules there are.

use std::collections::BTreeMap;

use anyhow::Result;
use ringfence_policy::Mitigation;

use super::manifold::MOST;
use super::results::Results;
use super::statistics::{self, Counting};
use super::worker::{Task, Worker};
use super::{Bench, Rules, Workers, median};

/// Rounds; odd, so that a median is a measured value.
const ROUNDS: usize = 5;

/// What is targeted: the operation, its program's name as the kernel cuts it, and nanoseconds.
const LIMITS: [(Task, &str, f64); 3] = [
    (Task::Exec, "sched_process_exec", 1_500.0),
    (Task::Open, "exit_open", 450.0),
    (Task::Connect, "exit_connect", 400.0),
];

/// Bytes of a program's name that the kernel keeps.
const NAME: usize = 15;

/// One column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    NotGoverned,
    OneRule,
    TenRules,
    AllRules,
    HundredRules,
    Manifold,
    ThousandRules,
}

const COLUMNS: [Column; 7] = [
    Column::NotGoverned,
    Column::OneRule,
    Column::TenRules,
    Column::AllRules,
    Column::HundredRules,
    Column::Manifold,
    Column::ThousandRules,
];

/// Nanoseconds per run; one sample a round.
#[derive(Default)]
struct Times(BTreeMap<(Task, String), BTreeMap<Column, Vec<f64>>>);

impl Times {
    fn take(&mut self, worker: &mut Worker, column: Column) -> Result<()> {
        for (task, repetitions) in Task::MEASURED {
            worker.run(task, repetitions)?;
            let before = statistics::programs()?;
            worker.run(task, repetitions)?;
            for (program, runs) in statistics::between(&before, &statistics::programs()?) {
                // Others' events on the machine meanwhile are no part of the task.
                if runs.count >= u64::from(repetitions) / 2 {
                    self.0.entry((task, program)).or_default().entry(column).or_default().push(runs.each());
                }
            }
        }
        Ok(())
    }

    fn median(&self, task: Task, program: &str, column: Column) -> Option<f64> {
        let program = program[..program.len().min(NAME)].to_owned();
        Some(median(self.0.get(&(task, program))?.get(&column)?))
    }
}

impl Bench {
    /// Run times of all programs that the tasks set off.
    pub(super) fn run_times(&self, workers: &mut Workers, results: &mut Results) -> Result<String> {
        let counting = Counting::start()?;
        let mut times = Times::default();
        for round in 1..=ROUNDS {
            eprintln!("run time of programs: round {round} of {ROUNDS}");
            for (rules, column) in [
                (Rules::One("RF-901"), Column::OneRule),
                (Rules::Ten, Column::TenRules),
                (Rules::All, Column::AllRules),
                (Rules::Hundred, Column::HundredRules),
                (Rules::Manifold, Column::Manifold),
                (Rules::Thousand, Column::ThousandRules),
            ] {
                let enforcer = self.start(rules, Mitigation::Log)?;
                if column == Column::AllRules {
                    times.take(&mut workers.outside, Column::NotGoverned)?;
                }
                times.take(&mut workers.inside, column)?;
                self.remove(enforcer)?;
            }
        }
        drop(counting);
        self.tell(&times, results);
        self.judge(&times, results);
        Ok(self.run_time_table(&times))
    }

    fn tell(&self, times: &Times, results: &mut Results) {
        for ((task, program), columns) in &times.0 {
            let what = format!("{}: {program}", task.title());
            for (column, samples) in columns {
                results.add("run-times", &what, &self.setting(*column), "ns", samples.clone());
            }
        }
    }

    fn setting(&self, column: Column) -> String {
        let rules = match column {
            Column::NotGoverned => return "not governed".to_owned(),
            Column::OneRule => 1,
            Column::TenRules => 10,
            Column::AllRules => self.rules,
            Column::HundredRules => 100,
            Column::Manifold => self.manifold.rules,
            Column::ThousandRules => MOST,
        };
        format!("{rules} rules")
    }

    fn judge(&self, times: &Times, results: &mut Results) {
        for (task, program, limit) in LIMITS {
            let at = |column| times.median(task, program, column);
            let Some(all) = at(Column::AllRules) else {
                results.targets.not_measured(&format!("`{program}`"), &format!("did not run at: {}", task.title()));
                continue;
            };
            results.targets.at_most(&format!("`{program}`, all rules"), limit, all, "ns");
            let more = [
                (Column::OneRule, Column::AllRules, "all rules against 1 rule".to_owned()),
                (Column::AllRules, Column::Manifold, format!("{} times the rules against all", self.manifold.times)),
            ];
            for (fewer, more, title) in more {
                match (at(fewer), at(more)) {
                    (Some(fewer), Some(more)) => {
                        results.targets.at_most(
                            &format!("`{program}`, {title}"),
                            10.0,
                            (more / fewer - 1.0) * 100.0,
                            "%",
                        );
                    }
                    _ => results.targets.not_measured(&format!("`{program}`, {title}"), "did not run in both"),
                }
            }
        }
    }

    fn run_time_table(&self, times: &Times) -> String {
        let mut text = format!(
            "\n## Run time of eBPF programs\n\n\
             | operation | program | not governed, all rules | governed, 1 rule (RF-901) | 10 rules | all {} rules | \
             100 rules | {} times: {} rules | {MOST} rules |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            self.rules, self.manifold.times, self.manifold.rules
        );
        for (task, _) in Task::MEASURED {
            for (of, program) in times.0.keys().filter(|(of, _)| *of == task) {
                text += &format!("| {} | `{program}` |", task.title());
                for column in COLUMNS {
                    let time = times.median(*of, program, column);
                    text += &time.map_or(" - |".to_owned(), |time| format!(" {time:.0} ns |"));
                }
                text.push('\n');
            }
        }
        text + &format!(
            "\nNanoseconds per run from the kernel's statistics, warm, runs for other processes of the machine included; \
             medians of {ROUNDS} rounds. `-`: not attached, or not run. 10 rules: of the catalogue, at even distances; 100: of \
             {} times the catalogue, likewise. {}\n",
            self.manifold.times, self.manifold.note
        )
    }
}
