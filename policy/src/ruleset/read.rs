//! Rulesets from YAML. Files are judged whole: every problem is reported, at its place.

use std::collections::BTreeMap;

use ringfence_api::{Mitigation, RULESET_NAME};

use super::exception::{self, ExceptionError, Exceptions, RuleException};
use super::{KIND, Ruleset, Wish};
use crate::catalogue::Catalogue;
use crate::diagnostic::Diagnostics;
use crate::document::{self, Expected, Source};
use crate::fields::{Fields, Report};
use crate::rule::{Rule, RuleId, TACTICS};
use crate::selector::{self, Labels, OPERATORS, Operator, Requirement, Selector};
use crate::yaml::{self, Node, Place};

const EXPECTED: Expected = Expected {
    kind: KIND,
    what: "a ruleset",
    name: RULESET_NAME,
    spec: &["description", "selector", "namespaceSelector", "rules"],
};

/// Reads the rulesets of all files. They are good together or not at all: names are unique over all of them.
pub fn read(sources: &[Source], catalogue: &Catalogue) -> Result<Vec<Ruleset>, Diagnostics> {
    let mut rulesets = Vec::new();
    let mut names: BTreeMap<String, (&str, Place)> = BTreeMap::new();
    let mut diagnostics = Vec::new();
    for source in sources {
        diagnostics.append(&mut document::each(source, |node, report| {
            let mut reader = Reader { catalogue, report };
            let Some((ruleset, place)) = reader.document(node) else { return };
            if let Some((file, Place { line, column })) = names.get(&ruleset.name) {
                let message = format!("ruleset '{}' is there already: {file}:{line}:{column}", ruleset.name);
                report.add(place, message);
            } else {
                names.insert(ruleset.name.clone(), (&source.name, place));
                rulesets.push(ruleset);
            }
        }));
    }
    if diagnostics.is_empty() { Ok(rulesets) } else { Err(Diagnostics(diagnostics)) }
}

/// What a tactic's entry wants of one of its rules: exceptions that its events can't have are for the others.
fn of_tactic(rule: &Rule, wish: &Wish) -> Wish {
    Wish { mitigation: wish.mitigation, exceptions: wish.exceptions.applicable(rule) }
}

struct Reader<'a, 'r> {
    catalogue: &'a Catalogue,
    report: &'a mut Report<'r>,
}

/// A rule or tactic that a ruleset has named, for finding duplicates.
struct Named<K> {
    key: K,
    place: Place,
    wish: Option<Wish>,
}

impl Reader<'_, '_> {
    /// The ruleset of a document and the place of its name. Only good if nothing was reported; it is returned all
    /// the same, as long as it has a name, so that duplicate names are found beside other problems.
    fn document(&mut self, node: &Node) -> Option<(Ruleset, Place)> {
        let object = document::object(node, &EXPECTED, self.report)?;
        let spec = object.spec;
        let description = spec.and_then(|spec| spec.get("description"));
        let description = description.and_then(|(_, node)| self.report.text(node, "'description'"));
        let selector = spec.and_then(|spec| spec.get("selector")).map(|(_, node)| self.selector(node, "'selector'"));
        let of_namespaces = spec.and_then(|spec| spec.get("namespaceSelector"));
        let of_namespaces = of_namespaces.map(|(_, node)| self.selector(node, "'namespaceSelector'"));
        let rules = spec.and_then(|spec| spec.need("rules", "'spec'", self.report)).map(|node| self.rules(node));
        let ruleset = Ruleset {
            name: object.name,
            generation: object.generation,
            description: description.unwrap_or_default().into(),
            selector: selector.unwrap_or_default(),
            namespace_selector: of_namespaces.unwrap_or_default(),
            rules: rules.unwrap_or_default(),
        };
        Some((ruleset, object.name_place))
    }

