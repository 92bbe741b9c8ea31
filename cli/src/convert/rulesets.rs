//! Rulesets: the custom resources of the other product, or what its REST interface gives.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use clap::{Args, builder::PossibleValuesParser};
use ringfence_api::{API_VERSION, Mitigation};
use ringfence_control::sources;
use ringfence_policy::{
    Catalogue, Diagnostic, RULESET_NAME, RuleId, Source, nearest, read,
    yaml::{self, Key, Node, Place, Value},
};
use serde_json::{Map, Value as Json, json};

use super::report::Report;
use crate::{
    failure::{Failure, Outcome},
    output,
};

/// `ringfence convert rulesets`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        kubectl get runtimerulesets.container-security.trendmicro.com -o yaml > theirs.yaml\n  \
                        ringfence convert rulesets theirs.yaml > ours.yaml\n  \
                        kubectl apply --dry-run=server -f ours.yaml")]
pub struct Rulesets {
    /// YAML or JSON with rulesets: custom resources, one or many, or answers of the REST interface
    file: PathBuf,
    /// Name of the policy that names them all; the chart's value policy.active says which one is in force
    #[arg(long, value_name = "NAME", default_value = "default")]
    policy: String,
    /// No mitigation of that policy is stricter; log is a dry run
    #[arg(long, value_name = "MITIGATION", default_value = "log",
          value_parser = PossibleValuesParser::new(Mitigation::ALL.map(Mitigation::name)))]
    max_mitigation: String,
}

impl Rulesets {
    /// Converts one file.
    pub fn run(self) -> Outcome {
        let source = sources::read_file(&self.file).map_err(Failure::input)?;
        let (rulesets, report) = convert(&source);
        report.tell()?;
        let names: Vec<_> = rulesets.iter().map(|ruleset| ruleset["metadata"]["name"].clone()).collect();
        let policy = json!({
            "apiVersion": API_VERSION,
            "kind": "RuntimePolicy",
            "metadata": {"name": self.policy},
            "spec": {"maxMitigation": self.max_mitigation, "rulesets": names},
        });
        let mut text = String::new();
        for object in rulesets.iter().chain([&policy]) {
            let _ = write!(text, "---\n{}", output::to_yaml(object)?);
        }
        if self.max_mitigation == Mitigation::Log.name() {
            eprintln!("ringfence: the policy is a dry run (maxMitigation: log), whatever the rulesets say");
        }
        output::text(&text)
    }
}

const GROUP: &str = "container-security.trendmicro.com/";

/// Our rulesets, and what became of theirs.
pub fn convert(source: &Source) -> (Vec<Json>, Report) {
    let mut work = Work { report: Report::new(&source.name), rulesets: Vec::new(), names: BTreeMap::new() };
    match yaml::documents(&source.text) {
        Ok(documents) => documents.iter().for_each(|document| work.document(document)),
        Err(error) => work.report.problem(error.place, "", error.message),
    }
    work.check();
    let Work { mut report, rulesets, .. } = work;
    if rulesets.is_empty() && report.is_sound() {
        report.problem(Place { line: 1, column: 1 }, "", "there is no ruleset in it that could be converted");
    }
    (rulesets, report)
}

type Fields<'n> = BTreeMap<&'n str, (&'n Key, &'n Node)>;

struct Work {
    report: Report,
    rulesets: Vec<Json>,
    /// Of rulesets, with theirs.
    names: BTreeMap<String, String>,
}

impl Work {
    fn document(&mut self, node: &Node) {
        if let Value::List(list) = &node.value {
            return list.iter().for_each(|node| self.document(node));
        }
        let Some(fields) = self.fields(node, "") else { return };
        let kind = fields.get("kind").and_then(|(_, node)| text(node));
        match kind {
            Some("List") => match fields.get("items") {
                Some((_, items)) => self.document(items),
                None => self.report.problem(node.place, "items", "a List has them"),
            },
            Some("RuntimeRuleset") => self.resource(node, &fields),
            Some("ClusterPolicy") => self.report.remark(
                node.place,
                "kind",
                "ClusterPolicy: left out: its rules are about specs and images of pods, ours about what runs. \
                 Pod Security admission or a policy engine does that",
            ),
            Some(other) => {
                let message = format!("'{other}' is not converted: RuntimeRuleset is");
                self.report.problem(node.place, "kind", message);
            }
            None => match ["rulesets", "items"].into_iter().find_map(|key| fields.get(key)) {
                Some((_, list)) => self.document(list),
                None => self.ruleset(None, node, &fields, &["id", "created", "updated", "name", "description"]),
            },
        }
    }

