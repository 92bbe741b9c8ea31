//! The smoke set, for architectures that this machine only emulates: every operation once, logged and blocked, and every
//! mitigation, on the tier that the kernel has; a crash, and the enforcer that comes after it; the other tiers, briefly.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use ringfence_actor::now;
use ringfence_control::{Done, Tier, Violation};
use ringfence_policy::Mitigation;

use super::{Cgroups, Machine, coverage, kernel_is_older_than, layout};
use crate::bare::Bare;
use crate::cases::act;
use crate::suite::{Programs, Report};

/// A shell's command that says whether a packet arrives, before and after a violation. A container that is named by its
/// cgroup counts as one of the node's network: then the loopback is cut off as well.
pub const TRAFFIC: &str = "sh -c 'ping -c 1 -W 5 169.254.0.1 2>&1 | sed s/^/before:/; cat /etc/shadow >/dev/null; \
                       ping -c 1 -W 5 169.254.0.1 2>&1 | sed s/^/after:/'";

/// The rule that is violated for its mitigations.
pub const RULE: &str = "RF-501";

/// Runs the tests whose names hold `filter`.
pub fn run(programs: &Programs, filter: &str, cgroups: Cgroups) -> Result<ExitCode> {
    let mut report = Report::new(filter);
    report.check("vm/cgroups", || layout(cgroups));
    let mut machine = Machine::start(programs, Tier::Lsm)?;
    report.check("vm/smoke/tier", || machine.has_its_tier());
    machine.strongest = machine.tier_of("open")?;
    coverage::control(&machine, &coverage::one_of_each(), &mut report);
    coverage::claims(&machine, &coverage::one_of_each(), &mut report);
    report.check("vm/smoke/isolate", || machine.isolates());
    report.check("vm/smoke/terminate", || machine.terminates());
    report.check("vm/smoke/crash-and-adopt", || machine.comes_back());
    let strongest = machine.strongest;
    let uninstalled = machine.uninstall(programs);
    report.check("vm/uninstall", || uninstalled);
    for tier in [Tier::Fentry, Tier::Kprobe, Tier::Tracepoint].into_iter().filter(|tier| *tier < strongest) {
        weaker(programs, tier, &mut report)?;
    }
    Ok(report.finish())
}

/// With no stronger tier than this: one behaviour of each rule that is tried on all of them.
fn weaker(programs: &Programs, tier: Tier, report: &mut Report) -> Result<()> {
    let machine = Machine::start(programs, tier)?;
    report.check(&format!("vm/{tier}/tier"), || machine.is_on(tier));
    machine.blocks_on_every_tier(tier.name(), 1, report);
    let uninstalled = machine.uninstall(programs);
    report.check(&format!("vm/{tier}/uninstall"), || uninstalled);
    Ok(())
}

impl Machine {
    /// arm64 has trampolines on the kernel's functions since 6.4 (6.0 had them on programs alone), and without them
    /// neither LSM programs nor `fentry`. A kprobe that stays is of 5.15.
    fn has_its_tier(&self) -> Result<()> {
        let expected = match (kernel_is_older_than(5, 15)?, kernel_is_older_than(6, 4)?) {
            (true, _) => Tier::Tracepoint,
            (false, true) => Tier::Kprobe,
            (false, false) => Tier::Lsm,
        };
        self.is_on(expected)
    }

    fn tier_of(&self, class: &str) -> Result<Tier> {
        let classes = self.enforcer.status()?.classes;
        let found = classes.into_iter().find(|found| found.class == class).context("no such class")?;
        found.tier.with_context(|| format!("class {class} has no tier"))
    }

    /// What a container did from a time on, by [`RULE`].
    pub fn violation_since(&self, from: u64, mitigation: Mitigation) -> Result<Vec<Done>> {
        let own = |event: &Violation| {
            event.kernel_time_ns >= from && event.rule_id.to_string() == RULE && event.mitigation == mitigation
        };
        Ok(self.journal.wait_for(&format!("the violation that asks for {mitigation}"), own)?.mitigation_done.clone())
    }

    fn isolates(&self) -> Result<()> {
        let from = now();
        let said = said(&self.isolate, TRAFFIC, self)?;
        let done = self.violation_since(from, Mitigation::Isolate)?;
        ensure!(done.contains(&Done::Isolated), "it did {done:?}");
        ensure!(arrives(&said, "before:"), "no traffic that could be cut off: {said}");
        ensure!(is_cut_off(&said, "after:"), "not cut off after the violation: {said}");
        let status = self.enforcer.container(self.isolate.cgroup())?;
        ensure!(status.isolated.is_some(), "status does not tell");
        Ok(())
    }

    /// Who violates dies, and so does the rest of the container, which would go on for longer than anybody waits.
    fn terminates(&self) -> Result<()> {
        let from = now();
        let said =
            said(&self.terminate, "sh -c '(sleep 100; echo rest) & cat /etc/shadow; sleep 100; echo first'", self)?;
        let done = self.violation_since(from, Mitigation::Terminate)?;
        ensure!(done.contains(&Done::Terminated), "it did {done:?}");
        ensure!(said.is_empty(), "it said {said:?}");
        Ok(())
    }

    /// Killed, it leaves its programs at work, and what they have seen to the next one, which takes everything over.
    fn comes_back(&mut self) -> Result<()> {
        self.enforcer.kill()?;
        let from = now();
        self.outlived()?;
        let cut = said(&self.isolate, TRAFFIC, self)?;
        ensure!(is_cut_off(&cut, "before:"), "it is not cut off any more: {cut}");
        said(&self.log, "cat /etc/shadow", self)?;
        self.launch()?;
        let messages = self.enforcer.messages();
        ensure!(messages.contains("are taken over"), "nothing was taken over: {messages}");
        self.violation_since(from, Mitigation::Log).context("what happened without an enforcer")?;
        let status = self.enforcer.container(self.isolate.cgroup())?;
        ensure!(status.isolated.is_some(), "it does not know who is isolated");
        let later = now();
        said(&self.log, "cat /etc/shadow", self)?;
        self.violation_since(later, Mitigation::Log).context("what happens from then on")?;
        self.enforcer.release(self.isolate.cgroup())?;
        let back = said(&self.isolate, TRAFFIC, self)?;
        ensure!(arrives(&back, "before:"), "it is cut off after its release: {back}");
        Ok(())
    }
}

pub fn arrives(said: &str, when: &str) -> bool {
    said.lines().any(|line| line.starts_with(when) && line.contains(" 1 packets received"))
}

/// What is told of a packet that is dropped where it is sent.
pub fn is_cut_off(said: &str, when: &str) -> bool {
    said.lines().any(|line| line.starts_with(when) && line.contains("Operation not permitted"))
}

/// What a command says in a container.
fn said(bare: &Bare, command: &'static str, machine: &Machine) -> Result<String> {
    let output = bare.run(&act("smoke", command).arguments(&machine.places))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
