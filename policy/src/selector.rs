//! Label selectors, with the meaning that Kubernetes gives them.

use std::collections::BTreeMap;

use serde::Serialize;

/// Labels of a pod or container.
pub type Labels = BTreeMap<String, String>;

/// Which pods a ruleset governs: all conditions hold; none means every pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that must have exactly these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    /// Further conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What is asked of its value.
    #[serde(flatten)]
    pub operator: Operator,
}

/// What a [`Requirement`] asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "operator", content = "values")]
pub enum Operator {
    /// The label is there, with one of the values.
    In(Vec<String>),
    /// The label is absent or has another value.
    NotIn(Vec<String>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// The operators' words.
pub(crate) const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

impl Requirement {
    /// Whether the labels fulfil it.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl Selector {
    /// Whether it selects what has these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

/// Why a text is no label key: the syntax of Kubernetes.
pub(crate) fn key_fault(key: &str) -> Option<&'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|prefix| dns_fault(prefix, 253).is_some()) {
        return Some("the part before '/' must be a DNS name of lower-case letters, digits, '-' and '.'");
    }
    if name.is_empty() || name_fault(name) {
        return Some(
            "a name has 1 to 63 letters, digits, '-', '_' and '.', and begins and ends with a letter or digit",
        );
    }
    None
}

/// Why a text is no label value.
pub(crate) fn value_fault(value: &str) -> Option<&'static str> {
    (!value.is_empty() && name_fault(value)).then_some(
        "a value is empty or has up to 63 letters, digits, '-', '_' and '.', and begins and ends with a letter or digit",
    )
}

/// Why a text is no DNS subdomain (RFC 1123) of at most `limit` bytes.
pub(crate) fn dns_fault(text: &str, limit: usize) -> Option<&'static str> {
    let part = |part: &str| {
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        edge(part.bytes().next())
            && edge(part.bytes().last())
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    (text.len() > limit || !text.split('.').all(part))
        .then_some("use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit")
}

fn name_fault(name: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() > 63
        || !edge(name.bytes().next())
        || !edge(name.bytes().last())
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn nothing_asked_selects_everything() {
        assert!(Selector::default().matches(&Labels::new()));
    }

    #[test]
    fn all_conditions_hold() {
        let selector = Selector {
            match_labels: labels(&[("app", "web")]),
            match_expressions: vec![Requirement { key: "tier".into(), operator: Operator::Exists }],
        };
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", "")])));
        assert!(!selector.matches(&labels(&[("app", "web")])));
        assert!(!selector.matches(&labels(&[("app", "db"), ("tier", "")])));
    }

    #[test]
    fn operators_as_in_kubernetes() {
        let ask = |operator| Requirement { key: "a".into(), operator };
        let values = vec!["1".to_owned(), "2".to_owned()];
        let (one, three, none) = (labels(&[("a", "1")]), labels(&[("a", "3")]), labels(&[]));
        let table = [
            (Operator::In(values.clone()), [true, false, false]),
            (Operator::NotIn(values), [false, true, true]),
            (Operator::Exists, [true, true, false]),
            (Operator::DoesNotExist, [false, false, true]),
        ];
        for (operator, expected) in table {
            let requirement = ask(operator);
            assert_eq!([&one, &three, &none].map(|labels| requirement.matches(labels)), expected, "{requirement:?}");
        }
    }

    #[test]
    fn syntax_of_keys_and_values() {
        for key in ["app", "app.kubernetes.io/name", "A_b-c.d"] {
            assert_eq!(key_fault(key), None, "{key}");
        }
        for key in ["", "-a", "a b", "Foo/name", "x/", "a/b/c", &"x".repeat(64)] {
            assert!(key_fault(key).is_some(), "{key}");
        }
        assert_eq!(value_fault(""), None);
        assert!(value_fault("a b").is_some());
    }
}
