//! The node that everything else stands on.

use super::Part;
use super::context::Context;
use super::report::Report;
use crate::harness::TESTS;

pub const PART: Part = Part::Made { names, run };

fn names() -> Vec<String> {
    TESTS.iter().map(|(name, _)| format!("node/{name}")).collect()
}

fn run(_: &mut Context, report: &mut Report) {
    for (name, test) in TESTS {
        report.check(&format!("node/{name}"), test);
    }
}
