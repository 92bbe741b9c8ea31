//! The line language: one conjunction of facets.
//!
//! A line names the operations it is about and, per facet, the values it asks for and the values it excludes.
//! Values of one facet are alternatives; facets are conjoined. `parse` reads the form that catalogue files use,
//! `vocabulary` holds its words and says which facet which operation has.

mod display;
mod parse;
mod pattern;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};

use ringfence_abi::{Class, Facet, NAME, Op, PATH_KEY, PATH_PREFIX, flag};

pub use pattern::{Network, NotANetwork, Pattern, address_bytes, network};
pub use vocabulary::{facet_key, flag_name, has_facet, has_flag, op_name};

/// Longest path that can be named, in bytes. Keys end in at least one zero byte: the kernel side cuts what is longer,
/// and what is cut must not look like what was named.
pub const LONGEST_PATH: usize = PATH_KEY - 1;
/// Longest name, argument token, or beginning of one, that can be named, in bytes.
pub const LONGEST_NAME: usize = NAME - 1;

/// What a line asks of one facet: one of `any` (unless that is empty), and none of `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test<T> {
    /// Satisfied by any of these; empty: by every value.
    pub any: Vec<T>,
    /// Not satisfied by any of these.
    pub none: Vec<T>,
}

impl<T> Default for Test<T> {
    fn default() -> Self {
        Self { any: Vec::new(), none: Vec::new() }
    }
}

impl<T> Test<T> {
    /// Whether the line cares about the facet at all.
    pub fn cares(&self) -> bool {
        !(self.any.is_empty() && self.none.is_empty())
    }

    /// Every value that is named.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.any.iter().chain(&self.none)
    }
}

/// Flags that a line wants set and unset: bits of [`ringfence_abi::flag`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagTest {
    /// All of these are set.
    pub required: u32,
    /// None of these is set.
    pub refused: u32,
}

/// One line of a rule. Compiled, it is one bit of the vectors of its class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Operations it is about; at least one, all of one class.
    pub ops: BTreeSet<Op>,
    /// Flags.
    pub flags: FlagTest,
    /// Paths, names and argument tokens: the facets before [`Facet::Destination`].
    pub texts: BTreeMap<Facet, Test<Pattern>>,
    /// Remote (bind, listen: local) addresses.
    pub destination: Test<Network>,
    /// Remote (bind, listen: local) ports.
    pub port: Test<u16>,
    /// The operation's own number.
    pub number: Test<u64>,
    /// Address families; empty: any.
    pub families: BTreeSet<u8>,
    /// Socket types; empty: any.
    pub socket_types: BTreeSet<u8>,
}

