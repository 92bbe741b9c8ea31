//! What docs/coverage.md and `ringfence status` say of a rule, held against what happens.
//!
//! With `log` every operation must have the effect that is looked for, or nothing would be proven by its absence. With
//! `block` there must be as much of it as is claimed: no more, and no less.

mod proofs;

use std::collections::BTreeSet;
use std::fmt;
use std::process::{Command, Output};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use ringfence_actor::now;
use ringfence_control::{Done, RuleStatus, Tier, Violation};
use ringfence_policy::{
    Catalogue, Coverage, Mitigation, RuleCoverage,
    coverage::{TIERS, on_tier},
};

use self::proofs::{Effect, Proof};
use super::batch::Batch;
use super::{Machine, kernel_is_older_than, said, suitable};
use crate::bare::Bare;
use crate::enforcer::finish;
use crate::suite::Report;

/// One operation, done.
struct Trial {
    /// When it began and ended, on the kernel's clock.
    window: (u64, u64),
    output: Output,
    took_effect: bool,
}

/// What became of an operation.
enum Seen {
    /// No event came.
    Nothing,
    /// It took effect.
    Happened,
    /// It did not, and that is what was done for it.
    Stopped(Vec<Done>),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("there was no event"),
            Self::Happened => f.write_str("it took effect"),
            Self::Stopped(done) => {
                let done: Vec<_> = done.iter().map(|done| done.as_str()).collect();
                write!(f, "it did not take effect: {}", done.join(", "))
            }
        }
    }
}

/// Each operation of each rule.
pub fn all() -> Vec<Proof> {
    proofs::all()
}

/// Each operation once.
pub fn one_of_each() -> Vec<Proof> {
    let mut tried = BTreeSet::new();
    proofs::all().into_iter().filter(|proof| tried.insert(proof.deed)).collect()
}

/// That each operation has its effect where it is only logged.
pub fn control(machine: &Machine, proofs: &[Proof], report: &mut Report) {
    let named = proofs.iter().map(|proof| (format!("vm/coverage/{}/{}/log", proof.rule, proof.deed), proof));
    tried(
        machine,
        report,
        named,
        |_| Ok(&machine.control),
        |proof, trial, _| {
            ensure!(trial.took_effect, "it has no effect that could be seen; {}", said(&trial.output));
            ensure!(!machine.events_of_proof(proof, trial).is_empty(), "there was no event; {}", said(&trial.output));
            Ok(())
        },
    );
    for (rule, deed, reason) in proofs::NOT_TRIED {
        let name = format!("vm/coverage/{rule}/{deed}");
        if report.wants(&name) {
            report.skip(&name, reason);
        }
    }
}

/// What is claimed on this machine's tier.
pub fn run(machine: &Machine, report: &mut Report) -> Result<()> {
    let tier = machine.strongest;
    // Their programs are the same on every kernel: two have tried each rule.
    let few = tier != Tier::Lsm && !kernel_is_older_than(6, 2)?;
    claims(machine, &if few { one_of_each() } else { all() }, report);
    let block = |proof: &Proof| machine.block.get(proof.rule).context("there is a container for each rule");
    // A connect by sendto(2) is seen on every tier, when the socket's state says so.
    let proof = proofs::by_fast_open();
    let named = std::iter::once((format!("vm/{tier}/coverage/fast-open"), &proof));
    tried(machine, report, named, block, |proof, trial, _| machine.holds(proof, Coverage::DetectedAfter, trial));
    if tier == Tier::Tracepoint {
        let proof = proofs::by_ring();
        let named = std::iter::once((format!("vm/{tier}/coverage/rings"), &proof));
        tried(machine, report, named, block, |proof, trial, rules| machine.by_ring(proof, trial, rules));
        blind(machine, report)?;
    }
    Ok(())
}

/// What is claimed of these operations.
pub fn claims(machine: &Machine, proofs: &[Proof], report: &mut Report) {
    let tier = machine.strongest;
    report.check(&format!("vm/{tier}/coverage/document"), || machine.claims_what_the_document_does());
    let named = proofs.iter().map(|proof| (format!("vm/{tier}/coverage/{}/{}", proof.rule, proof.deed), proof));
    let block = |proof: &Proof| machine.claimed.get(proof.rule).context("there is a container for each rule");
    tried(machine, report, named, block, |proof, trial, rules| {
        let rule = rules.iter().find(|rule| rule.id.to_string() == proof.rule).context("status lacks the rule")?;
        let claim = rule.operations.get(proof.deed).context("status lacks the operation")?;
        machine.holds(proof, *claim, trial)
    });
}

/// Forms that docs/coverage.md says to be blind where system calls are seen as they return.
fn blind(machine: &Machine, report: &mut Report) -> Result<()> {
    let mut batch = Batch::new(machine);
    for case in suitable() {
        for act in case.past_tracepoints {
            let name = format!("vm/tracepoint/coverage/{}/blind/{}", case.rule, act.name);
            if let Some(reason) = Machine::cannot(act)? {
                report.skip(&name, reason);
                continue;
            }
            let command = act.arguments(&machine.places);
            batch.perform(report, name, case.rule, (&machine.block[case.rule], &command), |output, events| {
                ensure!(
                    events.is_empty(),
                    "{} is said to be blind for it, but there was an event: {}",
                    case.rule,
                    events[0].operation
                );
                ensure!(output.status.success(), "it failed: {}", said(output));
                Ok(())
            });
        }
    }
    batch.judge(report);
    Ok(())
}

