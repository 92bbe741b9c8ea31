//! A rule as scripts see it.

use std::collections::BTreeMap;

use ringfence_policy::{
    Aliases, Coverage, DecidedBy, Mitigation, Rule, RuleCoverage, RuleId, Severity,
    coverage::{TIERS, on_tier},
};
use serde::Serialize;

/// What is known about a rule.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleView<'a> {
    id: RuleId,
    name: &'a str,
    description: &'a str,
    severity: Severity,
    tactic: &'a str,
    techniques: &'a [String],
    containers_matrix: bool,
    aliases: &'a Aliases,
    recommended_mitigation: Mitigation,
    decided_by: DecidedBy,
    /// In the catalogue's declarative language; an event that satisfies one of them violates the rule.
    lines: Vec<String>,
    benign: &'a [String],
    tiers: BTreeMap<&'static str, TierView>,
}

/// What can be done about it on a kernel that allows the tier.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TierView {
    /// That of the operation about which least can be done.
    coverage: Coverage,
    operations: BTreeMap<String, Coverage>,
    note: String,
}

impl<'a> From<&'a Rule> for RuleView<'a> {
    fn from(rule: &'a Rule) -> Self {
        Self {
            id: rule.id,
            name: &rule.name,
            description: &rule.description,
            severity: rule.severity,
            tactic: &rule.tactic,
            techniques: &rule.techniques,
            containers_matrix: rule.containers_matrix,
            aliases: &rule.aliases,
            recommended_mitigation: rule.mitigation,
            decided_by: rule.decided_by,
            lines: rule.lines.iter().map(ToString::to_string).collect(),
            benign: &rule.benign,
            tiers: TIERS
                .into_iter()
                .map(|(name, tier)| {
                    let on_it = RuleCoverage::of(rule, &on_tier(tier));
                    let (coverage, note) = (on_it.weakest(), on_it.misses.join(" "));
                    (name, TierView { coverage, operations: on_it.operations, note })
                })
                .collect(),
        }
    }
}
