//! The rulesets that the suite's containers choose by their labels.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ringfence_policy::{Catalogue, Mitigation, RuleId};

/// Label by which a container asks for one rule; `all` asks for all of them.
pub const RULE: &str = "suite-rule";
/// Label by which a container asks for a mitigation.
pub const MITIGATION: &str = "suite-mitigation";

/// Value of [`RULE`] of containers that two rulesets govern: one logs, the other ends what is not excepted.
pub const EXCEPTED: &str = "excepted";

const WITH_EXCEPTIONS: &str = include_str!("rulesets/excepted.yaml");

/// Writes one ruleset per rule and mitigation, and one with all rules per mitigation.
pub fn write(directory: &Path, catalogue: &Catalogue) -> Result<()> {
    fs::create_dir_all(directory)?;
    let rules: Vec<RuleId> = catalogue.rules().map(|rule| rule.id).collect();
    for mitigation in [Mitigation::Log, Mitigation::Block, Mitigation::Isolate, Mitigation::Terminate] {
        let mut text = ruleset("all", &rules, mitigation);
        for rule in &rules {
            text += "---\n";
            text += &ruleset(&rule.to_string(), &[*rule], mitigation);
        }
        let path = directory.join(format!("{mitigation}.yaml"));
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    let path = directory.join("excepted.yaml");
    fs::write(&path, WITH_EXCEPTIONS).with_context(|| format!("write {}", path.display()))
}

/// A ruleset for the containers that ask for `label` and `mitigation`.
pub fn ruleset(label: &str, rules: &[RuleId], mitigation: Mitigation) -> String {
    let name = format!("{}-{mitigation}", label.to_lowercase());
    let mut text = format!(
        "apiVersion: ringfence.dev/v1alpha1
kind: RuntimeRuleset
metadata:
  name: {name}
spec:
  selector:
    matchLabels:
      {RULE}: {label}
      {MITIGATION}: {mitigation}
  rules:
"
    );
    for rule in rules {
        writeln!(text, "    - {{rule: {rule}, mitigation: {mitigation}}}").expect("a string can be written to");
    }
    text
}

#[cfg(test)]
mod tests {
    use ringfence_control::sources;

    use super::*;

    #[test]
    fn the_rulesets_are_valid() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), Catalogue::builtin()).unwrap();
        let sources = sources::read(directory.path()).unwrap();
        let rulesets = ringfence_policy::read(&sources, Catalogue::builtin()).unwrap();
        let of_exceptions = 2;
        assert_eq!(rulesets.len(), 4 * (1 + Catalogue::builtin().rules().count()) + of_exceptions);
    }
}
