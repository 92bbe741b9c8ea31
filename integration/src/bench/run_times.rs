//! The kernel's own account of the programs: nanoseconds per run, by how many rules there are.

use std::collections::BTreeMap;

use anyhow::Result;
use ringfence_policy::Mitigation;

use super::statistics::{self, Counting};
use super::targets::Targets;
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
    AllRules,
    Manifold,
}

const COLUMNS: [Column; 4] = [Column::NotGoverned, Column::OneRule, Column::AllRules, Column::Manifold];

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
    pub(super) fn run_times(&self, workers: &mut Workers, targets: &mut Targets) -> Result<String> {
        let counting = Counting::start()?;
        let mut times = Times::default();
        for round in 1..=ROUNDS {
            eprintln!("run time of programs: round {round} of {ROUNDS}");
            for (rules, column) in [
                (Rules::One("RF-901"), Column::OneRule),
                (Rules::All, Column::AllRules),
                (Rules::Manifold, Column::Manifold),
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
        self.judge(&times, targets);
        Ok(self.run_time_table(&times))
    }

    fn judge(&self, times: &Times, targets: &mut Targets) {
        for (task, program, limit) in LIMITS {
            let at = |column| times.median(task, program, column);
            let Some(all) = at(Column::AllRules) else {
                targets.not_measured(&format!("`{program}`"), &format!("did not run at: {}", task.title()));
                continue;
            };
            targets.at_most(&format!("`{program}`, all rules"), limit, all, "ns");
            let more = [
                (Column::OneRule, Column::AllRules, "all rules against 1 rule".to_owned()),
                (Column::AllRules, Column::Manifold, format!("{} times the rules against all", self.manifold.times)),
            ];
            for (fewer, more, title) in more {
                match (at(fewer), at(more)) {
                    (Some(fewer), Some(more)) => {
                        targets.at_most(&format!("`{program}`, {title}"), 10.0, (more / fewer - 1.0) * 100.0, "%");
                    }
                    _ => targets.not_measured(&format!("`{program}`, {title}"), "did not run in both"),
                }
            }
        }
    }

    fn run_time_table(&self, times: &Times) -> String {
        let mut text = format!(
            "\n## Run time of eBPF programs\n\n\
             | operation | program | not governed, all rules | governed, 1 rule (RF-901) | all {} rules | {} times: {} rules |\n\
             |---|---|---|---|---|---|\n",
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
             medians of {ROUNDS} rounds. `-`: not attached, or not run. {}\n",
            self.manifold.note
        )
    }
}
