//! Overrides files: each key of the file is looked up, and what it says is put where it belongs here.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, ValueEnum};
use ringfence_control::sources;
use ringfence_policy::{
    nearest,
    yaml::{self, Key, Node, Place, Value},
};
use serde_json::{Map, Value as Json, json};

use super::{
    keys::{self, Conversion, Fate, Found, Kind, TABLE},
    report::Report,
};
use crate::{
    failure::{Failure, Outcome},
    output,
};

/// `ringfence convert overrides`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ringfence convert overrides overrides.yaml --platform eks > ringfence.yaml")]
pub struct Overrides {
    /// The overrides file of the charts of Vision One or Cloud One Container Security
    file: PathBuf,
    /// What the cluster runs on, which the other chart found out by itself; it becomes the value `platform`
    #[arg(long, value_enum)]
    platform: Option<Platform>,
}

/// As in the chart's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Platform {
    Generic,
    Eks,
    Aks,
    Gke,
    GkeAutopilot,
    Openshift,
    K3s,
}

impl Overrides {
    /// Converts one file.
    pub fn run(self) -> Outcome {
        let source = sources::read_file(&self.file).map_err(Failure::input)?;
        let (values, report) = convert(&source.name, &source.text, self.platform);
        report.tell()?;
        output::yaml(&values)
    }
}

/// Values of our chart, and what became of the keys.
pub fn convert(file: &str, text: &str, platform: Option<Platform>) -> (Json, Report) {
    let documents = yaml::documents(text);
    let mut conversion = Work {
        report: Report::new(file),
        platform,
        values: Json::Object(Map::new()),
        rows: BTreeMap::new(),
        products: BTreeMap::new(),
    };
    match documents.as_deref() {
        Ok([document]) => conversion.read(document),
        Ok([]) => conversion.report.problem(START, "", "there is nothing in it"),
        Ok([_, second, ..]) => {
            conversion.report.problem(second.place, "", "a second document: Helm would not read it either");
        }
        Err(error) => conversion.report.problem(error.place, "", &error.message),
    }
    if let Some(name) = platform.and_then(|platform| platform.to_possible_value()) {
        set(&mut conversion.values, "platform", json!(name.get_name()));
    }
    (conversion.values, conversion.report)
}

const START: Place = Place { line: 1, column: 1 };

/// A key of the file that has a row, and what it says.
struct Given<'n> {
    path: String,
    place: Place,
    node: &'n Node,
}

struct Work<'n> {
    report: Report,
    platform: Option<Platform>,
    values: Json,
    /// By rows, as they are in the table: later ones win.
    rows: BTreeMap<usize, Given<'n>>,
    /// First words that stand for the product.
    products: BTreeMap<&'n str, Place>,
}

impl<'n> Work<'n> {
    fn read(&mut self, document: &'n Node) {
        let Value::Map(entries) = &document.value else {
            let message = format!("a map of values is expected, this is {}", document.kind());
            self.report.problem(document.place, "", message);
            return;
        };
        for (key, node) in entries {
            if matches!(key.text.as_str(), "visionOne" | "cloudOne") {
                self.products.insert(&key.text, key.place);
            }
            self.visit(&mut vec![&key.text], key, node);
        }
        if let Some(place) = self.products.get("cloudOne").filter(|_| self.products.len() > 1) {
            self.report.problem(*place, "cloudOne", "it is there beside visionOne: one chart knows only one of them");
        }
        let rows = std::mem::take(&mut self.rows);
        // Which row has written a value last.
        let mut writers: BTreeMap<&str, usize> = BTreeMap::new();
        for (row, given) in &rows {
            if let Fate::Becomes(kind, targets) = TABLE[*row].1 {
                self.put(kind, targets, given);
                writers.extend(targets.iter().map(|target| (*target, *row)));
            }
        }
        for (row, given) in &rows {
            match TABLE[*row].1 {
                Fate::Becomes(_, targets) => {
                    let (mine, others): (Vec<_>, Vec<_>) = targets.iter().partition(|target| writers[**target] == *row);
                    self.report.remark(given.place, &given.path, became(&given.path, &mine, &others));
                }
                Fate::By(conversion) => self.by(conversion, given),
                Fate::Left(reason) => self.left(given, reason),
            }
        }
    }

