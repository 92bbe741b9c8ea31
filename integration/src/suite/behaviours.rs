//! Every behaviour and near miss without an enforcer: an act that cannot be performed would prove nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{Result, ensure};
use ringfence_policy::Mitigation;

use super::context::Context;
use super::report::Report;
use crate::cases::{self, Act, Needs};
use crate::harness::Container;

/// Performs those that the report wants.
pub fn run(context: &mut Context, report: &mut Report) {
    let mut containers = HashMap::new();
    for case in cases::all() {
        let violating = case.behaviours.iter().chain(case.evasions).chain(case.past_tracepoints);
        for act in violating.chain(case.near_misses) {
            report.check(&format!("{}/{}", case.rule, act.name), || perform(context, &mut containers, case.needs, act));
        }
    }
}

fn perform(context: &mut Context, containers: &mut HashMap<Needs, Container>, needs: Needs, act: &Act) -> Result<()> {
    if let Entry::Vacant(vacant) = containers.entry(needs) {
        let spec = context.spec(needs, "none", Mitigation::Log, ["actor", "sleep", "3600000"]);
        vacant.insert(context.run(&spec)?);
    }
    let output = context.act(&containers[&needs], act)?;
    ensure!(output.status == 0, "it ended with {}: {} {}", output.status, output.stdout, output.stderr);
    Ok(())
}
