//! Kernel lockdown (`security/lockdown/lockdown.c`, 5.4): what the kernel keeps even from root.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_control::Tier;

use super::Machine;
use crate::suite::{Programs, Report};

/// What is written to it can only be raised.
const LEVEL: &str = "/sys/kernel/security/lockdown";

const TIER: &str = "vm/lockdown/integrity/tier";
const REFUSED: &str = "vm/lockdown/confidentiality";

fn raise(level: &str) -> Result<()> {
    fs::write(LEVEL, level).with_context(|| format!("write {level} to {LEVEL}"))
}

/// Integrity takes nothing away; with confidentiality no program may read the kernel's memory, and the enforcer says so.
pub fn run(programs: &Programs, report: &mut Report) -> Result<()> {
    if report.wants(TIER) {
        raise("integrity")?;
        let machine = Machine::start_as("integrity", programs, Tier::Lsm)?;
        report.check(TIER, || machine.tier());
        machine.blocks_on_every_tier("lockdown/integrity", 1, report);
        let uninstalled = machine.uninstall(programs);
        report.check("vm/lockdown/integrity/uninstall", || uninstalled);
    }
    report.check(REFUSED, || {
        raise("confidentiality")?;
        let Err(error) = Machine::start_as("confidentiality", programs, Tier::Lsm) else {
            bail!("an enforcer started, which can read nothing");
        };
        let said = format!("{error:#}");
        for word in ["lockdown is confidentiality", LEVEL, "lockdown=integrity"] {
            ensure!(said.contains(word), "it does not name {word}: {said}");
        }
        Ok(())
    });
    Ok(())
}
