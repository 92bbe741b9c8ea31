//! Which rulesets govern a container, and why: the same words whether the enforcer or the CLI works it out.

use std::collections::BTreeMap;

use ringfence_policy::{
    Asked, Catalogue, Labels, Mitigation, Operator, Requirement, RuleId, Ruleset, Selector, Subject, resolve,
};
use serde::{Deserialize, Serialize};

use crate::Escaped;

/// The answer to "what governs a container with these labels, and why?".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The container, if one was asked about rather than labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Escaped>,
    /// The labels.
    pub labels: BTreeMap<Escaped, Escaped>,
    /// Every ruleset, those that govern it first.
    pub rulesets: Vec<GoverningRuleset>,
    /// What is done about each rule.
    pub rules: Vec<ResolvedRule>,
    /// SHA-256 of the resolved ruleset, in hexadecimal.
    pub hash: String,
}

/// A ruleset and why it does or does not govern the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoverningRuleset {
    /// Name of the ruleset.
    pub name: String,
    /// Whether it governs the container.
    pub governs: bool,
    /// The conditions of its selectors, each with whether the labels meet it.
    pub because: Vec<String>,
}

/// What is done about one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedRule {
    /// Id of the rule.
    pub id: RuleId,
    /// Name of the rule.
    pub name: String,
    /// The strictest mitigation that was asked for.
    pub mitigation: Mitigation,
    /// Who asked, the strictest first: names of rulesets with what each asked for.
    pub asked_by: Vec<(String, Mitigation)>,
    /// What those except who except something, by ruleset.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exceptions: BTreeMap<String, String>,
}

impl Explanation {
    /// Explains which of the rulesets govern what has these labels.
    pub fn new(container: Option<&str>, subject: Subject<'_>, rulesets: &[Ruleset], catalogue: &Catalogue) -> Self {
        let labels = subject.labels;
        let resolved = resolve(rulesets, subject);
        let mut explained: Vec<_> = rulesets.iter().map(|ruleset| explain(ruleset, subject)).collect();
        explained.sort_by(|a, b| b.governs.cmp(&a.governs).then_with(|| a.name.cmp(&b.name)));
        let rules = resolved.rules.iter().map(|(&id, decision)| ResolvedRule {
            id,
            name: catalogue.get(id).map(|rule| rule.name.to_string()).unwrap_or_default(),
            mitigation: decision.mitigation,
            asked_by: decision
                .asked_by
                .iter()
                .map(|Asked { ruleset, mitigation, .. }| (ruleset.to_string(), *mitigation))
                .collect(),
            exceptions: decision
                .asked_by
                .iter()
                .filter(|asked| !asked.exceptions.is_empty())
                .map(|asked| (asked.ruleset.to_string(), asked.exceptions.to_string()))
                .collect(),
        });
        Self {
            container: container.map(Into::into),
            labels: labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
            rulesets: explained,
            rules: rules.collect(),
            hash: resolved.hash().to_string(),
        }
    }
}

fn explain(ruleset: &Ruleset, subject: Subject<'_>) -> GoverningRuleset {
    let mut because = conditions(&ruleset.selector, subject.labels);
    let of_namespace = conditions(&ruleset.namespace_selector, subject.namespace_labels);
    because.extend(of_namespace.into_iter().map(|condition| format!("its namespace: {condition}")));
    if because.is_empty() {
        because.push("it has no selector: it governs every container".to_owned());
    }
    GoverningRuleset { name: ruleset.name.clone(), governs: ruleset.selects(subject), because }
}

/// A selector's conditions, each with whether the labels meet it.
fn conditions(selector: &Selector, labels: &Labels) -> Vec<String> {
    let met = |holds: bool| if holds { "met" } else { "NOT met" };
    let exact = selector.match_labels.iter().map(|(key, value)| {
        let found = labels.get(key);
        format!("{key} = {value}: {}, {}", met(found == Some(value)), found_value(found))
    });
    let expressions = selector.match_expressions.iter().map(|requirement| {
        let found = found_value(labels.get(&requirement.key));
        format!("{}: {}, {found}", condition(requirement), met(requirement.matches(labels)))
    });
    exact.chain(expressions).collect()
}

fn condition(Requirement { key, operator }: &Requirement) -> String {
    match operator {
        Operator::In(values) => format!("{key} in ({})", values.join(", ")),
        Operator::NotIn(values) => format!("{key} not in ({})", values.join(", ")),
        Operator::Exists => format!("{key} exists"),
        Operator::DoesNotExist => format!("{key} does not exist"),
    }
}

fn found_value(value: Option<&String>) -> String {
    match value {
        None => "the label is absent".to_owned(),
        // A container's labels are not checked by anybody: a runtime without Kubernetes takes any text.
        Some(value) => format!("the label is '{}'", Escaped::from(value.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(name: &str, selector: Selector, rules: &[(u16, Mitigation)]) -> Ruleset {
        let rules =
            rules.iter().map(|&(number, mitigation)| (RuleId::new(number).unwrap(), mitigation.into())).collect();
        Ruleset { name: name.to_owned(), selector, rules, ..Ruleset::default() }
    }

    #[test]
    fn says_who_asked_for_what_and_which_condition_failed() {
        let web = Selector { match_labels: Labels::from([("app".into(), "web".into())]), ..Selector::default() };
        let requirement = Requirement { key: "tier".into(), operator: Operator::In(vec!["db".into()]) };
        let database = Selector { match_expressions: vec![requirement], ..Selector::default() };
        let rulesets = [
            ruleset("database", database, &[(901, Mitigation::Terminate)]),
            ruleset("everywhere", Selector::default(), &[(901, Mitigation::Log), (501, Mitigation::Log)]),
            ruleset("web", web, &[(901, Mitigation::Isolate)]),
        ];
        let labels = Labels::from([("app".into(), "web".into()), ("tier".into(), "front\n".into())]);

        let explanation = Explanation::new(None, Subject::without_namespace(&labels), &rulesets, Catalogue::builtin());

        let names: Vec<_> = explanation.rulesets.iter().map(|ruleset| (&*ruleset.name, ruleset.governs)).collect();
        assert_eq!(names, [("everywhere", true), ("web", true), ("database", false)]);
        assert_eq!(explanation.rulesets[1].because, ["app = web: met, the label is 'web'"]);
        assert_eq!(explanation.rulesets[2].because, ["tier in (db): NOT met, the label is 'front\\n'"]);
        let drift = explanation.rules.iter().find(|rule| rule.id.to_string() == "RF-901").unwrap();
        assert_eq!(drift.mitigation, Mitigation::Isolate);
        assert_eq!(
            drift.asked_by,
            [("web".to_owned(), Mitigation::Isolate), ("everywhere".to_owned(), Mitigation::Log)]
        );
        assert!(!drift.name.is_empty());
    }
}