    fn visit(&mut self, path: &mut Vec<&'n str>, key: &'n Key, node: &'n Node) {
        let written = path.join(".");
        match keys::find(path) {
            Found::Row(row) if is_empty(node) && !matches!(TABLE[row].1, Fate::Left(_)) => {
                self.report.remark(key.place, &written, "left out: it is empty, our chart's default stays");
            }
            Found::Row(row) => {
                let given = Given { path: written, place: key.place, node };
                // Rows that many keys share say the same of each.
                match TABLE[row].1 {
                    Fate::Left(reason) => self.left(&given, reason),
                    _ if self.rows.contains_key(&row) => {
                        self.report.problem(key.place, &given.path, "it is there twice: keep one");
                    }
                    _ => drop(self.rows.insert(row, given)),
                }
            }
            Found::Above => match &node.value {
                Value::Map(entries) => {
                    for (key, node) in entries {
                        path.push(&key.text);
                        self.visit(path, key, node);
                        path.pop();
                    }
                }
                Value::Null => self.report.remark(key.place, &written, "left out: it is empty"),
                _ => {
                    let message = format!("a map of values is expected, this is {}", node.kind());
                    self.report.problem(key.place, &written, message);
                }
            },
            Found::Unknown => {
                let near = nearest(&key.text, keys::known_beside(path));
                let hint = near
                    .map_or_else(|| "take it out, if it is yours".to_owned(), |near| format!("did you mean '{near}'?"));
                self.report.problem(key.place, &written, format!("neither chart knows this key; {hint}"));
            }
        }
    }

    fn left(&mut self, given: &Given<'_>, reason: &str) {
        self.report.remark(given.place, &given.path, format!("left out: {reason}"));
    }

    fn wrong(&mut self, given: &Given<'_>, expected: &str) {
        let message = format!("{expected} is expected, this is {}", shown(given.node));
        self.report.problem(given.node.place, &given.path, message);
    }

    fn put(&mut self, kind: Kind, targets: &[&str], given: &Given<'_>) {
        let value = json_of(given.node);
        let (right, expected) = match kind {
            Kind::Bool => (value.is_boolean(), "true or false".to_owned()),
            Kind::Number => (value.is_u64(), "a number".to_owned()),
            Kind::Text => (value.is_string(), "a text".to_owned()),
            Kind::List => (value.is_array(), "a list".to_owned()),
            Kind::Map => (value.is_object(), "a map".to_owned()),
            Kind::OneOf(words) => (words.iter().any(|word| value == *word), words.join(" or ")),
        };
        if !right {
            self.wrong(given, &expected);
            return;
        }
        for target in targets {
            set(&mut self.values, target, value.clone());
        }
    }

    fn by(&mut self, conversion: Conversion, given: &Given<'_>) {
        let target = conversion.target();
        match conversion {
            Conversion::Namespaces => {
                let Some(names) = texts(given.node) else { return self.wrong(given, "a list of names") };
                self.append(target, names.into_iter().map(Json::from));
                self.remark(given, "now policy.excludedNamespaces, which counts when the first policy is made");
            }
            Conversion::Prefixes if self.platform == Some(Platform::Openshift) => {
                let Some(prefixes) = texts(given.node) else { return self.wrong(given, "a list of names") };
                self.append(target, prefixes.into_iter().map(|prefix| Json::from(format!("{prefix}*"))));
                self.remark(given, "now in policy.excludedNamespaces, each with a '*'");
            }
            Conversion::Prefixes => self.left(given, "it counts on OpenShift alone; if this is: --platform openshift"),
            Conversion::Selector => self.selector(given),
            Conversion::Mitigation => match json_of(given.node) {
                Json::Bool(true) => self.left(
                    given,
                    "the first policy is a dry run all the same; policy.maxMitigation: terminate makes it act",
                ),
                Json::Bool(false) => {
                    set(&mut self.values, target, json!("log"));
                    self.remark(given, "now policy.maxMitigation: log");
                }
                _ => self.wrong(given, "true or false"),
            },
            Conversion::PullSecret => {
                let Value::Text(name) = &given.node.value else { return self.wrong(given, "the name of a Secret") };
                self.append(target, [json!({"name": name})]);
                self.remark(given, "now image.pullSecrets");
            }
            Conversion::LogLevel(variable, _) => match &given.node.value {
                Value::Text(level) if ["debug", "info", "error"].contains(&level.as_str()) => {
                    self.append(target, [json!({"name": variable, "value": level})]);
                    self.remark(given, &format!("now {variable} in {target}"));
                }
                _ => self.wrong(given, "debug, info or error"),
            },
            Conversion::Socket(kind) => {
                let Value::Text(socket) = &given.node.value else { return self.wrong(given, "a path") };
                if get(&self.values, target).is_some() {
                    return self.left(given, "one runtime is watched, and another socket is there already");
                }
                set(&mut self.values, target, json!({"kind": kind, "socket": socket}));
                self.remark(given, &format!("now runtimeSecurity.runtime.socket, with kind {kind}"));
            }
            Conversion::Webhook => match json_of(given.node) {
                Json::Bool(true) => self.left(given, "the webhook is always there"),
                Json::Bool(false) => {
                    self.left(given, "the webhook is always there; without it pods are enforced, but not labelled");
                }
                _ => self.wrong(given, "true or false"),
            },
        }
    }

