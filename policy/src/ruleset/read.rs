//! Rulesets from YAML. Files are judged whole: every problem is reported, at its place.

use std::collections::BTreeMap;

use super::fields::{Fields, Report};
use super::{API_VERSION, KIND, RULESET_NAME, Ruleset};
use crate::catalogue::Catalogue;
use crate::diagnostic::Diagnostics;
use crate::mitigation::Mitigation;
use crate::rule::{RuleId, TACTICS};
use crate::selector::{self, Labels, OPERATORS, Operator, Requirement, Selector};
use crate::yaml::{self, Node, Place};

/// A file with rulesets: one per YAML document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// How diagnostics name it; its path.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// Fields of `metadata` that mean nothing here but are there when a ruleset comes from a cluster.
const METADATA: [&str; 13] = [
    "name",
    "labels",
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Reads the rulesets of all files. They are good together or not at all: names are unique over all of them.
pub fn read(sources: &[Source], catalogue: &Catalogue) -> Result<Vec<Ruleset>, Diagnostics> {
    let mut rulesets = Vec::new();
    let mut names: BTreeMap<String, (&str, Place)> = BTreeMap::new();
    let mut diagnostics = Vec::new();
    for source in sources {
        let mut report = Report { file: &source.name, found: Vec::new() };
        match yaml::documents(&source.text) {
            Ok(documents) => {
                for document in &documents {
                    let mut reader = Reader { catalogue, report: &mut report };
                    let Some((ruleset, name_place)) = reader.document(document) else { continue };
                    if let Some((file, Place { line, column })) = names.get(&ruleset.name) {
                        let message = format!("ruleset '{}' is there already: {file}:{line}:{column}", ruleset.name);
                        report.add(name_place, message);
                    } else {
                        names.insert(ruleset.name.clone(), (&source.name, name_place));
                        rulesets.push(ruleset);
                    }
                }
            }
            Err(error) => report.add(error.place, error.message),
        }
        report.found.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        diagnostics.append(&mut report.found);
    }
    if diagnostics.is_empty() { Ok(rulesets) } else { Err(Diagnostics(diagnostics)) }
}

struct Reader<'a, 'r> {
    catalogue: &'a Catalogue,
    report: &'a mut Report<'r>,
}

/// A rule or tactic that a ruleset has named, for finding duplicates.
struct Named<K> {
    key: K,
    place: Place,
    mitigation: Option<Mitigation>,
}

impl Reader<'_, '_> {
    /// The ruleset of a document and the place of its name. Only good if nothing was reported; it is returned all
    /// the same, as long as it has a name, so that duplicate names are found beside other problems.
    fn document(&mut self, node: &Node) -> Option<(Ruleset, Place)> {
        let fields = self.report.fields(node, "a ruleset", &["apiVersion", "kind", "metadata", "spec", "status"])?;
        for (field, right) in [("kind", KIND), ("apiVersion", API_VERSION)] {
            let Some(node) = fields.need(field, "a ruleset", self.report) else { continue };
            let text = self.report.text(node, field)?;
            if text != right {
                self.report.add(node.place, format!("{field} '{text}' is not known here: use '{right}'"));
                if field == "kind" {
                    // Whatever it is, its fields are others.
                    return None;
                }
            }
        }
        let metadata = fields.need("metadata", "a ruleset", self.report);
        let name = metadata.and_then(|node| self.name(node));
        let spec = fields.need("spec", "a ruleset", self.report);
        let spec = spec.and_then(|node| self.report.fields(node, "'spec'", &["description", "selector", "rules"]));
        let description = spec.and_then(|spec| spec.get("description"));
        let description = description.and_then(|(_, node)| self.report.text(node, "'description'"));
        let selector = spec.and_then(|spec| spec.get("selector")).map(|(_, node)| self.selector(node));
        let rules = spec.and_then(|spec| spec.need("rules", "'spec'", self.report)).map(|node| self.rules(node));
        let (name, place) = name?;
        let ruleset = Ruleset {
            name,
            description: description.unwrap_or_default().into(),
            selector: selector.unwrap_or_default(),
            rules: rules.unwrap_or_default(),
        };
        Some((ruleset, place))
    }

    fn name(&mut self, metadata: &Node) -> Option<(String, Place)> {
        let fields = self.report.fields(metadata, "'metadata'", &METADATA)?;
        let node = fields.need("name", "'metadata'", self.report)?;
        let name = self.report.text(node, "'name'")?;
        if let Some(fault) = selector::dns_fault(name, RULESET_NAME) {
            let message = format!("'{name}' cannot be a ruleset's name of at most {RULESET_NAME} characters: {fault}");
            self.report.add(node.place, message);
        }
        Some((name.into(), node.place))
    }

    fn selector(&mut self, node: &Node) -> Selector {
        let mut selector = Selector::default();
        let Some(fields) = self.report.fields(node, "'selector'", &["matchLabels", "matchExpressions"]) else {
            return selector;
        };
        if let Some((_, node)) = fields.get("matchLabels") {
            selector.match_labels = self.match_labels(node);
        }
        if let Some((_, node)) = fields.get("matchExpressions") {
            let nodes = self.report.list(node, "'matchExpressions'").unwrap_or_default();
            selector.match_expressions = nodes.iter().filter_map(|node| self.requirement(node)).collect();
        }
        selector
    }

    fn match_labels(&mut self, node: &Node) -> Labels {
        let mut labels = Labels::new();
        for (key, node) in self.report.map(node, "'matchLabels'").unwrap_or_default() {
            self.label_key(&key.text, key.place);
            if let Some(value) = self.label_value(node) {
                labels.insert(key.text.clone(), value);
            }
        }
        labels
    }

    fn label_key(&mut self, key: &str, place: Place) {
        if let Some(fault) = selector::key_fault(key) {
            self.report.add(place, format!("'{key}' is not a label key: {fault}"));
        }
    }

    fn label_value(&mut self, node: &Node) -> Option<String> {
        let value = self.report.text(node, "a label's value")?;
        if let Some(fault) = selector::value_fault(value) {
            self.report.add(node.place, format!("'{value}' is not a label value: {fault}"));
        }
        Some(value.into())
    }

    fn requirement(&mut self, node: &Node) -> Option<Requirement> {
        let what = "an expression";
        let fields = self.report.fields(node, what, &["key", "operator", "values"])?;
        let key = fields.need("key", what, self.report).and_then(|node| {
            let key = self.report.text(node, "'key'")?;
            self.label_key(key, node.place);
            Some(key.to_owned())
        });
        let operator = fields.need("operator", what, self.report);
        let operator = operator.and_then(|node| Some((self.report.text(node, "'operator'")?, node.place)));
        let given = fields.get("values");
        let values = given.and_then(|(_, node)| self.report.list(node, "'values'"));
        let values: Vec<_> = values.unwrap_or_default().iter().filter_map(|node| self.label_value(node)).collect();
        let (operator, place) = operator?;
        let operator = match operator {
            "In" | "NotIn" => {
                if given.is_none_or(|(_, node)| matches!(&node.value, yaml::Value::List(list) if list.is_empty())) {
                    self.report.add(place, format!("operator '{operator}' needs 'values'"));
                }
                if operator == "In" { Operator::In(values) } else { Operator::NotIn(values) }
            }
            "Exists" | "DoesNotExist" => {
                if let Some((key, _)) = given {
                    self.report.add(key.place, format!("operator '{operator}' takes no 'values'"));
                }
                if operator == "Exists" { Operator::Exists } else { Operator::DoesNotExist }
            }
            unknown => {
                self.report.unknown(place, "operator", unknown, &OPERATORS);
                return None;
            }
        };
        Some(Requirement { key: key?, operator })
    }

    fn rules(&mut self, node: &Node) -> BTreeMap<RuleId, Mitigation> {
        let (mut rules, mut tactics) = (Vec::new(), Vec::new());
        let nodes = self.report.list(node, "'rules'");
        if nodes.is_some_and(<[Node]>::is_empty) {
            self.report.add(node.place, "'rules' is empty: a ruleset needs at least one rule");
        }
        for node in nodes.unwrap_or_default() {
            self.rule(node, &mut rules, &mut tactics);
        }
        let mut mitigations = BTreeMap::new();
        for tactic in tactics {
            let of = self.catalogue.by_tactic(tactic.key);
            mitigations.extend(of.filter_map(|rule| Some((rule.id, tactic.mitigation?))));
        }
        // A rule that is named itself is more specific than its tactic.
        mitigations.extend(rules.into_iter().filter_map(|rule| Some((rule.key, rule.mitigation?))));
        mitigations
    }

    fn rule(&mut self, node: &Node, rules: &mut Vec<Named<RuleId>>, tactics: &mut Vec<Named<&'static str>>) {
        let what = "an entry of 'rules'";
        let Some(fields) = self.report.fields(node, what, &["rule", "tactic", "mitigation"]) else { return };
        let mitigation = self.mitigation(fields);
        match (fields.get("rule"), fields.get("tactic")) {
            (Some((_, node)), None) => {
                let Some(text) = self.report.text(node, "'rule'") else { return };
                let Some(rule) = self.catalogue.find(text) else {
                    let near = self.catalogue.nearest(text);
                    let hint = near.map_or_else(String::new, |near| format!(", did you mean '{near}'?"));
                    self.report.add(node.place, format!("unknown rule '{text}'{hint}"));
                    return;
                };
                self.add_once(rules, rule.id, node.place, mitigation, &format!("rule {}", rule.id), text);
            }
            (None, Some((_, node))) => {
                let Some(text) = self.report.text(node, "'tactic'") else { return };
                let Some(tactic) = self.tactic(text, node.place) else { return };
                self.add_once(tactics, tactic, node.place, mitigation, &format!("tactic '{tactic}'"), text);
            }
            (None, None) => self.report.add(fields.place, format!("{what} needs 'rule' or 'tactic'")),
            (Some(_), Some((key, _))) => {
                self.report.add(key.place, format!("{what} has 'rule' or 'tactic', not both"));
            }
        }
    }

    fn mitigation(&mut self, fields: Fields<'_>) -> Option<Mitigation> {
        let node = fields.need("mitigation", "an entry of 'rules'", self.report)?;
        let text = self.report.text(node, "'mitigation'")?;
        let mitigation = text.parse().ok();
        if mitigation.is_none() {
            self.report.unknown(node.place, "mitigation", text, &Mitigation::ALL.map(Mitigation::name));
        }
        mitigation
    }

    fn tactic(&mut self, text: &str, place: Place) -> Option<&'static str> {
        let Some(tactic) = TACTICS.into_iter().find(|tactic| *tactic == text) else {
            if text == "Defense Evasion" {
                let message = "ATT&CK 19 has split 'Defense Evasion' into 'Stealth' and 'Defense Impairment'";
                self.report.add(place, message);
            } else {
                self.report.unknown(place, "tactic", text, &TACTICS);
            }
            return None;
        };
        if self.catalogue.by_tactic(tactic).next().is_none() {
            self.report.add(place, format!("no rule of the catalogue has the tactic '{tactic}'"));
        }
        Some(tactic)
    }

    fn add_once<K: PartialEq>(
        &mut self,
        named: &mut Vec<Named<K>>,
        key: K,
        place: Place,
        mitigation: Option<Mitigation>,
        what: &str,
        written: &str,
    ) {
        if let Some(first) = named.iter().find(|named| named.key == key) {
            let alias = if what.contains(written) { String::new() } else { format!(" (here as '{written}')") };
            let Place { line, column } = first.place;
            self.report.add(place, format!("{what} is there twice{alias}: first at {line}:{column}"));
        } else {
            named.push(Named { key, place, mitigation });
        }
    }
}
