//! The suite: what is tested, in order, and how the outcome is told.

mod behaviours;
mod churn;
mod context;
mod crash;
mod entry;
mod event;
mod exceptions;
mod first;
mod isolation;
mod log;
mod mitigations;
mod networks;
mod node;
mod noise;
mod overload;
mod reload;
mod report;
mod undo;
mod usage;
mod workloads;

use std::process::ExitCode;

use anyhow::Result;

pub use context::{Context, Programs, cut_at};
pub use report::{Report, Scope};

/// A test by its name.
type Test = (&'static str, fn(&mut Context) -> Result<()>);

/// A part of the suite.
pub enum Part {
    /// Tests that stand for themselves.
    Table(&'static [Test]),
    /// Tests that are made of what they are about, or share what is dear to set up.
    Made {
        /// Names of all of them.
        names: fn() -> Vec<String>,
        /// Runs those that the report wants.
        run: fn(&mut Context, &mut Report),
    },
}

impl Part {
    fn names(&self) -> Vec<String> {
        match self {
            Self::Table(tests) => tests.iter().map(|(name, _)| (*name).to_owned()).collect(),
            Self::Made { names, .. } => names(),
        }
    }

    fn run(&self, context: &mut Context, report: &mut Report) {
        match self {
            Self::Table(tests) => tests.iter().for_each(|(name, test)| report.check(name, || test(context))),
            Self::Made { run, .. } => run(context, report),
        }
    }
}

/// In this order: what needs the node's only enforcer for itself comes last.
const PARTS: [Part; 17] = [
    node::PART,
    mitigations::PART,
    entry::PART,
    event::PART,
    exceptions::PART,
    noise::PART,
    isolation::PART,
    networks::PART,
    undo::PART,
    first::PART,
    reload::PART,
    churn::PART,
    overload::PART,
    crash::PART,
    crash::points::PART,
    log::PART,
    usage::PART,
];

/// Prints the names of all tests of a part that hold `filter`.
pub fn list(part: &str, filter: &str) {
    let report = Report::of(part, filter);
    for name in PARTS.iter().flat_map(Part::names).filter(|name| report.wants(name)) {
        println!("{name}");
    }
}

/// Performs all behaviours and near misses whose names hold `filter`, without an enforcer; 1 if one failed.
pub fn behaviours(programs: &Programs, filter: &str) -> Result<ExitCode> {
    let mut report = Report::new(filter);
    let mut context = Context::start(programs)?;
    behaviours::run(&mut context, &mut report);
    context.stop()?;
    Ok(report.finish())
}

/// Runs all tests of a part whose names hold `filter`; 1 if one failed.
pub fn run(programs: &Programs, part: &str, filter: &str) -> Result<ExitCode> {
    let mut report = Report::of(part, filter);
    let mut context = Context::start(programs)?;
    for part in &PARTS {
        let names = part.names();
        if names.iter().any(|name| report.wants(name)) {
            part.run(&mut context, &mut report);
            for name in names {
                if report.wants(&name) && !report.has(&name) {
                    report.fail(&name, "it did not run");
                }
            }
        }
    }
    let strange = context.journal.strange();
    if !strange.is_empty() {
        report.fail("output", &format!("{} lines are no violation, such as {}", strange.len(), strange[0]));
    }
    let complaints = context.journal.complaints();
    if let Some(first) = complaints.first() {
        report.fail("kernel-agrees-with-reference", &format!("{} times not, such as {first}", complaints.len()));
    }
    if let Err(error) = context.stop() {
        report.fail("clean-up", &format!("{error:#}"));
    }
    Ok(report.finish())
}
