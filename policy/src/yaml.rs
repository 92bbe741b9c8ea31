//! YAML as a tree in which every node knows where it stands, so that a file can be judged whole.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

/// A place in a file: line and column in characters, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: u64,
    /// In characters, from 1.
    pub column: u64,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// Itself.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing.
    Null,
    /// A text.
    Text(String),
    /// A number, truth value and the like, as it is shown to people.
    Other(String),
    /// A list.
    List(Vec<Node>),
    /// Keys in their order; a key may come twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a map and its place.
#[derive(Clone, Debug)]
pub struct Key {
    /// Where it begins.
    pub place: Place,
    /// Itself.
    pub text: String,
}

/// Why a text can't be read as YAML.
#[derive(Clone, Debug)]
pub struct SyntaxError {
    /// Where the parser gave up.
    pub place: Place,
    /// Why.
    pub message: String,
}

impl Node {
    /// What the value is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "a text",
            Value::Other(_) => "a number or truth value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The number that it is.
    pub fn number<T: FromStr>(&self) -> Option<T> {
        match &self.value {
            Value::Other(text) => text.parse().ok(),
            _ => None,
        }
    }
}

/// The parser's budget is used up.
const TOO_MUCH: &str = "more than one file may hold (1,024 documents, 250,000 values): divide it";

/// The documents of a file. Empty documents are left out.
pub fn documents(text: &str) -> Result<Vec<Node>, SyntaxError> {
    // Duplicate keys are a finding among others, not the end of reading.
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    let nodes: Vec<Node> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let SyntaxError { place, message } = refusal(&error);
        let message = if message == TOO_MUCH { message } else { format!("not YAML: {message}") };
        SyntaxError { place, message }
    })?;
    Ok(nodes.into_iter().filter(|node| !matches!(node.value, Value::Null)).collect())
}

/// Why the parser refused a text, in one sentence that does not repeat the place.
pub(crate) fn refusal(error: &serde_saphyr::Error) -> SyntaxError {
    let place = error.location().map_or(Place { line: 1, column: 1 }, place);
    let message = error.without_snippet().to_string();
    let suffix = format!(" at line {}, column {}", place.line, place.column);
    let message = match message.strip_suffix(&suffix).unwrap_or(&message) {
        // Against files that are made to exhaust whoever reads them.
        breached if breached.starts_with("budget breached") => TOO_MUCH,
        message => message,
    };
    SyntaxError { place, message: message.to_owned() }
}

fn place(location: serde_saphyr::Location) -> Place {
    Place { line: location.line().max(1), column: location.column().max(1) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { place: place(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { place: place(spanned.referenced), text: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Other(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Other(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Other(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Other(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = access.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = access.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}
