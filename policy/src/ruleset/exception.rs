//! What a ruleset excepts from a rule: benign causes that only its author knows.

use std::fmt;
use std::sync::LazyLock;

use ringfence_abi::{Class, Facet, Op};
use serde::{Deserialize, Serialize};

use crate::line::{Line, LineError, NotANetwork, Pattern, Test, has_facet};
use crate::rule::Rule;

/// Something that is no violation: all of its keys hold. Of one key, one value must.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleException {
    /// Paths of executables, or their beginnings and `*`: who does it. Of the start of a program: who starts it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<String>,
    /// Names of programs of the image, or their beginnings and `*`, one of which is above the process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<String>,
    /// Paths, or their beginnings and `*`: what it is done to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Networks, or addresses: where it goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<String>,
    /// Ports at the other end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

/// Names of the keys, as users write them, in the order of [`Key`].
pub(crate) const KEYS: [&str; 5] = ["processes", "ancestors", "paths", "destinations", "ports"];

/// All that a ruleset excepts from one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Exceptions(Vec<RuleException>);

/// Why exceptions can't be held against a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExceptionError {
    /// A value can't work.
    #[error(transparent)]
    Value(#[from] LineError),
    /// No line of the rule is about all of what an exception asks.
    #[error("it never applies: no event of {rule} has {keys}")]
    Never {
        /// The rule's id.
        rule: String,
        /// The keys.
        keys: String,
    },
    /// Not an address range.
    #[error(transparent)]
    Destination(#[from] NotANetwork),
}

impl Exceptions {
    /// These, in an order of its own: what says the same is equal.
    pub fn new(mut exceptions: Vec<RuleException>) -> Self {
        for exception in &mut exceptions {
            let RuleException { processes, ancestors, paths, destinations, ports } = exception;
            for texts in [processes, ancestors, paths, destinations] {
                texts.sort_unstable();
                texts.dedup();
            }
            ports.sort_unstable();
            ports.dedup();
        }
        exceptions.sort_unstable();
        exceptions.dedup();
        Self(exceptions)
    }

    /// None.
    pub fn none() -> &'static Self {
        static NONE: LazyLock<Exceptions> = LazyLock::new(Exceptions::default);
        &NONE
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rule with lines that what is excepted does not satisfy. Each exception with several keys makes several lines
    /// of one: what is not (a and b) is not a, or is not b.
    pub fn apply(&self, rule: &Rule) -> Result<Rule, ExceptionError> {
        let mut lines = rule.lines.clone();
        for exception in &self.0 {
            let mut applies = false;
            let mut narrowed = Vec::new();
            for line in lines {
                let (touched, rest) = split(&line, |op| exception.is_about(op));
                narrowed.extend(rest);
                let Some(line) = touched else { continue };
                applies = true;
                narrowed.extend(exception.narrow(&line)?);
            }
            if !applies {
                let keys: Vec<_> = exception.given().map(|key| KEYS[key as usize]).collect();
                return Err(ExceptionError::Never { rule: rule.id.to_string(), keys: keys.join(" and ") });
            }
            lines = narrowed;
        }
        for line in &lines {
            line.check()?;
        }
        Ok(Rule { lines, ..rule.clone() })
    }

    /// Those that events of the rule can satisfy.
    #[must_use]
    pub fn applicable(&self, rule: &Rule) -> Self {
        let applies = |exception: &&RuleException| Self(vec![(*exception).clone()]).apply(rule).is_ok();
        Self(self.0.iter().filter(applies).cloned().collect())
    }
}

impl fmt::Display for Exceptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("; "))
    }
}

impl fmt::Display for RuleException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.given().map(|key| {
            let values = match key {
                Key::Processes => self.processes.join(", "),
                Key::Ancestors => self.ancestors.join(", "),
                Key::Paths => self.paths.join(", "),
                Key::Destinations => self.destinations.join(", "),
                Key::Ports => self.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            };
            format!("{} {values}", KEYS[key as usize])
        });
        f.write_str(&said.collect::<Vec<_>>().join(" and "))
    }
}

/// A key of an exception.
#[derive(Clone, Copy)]
enum Key {
    Processes,
    Ancestors,
    Paths,
    Destinations,
    Ports,
}

impl Key {
    /// What of an event of the operation it looks at.
    fn facet(self, op: Op) -> Facet {
        match self {
            // Of the start of a program, the program is the object.
            Self::Processes if op.class() == Class::Exec => Facet::ParentPath,
            Self::Processes => Facet::ExePath,
            Self::Ancestors => Facet::NoAncestorName,
            Self::Paths => Facet::ObjectPath,
            Self::Destinations => Facet::Destination,
            Self::Ports => Facet::Port,
        }
    }
}