    /// A custom resource.
    fn resource(&mut self, node: &Node, fields: &Fields<'_>) {
        self.only(fields, "", &["apiVersion", "kind", "metadata", "spec", "status"]);
        let version = fields.get("apiVersion").and_then(|(_, node)| text(node)).unwrap_or_default();
        if !version.starts_with(GROUP) {
            let message = format!("'{version}': {GROUP}v1alpha1 is converted");
            return self.report.problem(node.place, "apiVersion", message);
        }
        let metadata = fields.get("metadata").and_then(|(_, node)| self.fields(node, "metadata"));
        let name = metadata.as_ref().and_then(|metadata| metadata.get("name")).map(|(_, node)| *node);
        let spec = fields.get("spec").and_then(|(_, node)| self.fields(node, "spec"));
        let definition = spec.as_ref().and_then(|spec| {
            self.only(spec, "spec", &["definition"]);
            spec.get("definition").and_then(|(_, node)| self.fields(node, "spec.definition"))
        });
        match (name, definition) {
            (None, _) => self.report.problem(node.place, "metadata.name", "it is missing"),
            (_, None) => self.report.problem(node.place, "spec.definition", "it is missing"),
            (Some(name), Some(definition)) => self.ruleset(Some(name), node, &definition, &["name", "description"]),
        }
    }

    /// What both forms have in common; `more` are further fields that it may have.
    fn ruleset(&mut self, name: Option<&Node>, node: &Node, fields: &Fields<'_>, more: &[&str]) {
        self.only(fields, "", &[&["labels", "rules"], more].concat());
        let Some(name_node) = name.or_else(|| fields.get("name").map(|(_, node)| *node)) else {
            return self.report.problem(node.place, "name", "it is missing");
        };
        let Some(theirs) = text(name_node) else {
            return self.report.problem(name_node.place, "name", "a text is expected");
        };
        let ours = self.name(name_node.place, theirs);
        let mut spec = Map::new();
        if let Some(description) = fields.get("description").and_then(|(_, node)| text(node)).filter(|d| !d.is_empty())
        {
            spec.insert("description".to_owned(), json!(description));
        }
        let labels = fields.get("labels").map(|(_, node)| self.labels(node)).unwrap_or_default();
        if !labels.is_empty() {
            spec.insert("selector".to_owned(), json!({"matchLabels": labels}));
        }
        let rules = match fields.get("rules") {
            Some((_, node)) => self.rules(node),
            None => BTreeMap::new(),
        };
        if rules.is_empty() {
            return self.report.remark(node.place, theirs, "left out: no rule of it is left");
        }
        let rules =
            rules.into_iter().map(|(id, mitigation)| json!({"rule": id.to_string(), "mitigation": mitigation.name()}));
        spec.insert("rules".to_owned(), rules.collect());
        let became = if ours == theirs { "converted".to_owned() } else { format!("converted, as '{ours}'") };
        self.report.remark(node.place, theirs, became);
        self.rulesets.push(json!({
            "apiVersion": API_VERSION, "kind": "RuntimeRuleset", "metadata": {"name": ours}, "spec": spec,
        }));
    }

    /// Their names may hold capitals and underscores; ours are those of Kubernetes' objects.
    fn name(&mut self, place: Place, theirs: &str) -> String {
        let ours = theirs.to_lowercase().replace(['_', ' '], "-");
        let ours = ours.trim_matches(['-', '.']).to_owned();
        if ours.is_empty() || ours.len() > RULESET_NAME {
            let message = format!("'{theirs}': a name here has 1 to {RULESET_NAME} letters, digits, '-' and '.'");
            self.report.problem(place, "name", message);
        } else if let Some(other) = self.names.insert(ours.clone(), theirs.to_owned()) {
            let message = format!("'{theirs}' and '{other}' would both be called '{ours}': rename one");
            self.report.problem(place, "name", message);
        }
        ours
    }

    fn labels(&mut self, node: &Node) -> Map<String, Json> {
        let mut labels = Map::new();
        let Value::List(list) = &node.value else {
            if !matches!(node.value, Value::Null) {
                self.report.problem(node.place, "labels", "a list of {key, value} is expected");
            }
            return labels;
        };
        for node in list {
            let Some(fields) = self.fields(node, "labels") else { continue };
            self.only(&fields, "labels", &["key", "value"]);
            let part = |name| fields.get(name).and_then(|(_, node)| text(node));
            let (Some(key), Some(value)) = (part("key"), part("value")) else {
                self.report.problem(node.place, "labels", "each has a key and a value, both texts");
                continue;
            };
            if labels.insert(key.to_owned(), json!(value)).is_some_and(|other| other != value) {
                self.report.problem(node.place, "labels", format!("'{key}' is there twice, with different values"));
            }
        }
        labels
    }

