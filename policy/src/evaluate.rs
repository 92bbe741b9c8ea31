//! The reference: lines read as they are written, without any table.

use ringfence_abi::{Class, Event, Facet, Vector, done};

use crate::line::{Line, Network, Pattern, Test};
use crate::observed::{Observed, UnknownOp};
use crate::rule::RuleId;
use crate::tables::Tables;
use crate::vector;

/// Whether an event satisfies a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It does not.
    No,
    /// That depends on facets which are not known.
    Unknown,
    /// It does.
    Yes,
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl<T> Test<T> {
    /// Judges the values of a facet: one of them must be asked for, none excluded. There may be more values if the
    /// facet is not wholly known.
    fn verdict<V>(&self, values: &[V], known: bool, matches: impl Fn(&T, &V) -> bool) -> Verdict {
        let named = |named: &[T]| values.iter().any(|value| named.iter().any(|wanted| matches(wanted, value)));
        if named(&self.none) {
            return Verdict::No;
        }
        let found = self.any.is_empty() || named(&self.any);
        match (known, found) {
            (true, found) => found.into(),
            (false, true) if self.none.is_empty() => Verdict::Yes,
            (false, _) => Verdict::Unknown,
        }
    }
}

impl Line {
    /// Whether an event satisfies the line.
    pub fn verdict(&self, event: &Observed) -> Verdict {
        let listed = |values: &std::collections::BTreeSet<u8>, value| values.is_empty() || values.contains(value);
        let plain = self.ops.contains(&event.op)
            && event.flags & self.flags.required == self.flags.required
            && event.flags & self.flags.refused == 0
            && listed(&self.families, &event.family)
            && listed(&self.socket_types, &event.socket_type)
            && self.destination.verdict(&[event.address], true, Network::contains) == Verdict::Yes
            && self.port.verdict(&[event.port], true, |a, b| a == b) == Verdict::Yes
            && self.number.verdict(&[event.number], true, |a, b| a == b) == Verdict::Yes;
        if !plain {
            return Verdict::No;
        }
        let texts = self.texts.iter().map(|(facet, test)| match facet {
            Facet::ObjectName => object_name(test, event),
            _ => test
                .verdict(&event.texts(*facet), !event.unknown.contains(facet), |pattern, text| pattern.matches(text)),
        });
        texts.min().unwrap_or(Verdict::Yes)
    }
}

/// The file's own name passes the test, or another name is asked for.
fn object_name(test: &Test<Pattern>, event: &Observed) -> Verdict {
    let asked = |name: &Vec<u8>| test.any.iter().any(|pattern| pattern.matches(name));
    if event.other_names.iter().any(asked) {
        return Verdict::Yes;
    }
    let unknown = event.unknown.contains(&Facet::ObjectName);
    if unknown && event.path.is_empty() {
        return Verdict::Unknown;
    }
    match test.verdict(&event.texts(Facet::ObjectName), true, |pattern, text| pattern.matches(text)) {
        Verdict::No if unknown && !test.any.is_empty() => Verdict::Unknown,
        own => own,
    }
}

/// The kernel side and the lines do not agree about a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The record is of another version.
    #[error(transparent)]
    UnknownOp(#[from] UnknownOp),
    /// The kernel reported a line that the event does not satisfy.
    #[error("{rule}, line {line}, was reported but the event does not satisfy it")]
    Invented {
        /// The rule.
        rule: RuleId,
        /// Its line, from 1.
        line: usize,
    },
    /// The kernel did not report a line that the event satisfies.
    #[error("{rule}, line {line}, was not reported although the event satisfies it")]
    Missed {
        /// The rule.
        rule: RuleId,
        /// Its line, from 1.
        line: usize,
    },
    /// The kernel reported a line that does not exist.
    #[error("line {number} of class {class:?} was reported, which has {lines} lines")]
    NoSuchLine {
        /// The class.
        class: Class,
        /// The bit.
        number: usize,
        /// Lines of the class.
        lines: usize,
    },
}

/// Which of a candidate's lines its whole arguments satisfy. Everything else the kernel has found to hold.
pub fn confirm(tables: &Tables, event: &Event, args: &[u8]) -> Result<Vector, UnknownOp> {
    let observed = Observed::from_candidate(event, args)?;
    let lines = tables.lines(observed.class());
    let confirmed = vector::numbers(&event.header.lines).filter(|&number| {
        lines.get(number).is_some_and(|of| of.rule.lines[of.index].verdict(&observed) != Verdict::No)
    });
    Ok(vector::collect(confirmed))
}

/// Holds the kernel's answer against the lines. Of a candidate, that no line is one which the record rules out. The tables are those of the event's generation. `judged` are the lines
/// of the event's class that its hook judges: those that the pod enables, without those left to another hook (on the
/// `lsm` tier an exec is judged twice, before and after its arguments are known).
pub fn compare(tables: &Tables, judged: &Vector, event: &Event) -> Result<(), Disagreement> {
    let observed = Observed::from_event(event)?;
    let is_candidate = event.header.done & done::CANDIDATE != 0;
    let class = observed.class();
    let lines = tables.lines(class);
    if let Some(number) = vector::numbers(&event.header.lines).find(|&number| number >= lines.len()) {
        return Err(Disagreement::NoSuchLine { class, number, lines: lines.len() });
    }
    for (number, of) in lines.iter().enumerate() {
        let (rule, line) = (of.rule.id, of.index + 1);
        let verdict = of.rule.lines[of.index].verdict(&observed);
        match (vector::contains(&event.header.lines, number), verdict) {
            (true, Verdict::No) => return Err(Disagreement::Invented { rule, line }),
            (false, Verdict::Yes) if !is_candidate && vector::contains(judged, number) => {
                return Err(Disagreement::Missed { rule, line });
            }
            _ => {}
        }
    }
    Ok(())
}
