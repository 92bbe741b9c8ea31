//! How many violations a second reach the log without loss.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ringfence_policy::Mitigation;

use super::results::Results;
use super::worker::{Task, Worker};
use super::{Bench, Rules, as_f64};
use crate::enforcer::Enforcer;

/// Seconds of each trial: many times what the ring buffer holds.
const SECONDS: u32 = 3;
/// Each trial after the first is this much slower, until none is lost.
const SLOWER: f64 = 0.8;
/// Trials, before it is said that there is no such rate.
const TRIALS: usize = 12;
/// Opens by which the full speed is found.
const CALIBRATION: u32 = 50_000;
/// A guard against waiting for ever until the last is written.
const PATIENCE: Duration = Duration::from_mins(1);

/// One trial.
struct Trial {
    /// Violations a second.
    offered: f64,
    violations: u64,
    lost: u64,
    written: u64,
    /// Seconds until the last was written.
    took: f64,
}

impl Bench {
    /// One governed process violates a rule with `log` as fast as it can, then slower, until nothing is lost.
    pub(super) fn events(&self, inside: &mut Worker, results: &mut Results) -> Result<String> {
        let log = self.directory.join("violations.json");
        let options = ["--log-file".to_owned(), log.display().to_string()];
        let mut text = String::from(
            "\n## Events\n\n| violations a second | in all | lost | written | written a second |\n|---|---|---|---|---|\n",
        );
        let mut pace = None;
        let mut sustained = None;
        for _ in 0..TRIALS {
            let enforcer = self.start_with(Rules::One("RF-501"), Mitigation::Log, &options)?;
            let trial = trial(&enforcer, inside, pace, &log)?;
            self.remove(enforcer)?;
            std::fs::remove_file(&log)?;
            let rate = as_f64(trial.written) / trial.took;
            text += &format!(
                "| {:.0} | {} | {} | {} | {rate:.0} |\n",
                trial.offered, trial.violations, trial.lost, trial.written
            );
            ensure!(trial.written + trial.lost == trial.violations, "records are neither written nor counted as lost");
            let setting = format!("{:.0} offered", trial.offered);
            results.add("events", "violations lost", &setting, "violations", vec![as_f64(trial.lost)]);
            results.add("events", "violations written", &setting, "a second", vec![rate]);
            if trial.lost == 0 {
                sustained = Some(trial.offered);
                break;
            }
            pace = Some(trial.offered * SLOWER);
        }
        match sustained {
            Some(rate) => results.targets.at_least("violations a second, none lost", 100_000.0, rate, "/s"),
            None => results.targets.not_measured("violations a second, none lost", "some were lost at any rate tried"),
        }
        let full_speed =
            if pace.is_none() { " Nothing was lost at full speed: what more would do is not known." } else { "" };
        text += &format!(
            "\nOne process opens /etc/shadow (RF-501, `log`) for {SECONDS} s: as fast as it can first, then at {:.0} % of \
             the rate before until nothing is lost. The JSON lines go to a file. Lost records are counted by the \
             kernel; every violation is either written or counted.{full_speed}\n",
            SLOWER * 100.0
        );
        Ok(text)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates far below 2^32")]
fn trial(enforcer: &Enforcer, inside: &mut Worker, pace: Option<f64>, log: &Path) -> Result<Trial> {
    let mut lines = Lines::of(log)?;
    let (pace, mut earlier) = match pace {
        Some(pace) => (pace, 0),
        None => (1e9 / inside.run(Task::Violate, CALIBRATION)?, u64::from(CALIBRATION)),
    };
    eprintln!("events: {pace:.0} a second");
    let before = counts(enforcer)?;
    earlier -= before.lost;
    lines.wait_for(earlier)?;
    let from = Instant::now();
    let each = inside.run_at(Task::Violate, pace as u32 * SECONDS, pace as u32)?;
    let after = counts(enforcer)?;
    let (violations, lost) = (after.violations - before.violations, after.lost - before.lost);
    lines.wait_for(earlier + violations - lost)?;
    Ok(Trial {
        offered: 1e9 / each,
        violations,
        lost,
        written: lines.count - earlier,
        took: from.elapsed().as_secs_f64(),
    })
}

/// Counters of all classes.
struct Counts {
    violations: u64,
    lost: u64,
}

fn counts(enforcer: &Enforcer) -> Result<Counts> {
    let classes = enforcer.status()?.classes;
    let sum = |of: fn(&ringfence_control::ClassStatus) -> u64| classes.iter().map(of).sum();
    Ok(Counts { violations: sum(|class| class.violations), lost: sum(|class| class.lost_log + class.lost_mitigating) })
}

/// The lines of a growing file.
struct Lines {
    file: BufReader<File>,
    count: u64,
}

impl Lines {
    fn of(log: &Path) -> Result<Self> {
        Ok(Self { file: BufReader::with_capacity(1 << 20, File::open(log)?), count: 0 })
    }

    /// Until there are as many.
    fn wait_for(&mut self, wanted: u64) -> Result<()> {
        let from = Instant::now();
        loop {
            let bytes = self.file.fill_buf()?;
            if !bytes.is_empty() {
                self.count += bytes.split(|byte| *byte == b'\n').count() as u64 - 1;
                let read = bytes.len();
                self.file.consume(read);
            } else if self.count >= wanted {
                return Ok(());
            } else {
                ensure!(from.elapsed() < PATIENCE, "{} of {wanted} violations were written in a minute", self.count);
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
