//! Rules to facet tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringfence_abi::{
    BYTE_FACETS, ByteFacet, CLASSES, Class, Entry, FACETS, Facet, FacetDefault, LINES, NONE, Op, Vector,
};

use crate::keys::{self, TextTable};
use crate::line::{Line, LineError, Test};
use crate::rule::{Rule, RuleId};
use crate::ruleset::{ExceptionError, Exceptions};
use crate::tables::{BYTE_FACET_ALL, LineOf, Tables};
use crate::vector;

/// Why rules could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A class has more lines than a vector has bits.
    #[error(
        "class {class:?} is full: the rules have {lines} lines of it, {LINES} fit; the rule that did not is {rule}"
    )]
    Full {
        /// The class.
        class: Class,
        /// Its lines.
        lines: usize,
        /// The first rule that did not fit whole.
        rule: RuleId,
    },
    /// A line cannot work.
    #[error("{rule}, line {number}: {source}")]
    Line {
        /// The rule.
        rule: RuleId,
        /// Its line, from 1.
        number: usize,
        /// What is wrong.
        source: LineError,
    },
    /// What is excepted from a rule can't be.
    #[error("exceptions from {rule}: {source}")]
    Exceptions {
        /// The rule.
        rule: RuleId,
        /// What is wrong.
        source: ExceptionError,
    },
    /// Two rules have one id.
    #[error("{0} is there twice")]
    Twice(RuleId),
}

/// Compiles rules. Which pod enables which of them is not decided here but by [`Tables::ruleset_vectors`].
pub fn compile<'a>(rules: impl IntoIterator<Item = &'a Arc<Rule>>) -> Result<Tables, CompileError> {
    compile_with(rules.into_iter().map(|rule| (rule, Exceptions::none())))
}

/// The same, each rule once for each different set of exceptions from it.
pub fn compile_with<'a>(
    rules: impl IntoIterator<Item = (&'a Arc<Rule>, &'a Exceptions)>,
) -> Result<Tables, CompileError> {
    let mut by_id = BTreeMap::new();
    for (rule, exceptions) in rules {
        let excepted = if exceptions.is_empty() {
            Arc::clone(rule)
        } else {
            let applied = exceptions.apply(rule);
            Arc::new(applied.map_err(|source| CompileError::Exceptions { rule: rule.id, source })?)
        };
        if by_id.insert((rule.id, exceptions), excepted).is_some() {
            return Err(CompileError::Twice(rule.id));
        }
    }
    let lines = number_lines(by_id)?;
    let mut tables = Tables {
        byte_facets: vec![[NONE; 256]; CLASSES * BYTE_FACETS],
        defaults: [[FacetDefault::default(); FACETS]; CLASSES],
        paths: BTreeMap::new(),
        path_prefixes: BTreeMap::new(),
        names: BTreeMap::new(),
        name_prefixes: BTreeMap::new(),
        destinations: BTreeMap::new(),
        numbers: BTreeMap::new(),
        lines,
    };
    for class in Class::ALL {
        fill_class(&mut tables, class);
    }
    merge_shorter(&mut tables.path_prefixes);
    merge_shorter(&mut tables.name_prefixes);
    merge_shorter(&mut tables.destinations);
    Ok(tables)
}

fn number_lines(rules: BTreeMap<(RuleId, &Exceptions), Arc<Rule>>) -> Result<[Vec<LineOf>; CLASSES], CompileError> {
    let mut lines: [Vec<LineOf>; CLASSES] = Default::default();
    for ((_, exceptions), rule) in rules {
        let exceptions = Arc::new(exceptions.clone());
        for (index, line) in rule.lines.iter().enumerate() {
            line.check().map_err(|source| CompileError::Line { rule: rule.id, number: index + 1, source })?;
            lines[line.class() as usize].push(LineOf {
                rule: Arc::clone(&rule),
                index,
                exceptions: Arc::clone(&exceptions),
            });
        }
    }
    for class in Class::ALL {
        let lines = &lines[class as usize];
        if let Some(over) = lines.get(LINES) {
            return Err(CompileError::Full { class, lines: lines.len(), rule: over.rule.id });
        }
    }
    Ok(lines)
}

