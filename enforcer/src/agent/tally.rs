//! Violations by ruleset and policy, counted since the version in force came into force here.

use crate::state::{VIOLATIONS, Writer};
use jiff::Timestamp;
use ringfence_api::Reported;
use ringfence_policy::{Enforced, Policy};
use std::{collections::BTreeMap, fs, path::Path};

/// By name.
type Counts = BTreeMap<String, Reported>;

/// The counts. They outlive the enforcer, not the node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) rulesets: Counts,
    pub(super) policies: Counts,
}

impl Tally {
    /// What an earlier enforcer had counted.
    pub(super) fn restore(dir: &Path) -> Self {
        let counts = fs::read_to_string(dir.join(VIOLATIONS)).ok().and_then(|text| serde_json::from_str(&text).ok());
        let (rulesets, policies) = counts.unwrap_or_default();
        Self { rulesets, policies }
    }

    /// For the next one.
    pub(super) fn save(&self, writer: &Writer) -> serde_json::Result<()> {
        writer.replace(VIOLATIONS, serde_json::to_string(&(&self.rulesets, &self.policies))?);
        Ok(())
    }

    /// That is in force from now on: what is new begins at 0.
    pub(super) fn in_force(&mut self, enforced: &Enforced, now: Timestamp) {
        let named = |policy: &Policy| (!policy.name.is_empty()).then(|| (policy.name.clone(), policy.generation));
        renew(&mut self.policies, enforced.policy().into_iter().filter_map(named), now);
        renew(&mut self.rulesets, enforced.rulesets().map(|ruleset| (ruleset.name.clone(), ruleset.generation)), now);
    }

    /// A violation of a rule that these rulesets hold.
    pub(super) fn count<'a>(&mut self, rulesets: impl Iterator<Item = &'a str>) {
        for ruleset in rulesets {
            if let Some(count) = self.rulesets.get_mut(ruleset) {
                count.violations += 1;
            }
        }
        for count in self.policies.values_mut() {
            count.violations += 1;
        }
    }
}

fn renew(counts: &mut Counts, in_force: impl Iterator<Item = (String, i64)>, now: Timestamp) {
    let mut before = std::mem::take(counts);
    counts.extend(in_force.map(|(name, generation)| {
        let same = before.remove(&name).filter(|count| count.generation == generation);
        let new = || Reported { generation, since: format!("{now:.0}"), ..Reported::default() };
        (name, same.unwrap_or_else(new))
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::Ruleset;

    fn enforced(generation: i64) -> Enforced {
        let rulesets: Vec<_> = ["a", "b"]
            .map(|name| Ruleset { name: name.to_owned(), generation, ..Ruleset::default() })
            .into_iter()
            .collect();
        let mut policy = Policy::everything(&rulesets);
        (policy.name, policy.generation) = ("main".to_owned(), 1);
        Enforced::new("", Some(policy), rulesets)
    }

    #[test]
    fn counts_begin_anew_with_another_version_and_outlive_the_enforcer() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut tally = Tally::restore(dir.path());
        tally.in_force(&enforced(1), at(0));
        tally.count(["a", "gone"].into_iter());
        tally.count(["a", "b"].into_iter());
        tally.save(&Writer::start(dir.path().to_owned()).unwrap()).unwrap();
        let mut restored = Tally::restore(dir.path());
        assert_eq!(restored, tally);
        restored.in_force(&enforced(1), at(5));
        assert_eq!(restored, tally, "the same version goes on");
        restored.in_force(&enforced(2), at(5));
        let a = &restored.rulesets["a"];
        assert_eq!((a.generation, a.violations, a.since.as_str()), (2, 0, "1970-01-01T00:00:05Z"));
        let main = &restored.policies["main"];
        assert_eq!((main.violations, main.since.as_str()), (2, "1970-01-01T00:00:00Z"), "each once");
    }
}