/// Does what the wanted tests need, one after the other; waits until everything is told; judges.
fn tried<'a>(
    machine: &'a Machine,
    report: &mut Report,
    named: impl Iterator<Item = (String, &'a Proof)>,
    place: impl Fn(&Proof) -> Result<&'a Bare>,
    judge: impl Fn(&Proof, &Trial, &[RuleStatus]) -> Result<()>,
) {
    let wanted: Vec<_> = named.filter(|(name, _)| report.wants(name)).collect();
    let done: Vec<_> = wanted.iter().map(|(_, proof)| place(proof).and_then(|bare| try_out(bare, proof))).collect();
    if done.is_empty() {
        return;
    }
    let told = machine.everything_is_told().and_then(|()| Ok(machine.enforcer.status()?.rules));
    for ((name, proof), trial) in wanted.iter().zip(done) {
        report.check(name, || match &told {
            Ok(rules) => judge(proof, &trial?, rules),
            Err(error) => bail!("{error:#}"),
        });
    }
}

impl Machine {
    /// The node's own word for each operation of each rule is the one in docs/coverage.md for the tier.
    fn claims_what_the_document_does(&self) -> Result<()> {
        let name = self.strongest.name();
        let (_, tier) = TIERS.into_iter().find(|(tier, _)| *tier == name).context("an unknown tier")?;
        for claimed in self.enforcer.status()?.rules {
            let rule = Catalogue::builtin().find(&claimed.id.to_string()).context("an unknown rule")?;
            let documented = RuleCoverage::of(rule, &on_tier(tier)).operations;
            ensure!(
                claimed.operations == documented,
                "{} on {name}: status says {:?}, the document {documented:?}",
                rule.id,
                claimed.operations
            );
        }
        Ok(())
    }

    /// Events of the rule that this operation led to.
    fn events_of_proof(&self, proof: &Proof, trial: &Trial) -> Vec<Arc<Violation>> {
        let (from, to) = trial.window;
        let operation = proof.deed.split(' ').next().unwrap_or_default();
        self.journal.all(|event| {
            let own = event.operation == operation
                // Where executions are denied, the script is the program that is asked for first.
                || (operation == "script" && event.operation == "exec" && event.tier == Tier::Lsm);
            own && (from..=to).contains(&event.kernel_time_ns) && event.rule_id.to_string() == proof.rule
        })
    }

    /// Whether there is as much of it as is claimed.
    fn holds(&self, proof: &Proof, claim: Coverage, trial: &Trial) -> Result<()> {
        let events = self.events_of_proof(proof, trial);
        let seen = match events.first() {
            None => Seen::Nothing,
            Some(event) => {
                ensure!(event.mitigation == Mitigation::Block, "asked for {}", event.mitigation);
                let done = || Seen::Stopped(event.mitigation_done.clone());
                if trial.took_effect { Seen::Happened } else { done() }
            }
        };
        let by = |done: &[Done], how| done.contains(&how);
        let operation = proof.deed;
        let right = match (&seen, claim) {
            (Seen::Nothing, claim) => claim == Coverage::Blind,
            (Seen::Happened, claim) => claim == Coverage::DetectedAfter,
            (Seen::Stopped(_), Coverage::Blind) => false,
            (Seen::Stopped(done), Coverage::Prevented) => {
                by(done, Done::Denied) || (matches!(operation, "exec" | "script") && by(done, Done::Killed))
            }
            (Seen::Stopped(done), Coverage::DetectedBefore) => {
                by(done, Done::Killed) || (operation == "packet" && by(done, Done::Denied))
            }
            (Seen::Stopped(done), Coverage::DetectedAfter) => proof.conservative.is_some() && by(done, Done::Killed),
        };
        ensure!(
            right,
            "{} on {}: {operation} is claimed to be {claim}, but {seen}; {}",
            proof.rule,
            self.strongest,
            said(&trial.output)
        );
        Ok(())
    }

    /// What is opened through a ring is seen, or it is said that it is not.
    fn by_ring(&self, proof: &Proof, trial: &Trial, rules: &[RuleStatus]) -> Result<()> {
        let rule = rules.iter().find(|rule| rule.id.to_string() == proof.rule).context("status lacks the rule")?;
        let blind = rule.note.contains("io_uring");
        self.holds(proof, if blind { Coverage::Blind } else { Coverage::DetectedBefore }, trial)?;
        ensure!(trial.took_effect == blind, "said to be blind: {blind}; {}", said(&trial.output));
        Ok(())
    }
}

fn try_out(bare: &Bare, proof: &Proof) -> Result<Trial> {
    if !proof.before.is_empty() {
        let output = finish(&mut outside(bare, &proof.before))?;
        ensure!(output.status.success(), "{:?} outside of it failed; {}", proof.before, said(&output));
    }
    if let Effect::Left(test) = &proof.effect {
        ensure!(!holds(bare, test)?, "{test:?} holds before anything was done");
    }
    let command = shlex::split(&proof.command).context("quotes do not match")?;
    let from = now();
    let output = if proof.terminal { bare.run_on_terminal(&command) } else { bare.run(&command) }?;
    let window = (from, now());
    let took_effect = match &proof.effect {
        Effect::Said(what) => String::from_utf8_lossy(&output.stdout).contains(what),
        Effect::Left(test) => holds(bare, test)?,
    };
    Ok(Trial { window, output, took_effect })
}

/// A shell's command in the container's root, but in no cgroup and no namespace of its.
fn outside(bare: &Bare, command: &str) -> Command {
    let mut shell = Command::new("/bin/busybox");
    shell.arg("chroot").arg(bare.root()).args(["sh", "-c", command]).env("PATH", "/usr/bin:/bin");
    shell
}

fn holds(bare: &Bare, test: &str) -> Result<bool> {
    let output = finish(&mut outside(bare, test))?;
    match output.status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("{test:?} is no test; {}", said(&output)),
    }
}