    fn rules(&mut self, node: &Node) -> BTreeMap<RuleId, Mitigation> {
        let mut rules: BTreeMap<RuleId, (Mitigation, String)> = BTreeMap::new();
        let Value::List(list) = &node.value else {
            self.report.problem(node.place, "rules", "a list is expected");
            return BTreeMap::new();
        };
        for node in list {
            let Some((theirs, id, mitigation)) = self.rule(node) else { continue };
            match rules.get_mut(&id) {
                None => {
                    self.report.remark(node.place, &theirs, format!("now {id}, {mitigation}"));
                    rules.insert(id, (mitigation, theirs));
                }
                Some((strictest, other)) => {
                    *strictest = mitigation.max(*strictest);
                    let message = format!("now {id}, as {other} is; the stricter mitigation counts: {strictest}");
                    self.report.remark(node.place, &theirs, message);
                }
            }
        }
        rules.into_iter().map(|(id, (mitigation, _))| (id, mitigation)).collect()
    }

    /// Their id, ours, and the mitigation. None: there is none of ours, which is told.
    fn rule(&mut self, node: &Node) -> Option<(String, RuleId, Mitigation)> {
        let fields = self.fields(node, "rules")?;
        self.only(&fields, "rules", &["ruleID", "ruleId", "name", "enabled", "mitigation"]);
        let id = ["ruleID", "ruleId"].into_iter().find_map(|key| fields.get(key)).and_then(|(_, node)| text(node));
        let Some(theirs) = id else {
            self.report.problem(node.place, "rules", "each has a ruleID, such as TM-00000006");
            return None;
        };
        if let Some((_, enabled)) = fields.get("enabled") {
            match &enabled.value {
                Value::Other(word) if word == "true" => {}
                Value::Other(word) if word == "false" => {
                    self.report.remark(node.place, theirs, "left out: it is not enabled");
                    return None;
                }
                _ => {
                    self.report.problem(enabled.place, "rules.enabled", "true or false is expected");
                    return None;
                }
            }
        }
        let Some(rule) = Catalogue::builtin().find(theirs) else {
            self.without_equivalent(node.place, theirs);
            return None;
        };
        let Some((_, given)) = fields.get("mitigation") else {
            self.report.problem(node.place, theirs, "its mitigation is missing: log, isolate or terminate");
            return None;
        };
        let Some(Ok(mitigation)) = text(given).map(str::parse::<Mitigation>) else {
            self.report.problem(given.place, theirs, "its mitigation is to be log, isolate or terminate");
            return None;
        };
        Some((theirs.to_owned(), rule.id, mitigation))
    }

    fn without_equivalent(&mut self, place: Place, theirs: &str) {
        let number = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
        if theirs.strip_prefix("TM-").is_some_and(number) {
            self.report.remark(place, theirs, "left out: no managed rule here is its equivalent");
        } else if theirs.starts_with("CR-") {
            self.report.remark(place, theirs, "left out: Falco rules of one's own have no equivalent");
        } else {
            let near = Catalogue::builtin().nearest(theirs);
            let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
            self.report.problem(place, theirs, format!("no rule has this id{hint}"));
        }
    }

    /// What was made has to be right by our own measure.
    fn check(&mut self) {
        for ruleset in &self.rulesets {
            let name = ruleset["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let source = Source { name: name.clone(), text: ruleset.to_string() };
            let problems = read(&[source], Catalogue::builtin()).err().map(|problems| problems.0).unwrap_or_default();
            for Diagnostic { field, message, .. } in problems {
                self.report.problem(Place { line: 1, column: 1 }, &name, format!("{field}: {message}"));
            }
        }
    }

    fn fields<'n>(&mut self, node: &'n Node, what: &str) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.report.problem(node.place, what, format!("a map is expected, this is {}", node.kind()));
            return None;
        };
        Some(entries.iter().map(|(key, node)| (key.text.as_str(), (key, node))).collect())
    }

    /// Every other field is a problem: it would be lost.
    fn only(&mut self, fields: &Fields<'_>, what: &str, known: &[&str]) {
        for (name, (key, _)) in fields {
            if !known.contains(name) {
                let near = nearest(name, known.iter().copied());
                let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
                let of = if what.is_empty() { String::new() } else { format!("{what}.") };
                self.report.problem(key.place, &format!("{of}{name}"), format!("it is not known{hint}"));
            }
        }
    }
}

fn text(node: &Node) -> Option<&str> {
    if let Value::Text(text) = &node.value { Some(text) } else { None }
}
