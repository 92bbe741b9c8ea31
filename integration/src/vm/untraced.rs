//! Programs on functions of the kernel that it does not call: `kernel.ftrace_enabled` is 0.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result, ensure};
use ringfence_control::Tier;

use super::smoke::RULE;
use super::{Machine, said};
use crate::suite::{Programs, Report};
use crate::wait;

/// 0: what is put on functions by ftrace is put there, and never called (`kernel/trace/ftrace.c`).
const SWITCH: &str = "/proc/sys/kernel/ftrace_enabled";

const TIER: &str = "vm/untraced/tier";

/// False: where trampolines of BPF are there for good, the kernel itself does not let anybody (5.10, `FTRACE_OPS_FL_PERMANENT`).
fn turn(value: &str) -> Result<bool> {
    match fs::write(SWITCH, value) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(false),
        result => result.map(|()| true).with_context(|| format!("write {value} to {SWITCH}")),
    }
}

fn is_on() -> Result<bool> {
    Ok(fs::read_to_string(SWITCH)?.trim() == "1")
}

/// While an enforcer is at work: it turns it on again, says so, and sees what it saw before. Without it nothing would.
pub fn turned_off(machine: &Machine, report: &mut Report) {
    report.check("vm/untraced/nobody-looks", || {
        let paused = machine.enforcer.pause()?;
        let read = turn("0").and_then(|turned| {
            let read = machine.block[RULE].run(&["cat".into(), "/etc/shadow".into()])?;
            Ok((turned, read))
        });
        turn("1")?;
        drop(paused);
        let (turned, read) = read?;
        ensure!(read.status.success() == turned, "turned off: {turned}; {}", said(&read));
        Ok(())
    });
    report.check("vm/untraced/turned-off", || {
        if !turn("0")? {
            ensure!(is_on()?, "it was turned off all the same");
            return Ok(());
        }
        wait::until("it is turned on again", is_on)?;
        let warnings = machine.enforcer.status()?.warnings;
        ensure!(warnings.iter().any(|warning| warning.contains("ftrace_enabled")), "no word of it: {warnings:?}");
        Ok(())
    });
    machine.blocks_on_every_tier("untraced/turned-off", 1, report);
}

/// Before the enforcer starts: it finds out, and takes a tier without such programs; where it can't do without, it does
/// not start.
pub fn at_the_start(programs: &Programs, report: &mut Report) -> Result<()> {
    if !report.wants(TIER) {
        return Ok(());
    }
    ensure!(turn("0")?, "no program is there yet, and it can't be turned off");
    match Machine::start_as("untraced", programs, Tier::Lsm) {
        Ok(mut machine) => {
            machine.strongest = Tier::Tracepoint;
            report.check(TIER, || machine.is_on(Tier::Tracepoint));
            report.check("vm/untraced/says-so", || {
                let said = machine.enforcer.messages();
                ensure!(said.contains("does not call"), "it says nothing of it: {said}");
                Ok(())
            });
            machine.blocks_on_every_tier("untraced", 1, report);
            let uninstalled = machine.uninstall(programs);
            report.check("vm/untraced/uninstall", || uninstalled);
        }
        // Before 5.15 system calls are seen by functions alone.
        Err(error) => report.check(TIER, || {
            let said = format!("{error:#}");
            ensure!(said.contains("ftrace_enabled"), "it does not say why: {said}");
            Ok(())
        }),
    }
    turn("1")?;
    Ok(())
}