/// Why a line can never work, or could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LineError {
    #[error("no operation: 'on' names at least one")]
    NoOp,
    #[error("'{first}' and '{second}' are of different classes ({first_class:?}, {second_class:?}): write two lines")]
    MixedClasses { first: &'static str, first_class: Class, second: &'static str, second_class: Class },
    #[error("'{key}' cannot be asked of operation '{op}'{hint}")]
    NoFacet { key: &'static str, op: &'static str, hint: &'static str },
    #[error("flag '{flag}' is never set for operation '{op}'")]
    NoFlag { flag: &'static str, op: &'static str },
    #[error("'{value}' in '{key}' has {length} bytes; at most {limit} can be compared")]
    TooLong { key: &'static str, value: String, length: usize, limit: usize },
    #[error("'{value}' in '{key}' can never match: {reason}")]
    NeverMatches { key: &'static str, value: String, reason: &'static str },
    #[error("flag '{0}' is both required and refused")]
    Contradiction(&'static str),
    #[error("'{value}' is not {what}{}", nearest.as_ref().map(|n| format!(", did you mean '{n}'?")).unwrap_or_default())]
    UnknownWord { what: &'static str, value: String, nearest: Option<String> },
}

impl Line {
    /// The class of the line's operations; exec for a line without any, which [`Line::check`] refuses.
    pub fn class(&self) -> Class {
        self.ops.first().map_or(Class::Exec, |op| op.class())
    }

    /// What the line asks of a text facet.
    pub fn text(&self, facet: Facet) -> Option<&Test<Pattern>> {
        self.texts.get(&facet).filter(|test| test.cares())
    }

    /// Whether the line cares about a keyed facet.
    pub fn cares(&self, facet: Facet) -> bool {
        match facet {
            Facet::Destination => self.destination.cares(),
            Facet::Port => self.port.cares(),
            Facet::Number => self.number.cares(),
            _ => self.text(facet).is_some(),
        }
    }

    /// Refuses what could never match, or not be held by the kernel's tables.
    pub fn check(&self) -> Result<(), LineError> {
        let first = *self.ops.first().ok_or(LineError::NoOp)?;
        if let Some(&second) = self.ops.iter().find(|op| op.class() != first.class()) {
            return Err(LineError::MixedClasses {
                first: op_name(first),
                first_class: first.class(),
                second: op_name(second),
                second_class: second.class(),
            });
        }
        if let Some(flag) = flag_name(self.flags.required & self.flags.refused) {
            return Err(LineError::Contradiction(flag));
        }
        for facet in Facet::ALL.into_iter().filter(|&facet| self.cares(facet)) {
            self.check_facet(facet)?;
        }
        self.ops.iter().try_for_each(|op| self.check_bytes(*op))
    }

    /// Flags, family and type.
    fn check_bytes(&self, op: Op) -> Result<(), LineError> {
        let refuse = |key| Err(LineError::NoFacet { key, op: op_name(op), hint: "" });
        for (name, bit) in flag::NAMES {
            if self.flags.required & bit != 0 && !has_flag(op, bit) {
                return Err(LineError::NoFlag { flag: name, op: op_name(op) });
            }
        }
        if !self.families.is_empty() && op.class() != Class::Network {
            return refuse("family");
        }
        // A packet no longer tells which type of socket it came from.
        if !self.socket_types.is_empty() && (op.class() != Class::Network || op == Op::Packet) {
            return refuse("type");
        }
        Ok(())
    }

    fn check_facet(&self, facet: Facet) -> Result<(), LineError> {
        let (any_key, none_key) = facet_key(facet);
        if let Some(&op) = self.ops.iter().find(|&&op| !has_facet(op, facet)) {
            let hint = if op.class() == Class::Exec && matches!(facet, Facet::ExePath | Facet::ExeName) {
                ": the program started is its 'path' and 'name', the one that started it its 'parent'"
            } else {
                ""
            };
            let wanted = self.text(facet).is_some_and(|test| test.any.is_empty());
            return Err(LineError::NoFacet { key: if wanted { none_key } else { any_key }, op: op_name(op), hint });
        }
        let Some(test) = self.text(facet) else { return Ok(()) };
        let sided = [(any_key, &test.any, Facet::NoAncestorName), (none_key, &test.none, Facet::AncestorName)];
        for (key, patterns, other_side) in sided {
            if facet == other_side && !patterns.is_empty() {
                return Err(LineError::NoFacet {
                    key,
                    op: op_name(self.ops.first().copied().unwrap_or(Op::Exec)),
                    hint: "",
                });
            }
            for pattern in patterns {
                check_pattern(facet, key, pattern)?;
            }
        }
        if facet == Facet::Arg && !test.none.is_empty() {
            let hint = ": an argument can be asked for, not excluded";
            return Err(LineError::NoFacet { key: none_key, op: op_name(Op::Exec), hint });
        }
        Ok(())
    }
}

/// Whether a text facet is about paths (else it is about names or tokens).
pub(crate) fn is_path(facet: Facet) -> bool {
    matches!(facet, Facet::ObjectPath | Facet::ExePath | Facet::ParentPath)
}

fn check_pattern(facet: Facet, key: &'static str, pattern: &Pattern) -> Result<(), LineError> {
    let limit = match (is_path(facet), pattern) {
        (true, Pattern::Exact(_)) => LONGEST_PATH,
        (true, Pattern::Prefix(_)) => PATH_PREFIX,
        (false, _) => LONGEST_NAME,
    };
    let text = pattern.text();
    if text.len() > limit {
        return Err(LineError::TooLong { key, value: pattern.to_string(), length: text.len(), limit });
    }
    let never = |reason| Err(LineError::NeverMatches { key, value: pattern.to_string(), reason });
    if text.is_empty() {
        return never("it is empty; leave the key out to accept every value");
    }
    if text.contains('\0') {
        return never("it contains a zero byte");
    }
    if is_path(facet) {
        let whole = matches!(pattern, Pattern::Exact(_));
        if !text.starts_with('/') {
            return never("paths are absolute");
        }
        // The last component of a prefix is only the beginning of one.
        let complete = if whole { text } else { &text[..=text.rfind('/').unwrap_or(0)] };
        if complete.contains("//") || complete.split('/').any(|part| part == "." || part == "..") {
            return never("paths are compared normalised, without '.', '..' and '//'");
        }
        if whole && text.len() > 1 && text.ends_with('/') {
            return never("a path does not end in '/'; append '*' for what lies below");
        }
    } else if facet == Facet::Arg {
        if text.bytes().any(crate::observed::splits_arguments) {
            return never("arguments are split at white space, '=', ',' and quotes before they are compared");
        }
    } else if text.contains('/') {
        return never("a name is one path component");
    }
    Ok(())
}