    fn selector(&mut self, node: &Node, what: &str) -> Selector {
        let mut selector = Selector::default();
        let Some(fields) = self.report.fields(node, what, &["matchLabels", "matchExpressions"]) else {
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

    fn rules(&mut self, node: &Node) -> BTreeMap<RuleId, Wish> {
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
            mitigations.extend(of.filter_map(|rule| Some((rule.id, of_tactic(rule, tactic.wish.as_ref()?)))));
        }
        // A rule that is named itself is more specific than its tactic.
        mitigations.extend(rules.into_iter().filter_map(|rule| Some((rule.key, rule.wish?))));
        mitigations
    }

    fn rule(&mut self, node: &Node, rules: &mut Vec<Named<RuleId>>, tactics: &mut Vec<Named<&'static str>>) {
        let what = "an entry of 'rules'";
        let Some(fields) = self.report.fields(node, what, &["rule", "mitigation", "exceptions"]) else { return };
        let mitigation = self.mitigation(fields);
        let exceptions = self.exceptions(fields);
        let wish = mitigation.map(|mitigation| Wish {
            mitigation,
            exceptions: Exceptions::new(exceptions.iter().map(|(exception, _)| exception.clone()).collect()),
        });
        let Some(node) = fields.need("rule", what, self.report) else { return };
        let Some(text) = self.report.text(node, "'rule'") else { return };
        if let Some(rule) = self.catalogue.find(text) {
            for (exception, place) in exceptions {
                if let Err(error) = Exceptions::new(vec![exception]).apply(rule) {
                    self.report.add(place, error.to_string());
                }
            }
            self.add_once(rules, rule.id, node.place, wish, &format!("rule {}", rule.id), text);
        } else if let Some(tactic) = TACTICS.into_iter().find(|tactic| *tactic == text) {
            if self.catalogue.by_tactic(tactic).next().is_none() {
                self.report.add(node.place, format!("no rule of the catalogue has the tactic '{tactic}'"));
            }
            for (exception, place) in exceptions {
                let one = Exceptions::new(vec![exception]);
                let errors: Option<Vec<_>> =
                    self.catalogue.by_tactic(tactic).map(|rule| one.apply(rule).err()).collect();
                // It is enough if it is for one of the tactic's rules. If it is for none, a wrong value says more.
                let worst = |error: &ExceptionError| matches!(error, ExceptionError::Never { .. });
                if let Some(error) = errors.and_then(|errors| errors.into_iter().min_by_key(worst)) {
                    self.report.add(place, error.to_string());
                }
            }
            self.add_once(tactics, tactic, node.place, wish, &format!("tactic '{tactic}'"), text);
        } else if text == "Defense Evasion" {
            let message = "ATT&CK 19 has split 'Defense Evasion' into 'Stealth' and 'Defense Impairment'";
            self.report.add(node.place, message);
        } else {
            let near = self.catalogue.nearest(text);
            let hint = near.map_or_else(String::new, |near| format!(", did you mean '{near}'?"));
            self.report.add(node.place, format!("unknown rule '{text}'{hint}"));
        }
    }

    /// Each with its place.
    fn exceptions(&mut self, fields: Fields<'_>) -> Vec<(RuleException, Place)> {
        let Some((_, node)) = fields.get("exceptions") else { return Vec::new() };
        let nodes = self.report.list(node, "'exceptions'").unwrap_or_default();
        nodes.iter().filter_map(|node| Some((self.exception(node)?, node.place))).collect()
    }

    fn exception(&mut self, node: &Node) -> Option<RuleException> {
        let fields = self.report.fields(node, "an exception", &exception::KEYS)?;
        let mut texts = |key: &str| -> Vec<String> {
            let Some((_, node)) = fields.get(key) else { return Vec::new() };
            let nodes = self.report.list(node, &format!("'{key}'")).unwrap_or_default();
            let text = |node| self.report.text(node, &format!("an entry of '{key}'")).map(str::to_owned);
            nodes.iter().filter_map(text).collect()
        };
        let [processes, ancestors, paths, destinations] =
            ["processes", "ancestors", "paths", "destinations"].map(&mut texts);
        let ports = fields.get("ports").and_then(|(_, node)| self.report.list(node, "'ports'")).unwrap_or_default();
        let ports = ports.iter().filter_map(|node| self.report.port(node, "an entry of 'ports'")).collect();
        let exception = RuleException { processes, ancestors, paths, destinations, ports };
        if exception == RuleException::default() {
            let keys = exception::KEYS.join(", ");
            self.report.add(node.place, format!("an exception says what it is for: use {keys}"));
            return None;
        }
        Some(exception)
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

    fn add_once<K: PartialEq>(
        &mut self,
        named: &mut Vec<Named<K>>,
        key: K,
        place: Place,
        wish: Option<Wish>,
        what: &str,
        written: &str,
    ) {
        if let Some(first) = named.iter().find(|named| named.key == key) {
            let alias = if what.contains(written) { String::new() } else { format!(" (here as '{written}')") };
            let Place { line, column } = first.place;
            self.report.add(place, format!("{what} is there twice{alias}: first at {line}:{column}"));
        } else {
            named.push(Named { key, place, wish });
        }
    }
}