    fn remark(&mut self, given: &Given<'_>, message: &str) {
        self.report.remark(given.place, &given.path, message);
    }

    /// Of a selector, what names namespaces has an equivalent.
    fn selector(&mut self, given: &Given<'_>) {
        let selector = json_of(given.node);
        let Json::Object(parts) = &selector else { return self.wrong(given, "a label selector") };
        for (part, conditions) in parts {
            match (part.as_str(), conditions) {
                ("matchExpressions", Json::Array(conditions)) => {
                    for condition in conditions {
                        self.condition(given, condition);
                    }
                }
                ("matchLabels", Json::Object(labels)) => {
                    for label in labels.keys() {
                        self.left(given, &format!("webhooks are asked about all namespaces, not those with '{label}'"));
                    }
                }
                _ => self.wrong(given, "a label selector"),
            }
        }
    }

    fn condition(&mut self, given: &Given<'_>, condition: &Json) {
        let (Some(key), Some(operator)) = (condition["key"].as_str(), condition["operator"].as_str()) else {
            return self.wrong(given, "a label selector");
        };
        let names: Vec<Json> = condition["values"].as_array().cloned().unwrap_or_default();
        if key == "kubernetes.io/metadata.name" && operator == "NotIn" {
            let target = Conversion::Selector.target();
            self.append(target, names);
            self.remark(given, &format!("the names that are not in it: now {target}"));
        } else {
            let reason =
                format!("the condition on '{key}': namespaces are left out by name, in webhook.skipNamespaces");
            self.left(given, &reason);
        }
    }

    /// Adds to a list what is not in it.
    fn append(&mut self, target: &str, more: impl IntoIterator<Item = Json>) {
        let mut list = get(&self.values, target).and_then(Json::as_array).cloned().unwrap_or_default();
        for value in more {
            if !list.contains(&value) {
                list.push(value);
            }
        }
        set(&mut self.values, target, Json::Array(list));
    }
}

fn became(path: &str, mine: &[&&str], others: &[&&str]) -> String {
    let joined = |targets: &[&&str]| targets.iter().map(|target| **target).collect::<Vec<_>>().join(" and ");
    match (mine, others) {
        ([], others) => format!("left out: {} comes from more specific keys", joined(others)),
        ([same], []) if **same == path => "kept".to_owned(),
        (mine, []) => format!("now {}", joined(mine)),
        (mine, others) => format!("now {}; {} comes from a more specific key", joined(mine), joined(others)),
    }
}

/// Whether it says nothing.
fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Text(text) => text.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Other(_) => false,
    }
}

/// A list of texts.
fn texts(node: &Node) -> Option<Vec<&str>> {
    let Value::List(list) = &node.value else { return None };
    list.iter().map(|node| if let Value::Text(text) = &node.value { Some(text.as_str()) } else { None }).collect()
}

fn shown(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => format!("'{text}'"),
        Value::Other(other) => other.clone(),
        _ => node.kind().to_owned(),
    }
}

fn json_of(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Text(text) => Json::from(text.as_str()),
        // Numbers and truth values are the same in JSON.
        Value::Other(other) => serde_json::from_str(other).unwrap_or_else(|_| Json::from(other.as_str())),
        Value::List(list) => list.iter().map(json_of).collect(),
        Value::Map(map) => Json::Object(map.iter().map(|(key, node)| (key.text.clone(), json_of(node))).collect()),
    }
}

fn get<'v>(values: &'v Json, path: &str) -> Option<&'v Json> {
    path.split('.').try_fold(values, |value, part| value.get(part))
}

fn set(values: &mut Json, path: &str, value: Json) {
    let mut at = values;
    for part in path.split('.') {
        if !at.is_object() {
            *at = Json::Object(Map::new());
        }
        at = &mut at[part];
    }
    *at = value;
}