impl RuleException {
    /// The keys that it has.
    fn given(&self) -> impl Iterator<Item = Key> {
        let keys = [
            (Key::Processes, self.processes.is_empty()),
            (Key::Ancestors, self.ancestors.is_empty()),
            (Key::Paths, self.paths.is_empty()),
            (Key::Destinations, self.destinations.is_empty()),
            (Key::Ports, self.ports.is_empty()),
        ];
        keys.into_iter().filter(|(_, absent)| !absent).map(|(key, _)| key)
    }

    /// Whether events of the operation have all of what it asks.
    fn is_about(&self, op: Op) -> bool {
        self.given().all(|key| has_facet(op, key.facet(op)))
    }

    /// The lines that what is excepted does not satisfy, one for each key.
    fn narrow(&self, line: &Line) -> Result<Vec<Line>, ExceptionError> {
        let op = line.ops.first().copied().unwrap_or(Op::Exec);
        let without = |key: Key| {
            let mut line = line.clone();
            let mut texts = |values: &[String]| {
                let patterns = values.iter().map(|value| Pattern::from(value.as_str()));
                exclude(line.texts.entry(key.facet(op)).or_default(), patterns);
            };
            match key {
                Key::Processes => texts(&self.processes),
                Key::Ancestors => texts(&self.ancestors),
                Key::Paths => texts(&self.paths),
                Key::Destinations => {
                    let networks: Result<Vec<_>, _> = self.destinations.iter().map(|text| text.parse()).collect();
                    exclude(&mut line.destination, networks?);
                }
                Key::Ports => exclude(&mut line.port, self.ports.iter().copied()),
            }
            Ok(line)
        };
        self.given().map(without).collect()
    }
}

/// Adds what is excluded, each value once.
fn exclude<T: PartialEq>(test: &mut Test<T>, values: impl IntoIterator<Item = T>) {
    for value in values {
        if !test.none.contains(&value) {
            test.none.push(value);
        }
    }
}

/// A line for the operations that satisfy `about`, and one for the others.
fn split(line: &Line, about: impl Fn(Op) -> bool) -> (Option<Line>, Option<Line>) {
    let (touched, rest): (Vec<Op>, Vec<Op>) = line.ops.iter().partition(|op| about(**op));
    let of = |ops: Vec<Op>| (!ops.is_empty()).then(|| Line { ops: ops.into_iter().collect(), ..line.clone() });
    (of(touched), of(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    fn exceptions(yaml: &str) -> Exceptions {
        Exceptions::new(serde_json::from_str(yaml).unwrap())
    }

    fn applied(rule: &str, yaml: &str) -> Result<Vec<String>, String> {
        let rule = Catalogue::builtin().find(rule).unwrap();
        let applied = exceptions(yaml).apply(rule).map_err(|error| error.to_string())?;
        Ok(applied.lines.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_not_both_is_not_one_or_not_the_other() {
        let rule = Catalogue::builtin().find("RF-212").unwrap();
        let one = applied("RF-212", r#"[{"processes": ["/usr/bin/tool"]}]"#).unwrap();
        assert_eq!(one.len(), rule.lines.len());
        let both = applied("RF-212", r#"[{"processes": ["/usr/bin/tool"], "paths": ["/usr/local/bin/*"]}]"#).unwrap();
        assert_eq!(both.len(), 2 * rule.lines.len());
        assert!(both[0].contains("/usr/bin/tool") && !both[0].contains("not_path"), "{}", both[0]);
        assert!(both[1].contains("not_path") && !both[1].contains("/usr/bin/tool"), "{}", both[1]);
    }

    #[test]
    fn who_starts_a_program_is_its_parent() {
        let lines = applied("RF-801", r#"[{"processes": ["/usr/bin/pool"]}]"#).unwrap();
        assert!(lines.iter().all(|line| line.contains("not_parent")), "{lines:?}");
    }

    #[test]
    fn what_never_applies_is_an_error() {
        let error = applied("RF-801", r#"[{"destinations": ["10.0.0.0/8"], "ports": [1]}]"#).unwrap_err();
        assert_eq!(error, "it never applies: no event of RF-801 has destinations and ports");
        let error = applied("RF-901", r#"[{"paths": ["tmp"]}]"#).unwrap_err();
        assert!(error.contains("paths are absolute"), "{error}");
    }

    #[test]
    fn the_order_does_not_matter() {
        assert_eq!(
            exceptions(r#"[{"paths": ["/b", "/a", "/a"]}, {"ports": [2, 1]}]"#),
            exceptions(r#"[{"ports": [1, 2]}, {"paths": ["/a", "/b"]}]"#)
        );
    }
}
