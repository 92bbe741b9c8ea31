//! What the agent tells the cluster about its node.

use super::Agent;
use ringfence_api::NodeReport;
use ringfence_policy::{Coverage, Mitigation};
use std::collections::{BTreeMap, BTreeSet};

/// Failures of one ruleset or policy that are told: an annotation is no log.
const FAILURES: usize = 16;

const UNCOVERED: &str = "no datapath covers some of its pods: they are terminated instead of isolated";

impl Agent {
    /// Violations and failures by ruleset and policy. What there is nothing to say about is left out.
    pub(super) fn node_report(&mut self) -> anyhow::Result<NodeReport> {
        let mut rulesets = self.tally.rulesets.clone();
        for (name, failures) in self.failures() {
            if let Some(ruleset) = rulesets.get_mut(&name) {
                ruleset.failures = failures.into_iter().take(FAILURES).collect();
            }
        }
        rulesets.retain(|_, reported| reported.violations > 0 || !reported.failures.is_empty());
        let mut policies = self.tally.policies.clone();
        for reported in policies.values_mut() {
            reported.failures = self.common_failures()?;
        }
        Ok(NodeReport { node: self.parts.node.to_string(), policies, rulesets })
    }

    /// What of each ruleset does not work here as asked.
    fn failures(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut failures: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let unseen: BTreeMap<_, _> = self
            .parts
            .rulesets
            .named()
            .map(|rule| (rule.id, self.coverage_of(rule)))
            .filter(|(_, coverage)| coverage.weakest() == Coverage::Blind)
            .collect();
        for ruleset in self.parts.rulesets.enforced().rulesets() {
            for (id, coverage) in unseen.iter().filter(|(id, _)| ruleset.rules.contains_key(*id)) {
                let part = if coverage.is_blind() { "" } else { " in part" };
                let why = coverage.misses.join(" ");
                failures.entry(ruleset.name.clone()).or_default().insert(format!("{id} is not seen{part}: {why}"));
            }
        }
        for known in self.known.values().filter(|known| known.slot != 0) {
            let owner = &known.owner;
            // Before there is a process there is nothing to cover.
            if owner.container.pid.is_none() || self.coverage(known.slot).is_covered() {
                continue;
            }
            let asked = owner.resolved.rules.values().flat_map(|decision| &decision.asked_by);
            for asked in asked.filter(|asked| asked.mitigation >= Mitigation::Isolate) {
                failures.entry(asked.ruleset.to_string()).or_default().insert(UNCOVERED.to_owned());
            }
        }
        failures
    }

    /// What concerns all rulesets alike.
    fn common_failures(&mut self) -> anyhow::Result<Vec<String>> {
        let mut failures = Vec::new();
        if let Some(rejected) = self.parts.rulesets.rejected() {
            failures.push(format!("a change could not be put in force, what was in force before stays: {rejected}"));
        }
        if self.lost > 0 {
            failures.push("violations were lost, because there were more than could be told".to_owned());
        }
        if self.candidates_status()?.undecided > 0 {
            failures.push("of some programs it is not known whether they violated a rule".to_owned());
        }
        if self.disagreements > 0 {
            failures.push("answers of the kernel differ from the rules' declarations".to_owned());
        }
        Ok(failures)
    }

    /// The same, for the next enforcer too.
    pub(super) fn report(&mut self) -> Result<NodeReport, String> {
        self.save_tally();
        self.node_report().map_err(|error| error.to_string())
    }

    pub(super) fn save_tally(&self) {
        if let Err(error) = self.tally.save(&self.writer) {
            tracing::error!(%error, "how many violations there were can't be kept for the next enforcer");
        }
    }
}
