//! What rulesets and policies have in common as documents: files of YAML (or JSON, which is YAML), judged whole.

use ringfence_api::API_VERSION;

use crate::diagnostic::Diagnostic;
use crate::fields::{Fields, Report};
use crate::selector;
use crate::yaml::{self, Node, Place, Value};

/// A file with documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// How diagnostics name it; its path.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// What kind of object is expected.
pub(crate) struct Expected {
    /// As `kind` has it.
    pub kind: &'static str,
    /// For messages: `a ruleset`.
    pub what: &'static str,
    /// Longest name, in bytes.
    pub name: usize,
    /// Fields of `spec`.
    pub spec: &'static [&'static str],
}

/// An object but for its `spec`'s meaning.
pub(crate) struct Object<'n> {
    pub name: String,
    pub name_place: Place,
    /// 0: not from an API server.
    pub generation: i64,
    /// Absent if it could not be read at all, which is reported.
    pub spec: Option<Fields<'n>>,
}

/// Fields of `metadata` that mean nothing here but are there when an object comes from a cluster.
const METADATA: [&str; 14] = [
    "name",
    "namespace",
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

/// Calls `read` for each document of the file; the problems that it reports come back by place, with their fields.
pub(crate) fn each(source: &Source, mut read: impl FnMut(&Node, &mut Report<'_>)) -> Vec<Diagnostic> {
    let mut report = Report { file: &source.name, found: Vec::new() };
    match yaml::documents(&source.text) {
        Ok(documents) => {
            for document in &documents {
                let before = report.found.len();
                read(document, &mut report);
                for diagnostic in &mut report.found[before..] {
                    let place = Place { line: diagnostic.line, column: diagnostic.column };
                    diagnostic.field = field_at(document, place).unwrap_or_default();
                }
            }
        }
        Err(error) => report.add(error.place, error.message),
    }
    report.found.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    report.found
}

/// The object of a document. None: it has no name or is something else altogether, which is reported.
pub(crate) fn object<'n>(node: &'n Node, expected: &Expected, report: &mut Report<'_>) -> Option<Object<'n>> {
    let what = expected.what;
    let fields = report.fields(node, what, &["apiVersion", "kind", "metadata", "spec", "status"])?;
    for (field, right) in [("kind", expected.kind), ("apiVersion", API_VERSION)] {
        let Some(node) = fields.need(field, what, report) else { continue };
        let text = report.text(node, field)?;
        if text != right {
            report.add(node.place, format!("{field} '{text}' is not known here: use '{right}'"));
            if field == "kind" {
                // Whatever it is, its fields are others.
                return None;
            }
        }
    }
    let metadata = fields.need("metadata", what, report);
    let metadata = metadata.and_then(|node| report.fields(node, "'metadata'", &METADATA));
    let name = metadata.and_then(|fields| name(fields, expected, report));
    let spec = fields.need("spec", what, report);
    let spec = spec.and_then(|node| report.fields(node, "'spec'", expected.spec));
    let (name, name_place) = name?;
    let generation = metadata.and_then(|fields| fields.get("generation"));
    let generation = generation.and_then(|(_, node)| node.number());
    Some(Object { name, name_place, generation: generation.unwrap_or_default(), spec })
}

fn name(metadata: Fields<'_>, expected: &Expected, report: &mut Report<'_>) -> Option<(String, Place)> {
    let node = metadata.need("name", "'metadata'", report)?;
    let name = report.text(node, "'name'")?;
    if let Some(fault) = selector::dns_fault(name, expected.name) {
        let (what, limit) = (expected.what, expected.name);
        report.add(node.place, format!("'{name}' cannot be {what}'s name of at most {limit} characters: {fault}"));
    }
    Some((name.into(), node.place))
}

/// The field that stands at a place, as Kubernetes writes it. The document itself has none.
fn field_at(node: &Node, place: Place) -> Option<String> {
    // The innermost of those that begin there: a list and its first entry may share a place.
    match &node.value {
        Value::Map(entries) => entries.iter().find_map(|(key, value)| {
            if key.place == place {
                return Some(member(&key.text));
            }
            let inner = field_at(value, place)?;
            let dot = if inner.is_empty() || inner.starts_with('[') { "" } else { "." };
            Some(format!("{}{dot}{inner}", member(&key.text)))
        }),
        Value::List(nodes) => nodes.iter().enumerate().find_map(|(i, value)| {
            let inner = field_at(value, place)?;
            let dot = if inner.is_empty() || inner.starts_with('[') { "" } else { "." };
            Some(format!("[{i}]{dot}{inner}"))
        }),
        _ => None,
    }
    .or_else(|| (node.place == place).then(String::new))
}

/// A key as a part of a field's path: label keys have dots of their own.
fn member(key: &str) -> String {
    if key.contains(['.', '/']) { format!("[{key}]") } else { key.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_field() {
        let text =
            r#"{"spec": {"selector": {"matchLabels": {"a.b/c": "x"}}, "rules": [{"rule": "a"}, {"rule": "b"}]}}"#;
        let documents = yaml::documents(text).unwrap();
        let field = |word: &str| {
            let column = text.find(word).unwrap() as u64 + 1;
            field_at(&documents[0], Place { line: 1, column })
        };
        assert_eq!(field("\"x\"").unwrap(), "spec.selector.matchLabels[a.b/c]");
        assert_eq!(field("\"b\"").unwrap(), "spec.rules[1].rule");
        assert_eq!(field("{\"rule\": \"b\"").unwrap(), "spec.rules[1]");
        assert_eq!(field("{\"spec").unwrap(), "");
        assert_eq!(field_at(&documents[0], Place { line: 2, column: 1 }), None);
    }
}
