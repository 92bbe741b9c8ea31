//! Reading maps and texts out of a tree, and reporting what is not as it should be.

use crate::diagnostic::Diagnostic;
use crate::nearest::nearest;
use crate::yaml::{Key, Node, Place, Value};

/// Problems of one file.
pub(crate) struct Report<'a> {
    pub file: &'a str,
    pub found: Vec<Diagnostic>,
}

impl Report<'_> {
    pub fn add(&mut self, place: Place, message: impl Into<String>) {
        let Place { line, column } = place;
        let (file, message) = (self.file.into(), message.into());
        self.found.push(Diagnostic { file, line, column, field: String::new(), message });
    }

    /// Reports a word that is not one of those allowed.
    pub fn unknown(&mut self, place: Place, what: &str, word: &str, allowed: &[&str]) {
        let hint = match nearest(word, allowed.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("use {}", list(allowed)),
        };
        self.add(place, format!("unknown {what} '{word}': {hint}"));
    }

    /// The text of a node.
    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => return Some(text),
            Value::Other(shown) => {
                self.add(node.place, format!("{what} must be a text: put {shown} in quotes"));
            }
            _ => self.add(node.place, format!("{what} must be a text, this is {}", node.kind())),
        }
        None
    }

    /// A port.
    pub fn port(&mut self, node: &Node, what: &str) -> Option<u16> {
        let port = node.number().filter(|port| *port != 0);
        if port.is_none() {
            self.add(node.place, format!("{what} is no port: use a number from 1 to 65535"));
        }
        port
    }

    /// The nodes of a list.
    pub fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        if let Value::List(nodes) = &node.value {
            return Some(nodes);
        }
        self.add(node.place, format!("{what} must be a list, this is {}", node.kind()));
        None
    }

    /// The entries of a map; keys that come twice are reported.
    pub fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [(Key, Node)]> {
        let Value::Map(entries) = &node.value else {
            self.add(node.place, format!("{what} must be a map, this is {}", node.kind()));
            return None;
        };
        for (i, (key, _)) in entries.iter().enumerate() {
            if entries[..i].iter().any(|(earlier, _)| earlier.text == key.text) {
                self.add(key.place, format!("'{}' is there twice in {what}", key.text));
            }
        }
        Some(entries)
    }

    /// The entries of a map that has these fields and no others.
    pub fn fields<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Fields<'n>> {
        let entries = self.map(node, what)?;
        for (key, _) in entries {
            if !known.contains(&key.text.as_str()) {
                self.unknown(key.place, &format!("field of {what}"), &key.text, known);
            }
        }
        Some(Fields { place: node.place, entries })
    }
}

/// The fields of a map.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'n> {
    /// Where the map begins.
    pub place: Place,
    entries: &'n [(Key, Node)],
}

impl<'n> Fields<'n> {
    /// A field's key and value; none if it is absent or empty.
    pub fn get(&self, name: &str) -> Option<(&'n Key, &'n Node)> {
        let entry = self.entries.iter().find(|(key, _)| key.text == name);
        entry.map(|(key, node)| (key, node)).filter(|(_, node)| !matches!(node.value, Value::Null))
    }

    /// The value of a field that must be there.
    pub fn need(&self, name: &str, what: &str, report: &mut Report<'_>) -> Option<&'n Node> {
        let node = self.get(name).map(|(_, node)| node);
        if node.is_none() {
            // An empty field is reported where it stands.
            let key = self.entries.iter().find(|(key, _)| key.text == name);
            let place = key.map_or(self.place, |(key, _)| key.place);
            report.add(place, format!("{what} needs '{name}'"));
        }
        node
    }
}

/// `a, b or c`.
pub(crate) fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => format!("'{word}'"),
        [most @ .., last] => {
            let most: Vec<_> = most.iter().map(|word| format!("'{word}'")).collect();
            format!("{} or '{last}'", most.join(", "))
        }
    }
}
