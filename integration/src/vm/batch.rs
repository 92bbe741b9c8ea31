//! Tests that are performed one after the other, and judged together once everything is told: to wait for that costs more
//! in a VM than what is waited for.

use std::ops::RangeInclusive;
use std::process::Output;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use ringfence_actor::now;
use ringfence_control::{Tier, Violation};

use super::{Machine, said};
use crate::bare::Bare;
use crate::cases::{Act, Case};
use crate::suite::Report;

/// What is right, by what the act said and the events of its rule.
type Judge<'a> = Box<dyn Fn(&Output, &[Arc<Violation>]) -> Result<()> + 'a>;

/// An act, done.
struct Performed<'a> {
    test: String,
    rule: &'a str,
    /// What it said, and the time on the kernel's clock that it took.
    outcome: Result<(Output, RangeInclusive<u64>)>,
    judge: Judge<'a>,
}

/// Tests of one machine. [`Batch::judge`] tells of them.
#[must_use = "nothing is told of tests that are not judged"]
pub struct Batch<'a> {
    machine: &'a Machine,
    performed: Vec<Performed<'a>>,
}

impl<'a> Batch<'a> {
    /// Without tests.
    pub fn new(machine: &'a Machine) -> Self {
        Self { machine, performed: Vec::new() }
    }

    /// Performs a command in a container, if the test is wanted.
    pub fn perform(
        &mut self,
        report: &Report,
        test: String,
        rule: &'a str,
        (bare, command): (&Bare, &[String]),
        judge: impl Fn(&Output, &[Arc<Violation>]) -> Result<()> + 'a,
    ) {
        if report.wants(&test) {
            let from = now();
            let outcome = bare.run(command).map(|output| (output, from..=now()));
            self.performed.push(Performed { test, rule, outcome, judge: Box::new(judge) });
        }
    }

    /// It must succeed where it is only logged, and be an event.
    pub fn logged(&mut self, report: &Report, test: String, case: &'a Case, act: &Act) {
        let command = act.arguments(&self.machine.places);
        self.perform(report, test, case.rule, (&self.machine.log, &command), |output, events| {
            ensure!(output.status.success(), "it failed: {}", said(output));
            ensure!(!events.is_empty(), "no event");
            Ok(())
        });
    }

    /// It must be stopped where it is blocked, on the tier that this machine's `strongest` says.
    pub fn blocked(&mut self, report: &Report, test: String, case: &'a Case, act: &Act) {
        self.stopped(report, test, case, act, |_| true);
    }

    /// The same, by a program on this machine's strongest tier and no weaker one.
    pub fn blocked_by_hook(&mut self, report: &Report, test: String, case: &'a Case, act: &Act) {
        let strongest = self.machine.strongest;
        self.stopped(report, test, case, act, move |tier| tier == strongest);
    }

    fn stopped(&mut self, report: &Report, test: String, case: &'a Case, act: &Act, right: impl Fn(Tier) -> bool + 'a) {
        let (machine, command) = (self.machine, act.arguments(&self.machine.places));
        self.perform(report, test, case.rule, (&machine.block[case.rule], &command), move |output, events| {
            let tier = machine.stopped(case, output, events)?;
            ensure!(right(tier), "on tier {tier:?}");
            Ok(())
        });
    }

    /// It must succeed where it would be blocked, without an event.
    pub fn let_pass(&mut self, report: &Report, test: String, case: &'a Case, act: &Act) {
        let command = act.arguments(&self.machine.places);
        self.perform(report, test, case.rule, (&self.machine.block[case.rule], &command), |output, events| {
            ensure!(output.status.success(), "it failed: {}", said(output));
            ensure!(events.is_empty(), "it counted: {:?}", events[0].flags);
            Ok(())
        });
    }

    /// Waits until everything is told, and tells what became of each test.
    pub fn judge(self, report: &mut Report) {
        let Self { machine, performed } = self;
        if performed.is_empty() {
            return;
        }
        let told = machine.everything_is_told();
        for Performed { test, rule, outcome, judge } in performed {
            report.check(&test, || {
                told.as_ref().map_err(|error| anyhow!("{error:#}"))?;
                let (output, window) = outcome.context("it could not be performed")?;
                let own =
                    |event: &Violation| window.contains(&event.kernel_time_ns) && event.rule_id.to_string() == rule;
                judge(&output, &machine.journal.all(own))
            });
        }
    }
}
