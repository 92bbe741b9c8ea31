//! The node's clock is set while an enforcer is at work.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use super::Machine;
use super::batch::Batch;
use super::smoke::RULE;
use crate::cases::{self, act};
use crate::suite::Report;

/// How far an event's time may be from the time that it is looked at.
const CLOSE: i64 = 600;

/// Seconds by which it is set; in the end it is right again.
const JUMPS: [(&str, i64); 3] = [("forward", 86_400), ("back", -172_800), ("forward-again", 86_400)];

/// What is done then is told with the new time, and stopped as ever.
pub fn run(machine: &Machine, report: &mut Report) {
    let case = cases::of(RULE);
    for (name, by) in JUMPS {
        let (told, stopped) = (format!("vm/clock/{name}/log"), format!("vm/clock/{name}/block"));
        if !report.wants(&told) && !report.wants(&stopped) {
            continue;
        }
        let set = jump(by);
        let mut batch = Batch::new(machine);
        let command = ["cat", "/etc/shadow"].map(str::to_owned);
        batch.perform(report, told, RULE, (&machine.log, &command), move |_, events| {
            if let Err(error) = &set {
                anyhow::bail!("the clock can't be set: {error:#}");
            }
            let event = events.first().context("no event")?;
            let apart = event.event_time.as_second() - seconds()?;
            ensure!(apart.abs() < CLOSE, "its time is {apart} s from now");
            Ok(())
        });
        batch.blocked(report, stopped, case, &act("clock", "cat /etc/shadow"));
        batch.judge(report);
    }
}

fn seconds() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

fn jump(by: i64) -> Result<()> {
    let to = u64::try_from(seconds()? + by)?;
    Ok(clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(Duration::from_secs(to)))?)
}
