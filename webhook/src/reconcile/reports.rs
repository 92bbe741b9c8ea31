//! What nodes report, put together.

use std::collections::{BTreeMap, HashMap};

use ringfence_api::{NodeFailure, NodeReport, Reported, Violations};

/// Failures of one object that a status shows.
const FAILURES: usize = 16;
/// Longest reason of one, in characters.
const REASON: usize = 256;

/// Reports of all nodes.
#[derive(Default)]
pub(super) struct Reports<'a> {
    nodes: usize,
    rulesets: HashMap<&'a str, Vec<&'a Reported>>,
    policies: HashMap<&'a str, Vec<&'a Reported>>,
}

/// All that is reported about one object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub violations: Option<Violations>,
    pub failures: Vec<NodeFailure>,
}

impl<'a> Reports<'a> {
    /// One node's.
    pub(super) fn add(&mut self, report: &'a NodeReport) {
        self.nodes += 1;
        for (all, of_node) in [(&mut self.rulesets, &report.rulesets), (&mut self.policies, &report.policies)] {
            for (name, reported) in of_node {
                all.entry(name).or_default().push(reported);
            }
        }
    }

    /// How many nodes report.
    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    /// About a ruleset that is in force in this generation. A node that says nothing about it has nothing to say.
    pub(super) fn ruleset(&self, name: &str, generation: i64) -> Sum {
        self.sum(self.rulesets.get(name), generation, |reported| reported.generation == generation)
    }

    /// The same for a policy. What fails there is the node's, whichever version it enforces: that it could not take this one
    /// may be just what it says.
    pub(super) fn policy(&self, name: &str, generation: i64) -> Sum {
        self.sum(self.policies.get(name), generation, |_| true)
    }

    fn sum(&self, reported: Option<&Vec<&Reported>>, generation: i64, may_fail: impl Fn(&Reported) -> bool) -> Sum {
        if self.nodes == 0 {
            return Sum::default();
        }
        let mut violations = Violations { count: 0, since: None };
        let mut failures: BTreeMap<String, u32> = BTreeMap::new();
        for reported in reported.into_iter().flatten() {
            for failure in reported.failures.iter().filter(|_| may_fail(reported)) {
                *failures.entry(failure.chars().take(REASON).collect()).or_default() += 1;
            }
            // A node that still enforces another version counts another thing.
            if reported.generation != generation {
                continue;
            }
            violations.count = violations.count.saturating_add(reported.violations);
            if violations.since.as_ref().is_none_or(|since| reported.since < *since) {
                violations.since = Some(reported.since.clone());
            }
        }
        let failures = failures.into_iter().take(FAILURES).map(|(reason, nodes)| NodeFailure { reason, nodes });
        Sum { violations: Some(violations), failures: failures.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(generation: i64, violations: u64, since: &str, failures: &[&str]) -> NodeReport {
        let failures = failures.iter().map(|&failure| failure.to_owned()).collect();
        let web = Reported { generation, violations, since: since.to_owned(), failures };
        NodeReport { rulesets: [("web".to_owned(), web)].into(), ..NodeReport::default() }
    }

    #[test]
    fn nodes_are_summed_up_by_what_they_say_about_the_version_in_force() {
        let nodes = [
            report(2, 3, "2026-11-28T00:00:05Z", &["a", "b"]),
            report(2, 4, "2026-11-28T00:00:01Z", &["b"]),
            report(1, 9, "2026-11-27T00:00:00Z", &["c"]),
            NodeReport::default(),
        ];
        let mut reports = Reports::default();
        assert_eq!(reports.ruleset("web", 2), Sum::default(), "nobody has said anything");
        for node in &nodes {
            reports.add(node);
        }
        let Sum { violations, failures } = reports.ruleset("web", 2);
        assert_eq!(violations, Some(Violations { count: 7, since: Some("2026-11-28T00:00:01Z".to_owned()) }));
        let failures: Vec<_> = failures.iter().map(|failure| (failure.reason.as_str(), failure.nodes)).collect();
        assert_eq!(failures, [("a", 1), ("b", 2)]);
        let none = Sum { violations: Some(Violations { count: 0, since: None }), failures: vec![] };
        assert_eq!(reports.ruleset("other", 1), none);
        assert_eq!(reports.policy("web", 2), none);
    }

    #[test]
    fn a_node_that_could_not_take_a_policy_says_so_from_the_one_before() {
        let failures = vec!["a change could not be put in force".to_owned()];
        let main = Reported { generation: 1, violations: 5, since: "2026-11-28T00:00:01Z".to_owned(), failures };
        let node = NodeReport { policies: [("main".to_owned(), main)].into(), ..NodeReport::default() };
        let mut reports = Reports::default();
        reports.add(&node);
        let Sum { violations, failures } = reports.policy("main", 2);
        assert_eq!(violations, Some(Violations { count: 0, since: None }));
        assert_eq!(failures.len(), 1);
    }
}