fn fill_class(tables: &mut Tables, class: Class) {
    // Owned, so that the tables can be written to.
    let lines: Vec<Line> = tables.lines(class).iter().map(|line| line.rule.lines[line.index].clone()).collect();
    if lines.is_empty() {
        return;
    }
    for facet in BYTE_FACET_ALL {
        let table = &mut tables.byte_facets[class as usize * BYTE_FACETS + facet as usize];
        for (value, vector) in (0..=u8::MAX).zip(table.iter_mut()) {
            let satisfied = lines.iter().enumerate().filter(|(_, line)| byte_satisfies(line, facet, value));
            *vector = vector::collect(satisfied.map(|(number, _)| number));
        }
    }
    let all = vector::collect(0..lines.len());
    for facet in Facet::ALL {
        let default = &mut tables.defaults[class as usize][facet as usize];
        default.default = all;
        for (number, line) in lines.iter().enumerate() {
            if line.cares(facet) {
                vector::insert(&mut default.care, number);
            }
            if asks(line, facet) {
                default.default = vector::without(&default.default, &vector::collect([number]));
            }
        }
    }
    for (number, line) in lines.iter().enumerate() {
        fill_line(tables, class, number, line);
    }
}

/// Whether one value of a byte facet satisfies a line.
fn byte_satisfies(line: &Line, facet: ByteFacet, value: u8) -> bool {
    let flags = |shift: u32| {
        let [required, refused] = [line.flags.required, line.flags.refused].map(|flags| (flags >> shift) & 0xff);
        let value = u32::from(value);
        value & required == required && value & refused == 0
    };
    let listed = |values: &BTreeSet<u8>| values.is_empty() || values.contains(&value);
    match facet {
        ByteFacet::Op => line.ops.iter().any(|op: &Op| *op as u8 == value),
        ByteFacet::Flags0 => flags(0),
        ByteFacet::Flags1 => flags(8),
        ByteFacet::Flags2 => flags(16),
        ByteFacet::Family => listed(&line.families),
        ByteFacet::SocketType => listed(&line.socket_types),
    }
}

/// Whether a line asks for values of a facet (so that an unlisted one does not satisfy it).
fn asks(line: &Line, facet: Facet) -> bool {
    match facet {
        Facet::Destination => !line.destination.any.is_empty(),
        Facet::Port => !line.port.any.is_empty(),
        Facet::Number => !line.number.any.is_empty(),
        _ => line.text(facet).is_some_and(|test| !test.any.is_empty()),
    }
}

fn fill_line(tables: &mut Tables, class: Class, number: usize, line: &Line) {
    for (&facet, test) in &line.texts {
        for (side, pattern) in sides(test) {
            let entry = match keys::text_table(class, facet, pattern) {
                TextTable::Path(key) => tables.paths.entry(key).or_default(),
                TextTable::PathPrefix(key) => tables.path_prefixes.entry(key).or_default(),
                TextTable::Name(key) => tables.names.entry(key).or_default(),
                TextTable::NamePrefix(key) => tables.name_prefixes.entry(key).or_default(),
            };
            vector::insert(side(entry), number);
        }
    }
    for (side, network) in sides(&line.destination) {
        let entry = tables.destinations.entry(keys::destination_key(class, network)).or_default();
        vector::insert(side(entry), number);
    }
    let ports = sides(&line.port).map(|(side, &port)| (side, Facet::Port, u64::from(port)));
    let numbers = sides(&line.number).map(|(side, &value)| (side, Facet::Number, value));
    for (side, facet, value) in ports.chain(numbers) {
        let entry = tables.numbers.entry(keys::number_key(class, facet, value)).or_default();
        vector::insert(side(entry), number);
    }
}

/// Where in an entry a line goes that names its value.
type Side = fn(&mut Entry) -> &mut Vector;

/// The values of a test, those asked for and those excluded.
fn sides<T>(test: &Test<T>) -> impl Iterator<Item = (Side, &T)> {
    let asked: Side = |entry| &mut entry.set;
    let excluded: Side = |entry| &mut entry.clear;
    test.any.iter().map(move |value| (asked, value)).chain(test.none.iter().map(move |value| (excluded, value)))
}

/// Adds to each prefix what the shorter prefixes of the same text say: an LPM look-up finds only the longest.
fn merge_shorter<K: keys::PrefixData>(prefixes: &mut BTreeMap<crate::tables::Prefix<K>, Entry>) {
    let lengths: BTreeSet<u32> = prefixes.keys().map(|key| key.bits).collect();
    // Keys are ordered by length, the shortest first: what a key finds is merged already.
    let keys: Vec<_> = prefixes.keys().copied().collect();
    for key in keys {
        let shorter =
            lengths.range(..key.bits).rev().find_map(|&bits| prefixes.get(&keys::shorten(key, bits)).copied());
        if let (Some(shorter), Some(entry)) = (shorter, prefixes.get_mut(&key)) {
            entry.set = vector::or(&entry.set, &shorter.set);
            entry.clear = vector::or(&entry.clear, &shorter.clear);
        }
    }
}
