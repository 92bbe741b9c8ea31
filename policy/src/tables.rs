//! Compiled rules: the contents of the kernel's maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringfence_abi::{
    BYTE_FACETS, ByteFacet, ByteFacetVectors, CLASSES, Class, DestinationKey, Entry, FacetDefaults, KEY_HEAD_BITS,
    KeyHead, NameKey, NameStarts, NumberKey, Op, PathKey, PathPrefixKey, Role, RulesetVectors, Vector,
};

use crate::resolve::ResolvedRuleset;
use crate::rule::{DecidedBy, Rule, RuleId};
use crate::ruleset::Exceptions;
use crate::vector;
use ringfence_api::Mitigation;

/// A key of an LPM map: what `bpf_lpm_trie_key` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix<K> {
    /// Bits of `data` that are compared, [`ringfence_abi::KEY_HEAD_BITS`] included.
    pub bits: u32,
    /// The key's data; zero beyond `bits`.
    pub data: K,
}

/// Keys that carry the generation of their tables.
pub trait Generational {
    /// The same key in another generation.
    #[must_use]
    fn with_generation(self, generation: u8) -> Self;
}

macro_rules! generational {
    ($($key:ty),*) => {
        $(impl Generational for $key {
            fn with_generation(self, generation: u8) -> Self {
                Self { head: KeyHead { generation, ..self.head }, ..self }
            }
        })*
    };
}

generational!(PathKey, PathPrefixKey, NameKey, DestinationKey, NumberKey);

impl<K: Generational> Generational for Prefix<K> {
    fn with_generation(self, generation: u8) -> Self {
        Self { data: self.data.with_generation(generation), ..self }
    }
}

/// One compiled line: which rule it is of, as a ruleset excepts from it.
#[derive(Clone, Debug)]
pub struct LineOf {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Index into the rule's lines.
    pub index: usize,
    /// What is excepted in these lines.
    pub exceptions: Arc<Exceptions>,
}

/// Everything that the kernel needs to match events against a set of rules. Keys are of generation 0:
/// stamp them with [`Generational::with_generation`].
#[derive(Clone, Debug)]
pub struct Tables {
    /// Lines per class; the position is the line's bit.
    pub(crate) lines: [Vec<LineOf>; CLASSES],
    pub(crate) byte_facets: Vec<ByteFacetVectors>,
    /// Default vectors and masks, by class and facet.
    pub defaults: [FacetDefaults; CLASSES],
    /// Exact paths.
    pub paths: BTreeMap<PathKey, Entry>,
    /// Path prefixes. Each entry holds what its shorter prefixes say as well: an LPM look-up answers with one.
    pub path_prefixes: BTreeMap<Prefix<PathPrefixKey>, Entry>,
    /// Exact names and argument tokens.
    pub names: BTreeMap<NameKey, Entry>,
    /// Prefixes of names and argument tokens, merged like `path_prefixes`.
    pub name_prefixes: BTreeMap<Prefix<NameKey>, Entry>,
    /// Address ranges, merged like `path_prefixes`.
    pub destinations: BTreeMap<Prefix<DestinationKey>, Entry>,
    /// Numbers and ports.
    pub numbers: BTreeMap<NumberKey, Entry>,
}

/// Every byte facet, in the order of the abi's numbers.
pub(crate) const BYTE_FACET_ALL: [ByteFacet; BYTE_FACETS] =
    [ByteFacet::Op, ByteFacet::Flags0, ByteFacet::Flags1, ByteFacet::Flags2, ByteFacet::Family, ByteFacet::SocketType];

impl Tables {
    /// The table of one byte facet: a vector for each value.
    pub fn byte_facet(&self, class: Class, facet: ByteFacet) -> &ByteFacetVectors {
        &self.byte_facets[class as usize * BYTE_FACETS + facet as usize]
    }

    /// All tables of byte facets.
    pub fn byte_facets(&self) -> impl Iterator<Item = (Class, ByteFacet, &ByteFacetVectors)> {
        Class::ALL
            .into_iter()
            .flat_map(|class| BYTE_FACET_ALL.map(|facet| (class, facet)))
            .map(|(class, facet)| (class, facet, self.byte_facet(class, facet)))
    }

    /// Which names the tables of a role list at all.
    pub fn name_starts(&self, class: Class, role: Role) -> NameStarts {
        let mut starts = [0; _];
        let mut insert = |first: u8, second: u8| {
            let start = usize::from(first) + 256 * usize::from(second);
            starts[start / 64] |= 1 << (start % 64);
        };
        let of_role = |head: KeyHead| head.class == class as u8 && head.role == role as u8;
        for key in self.names.keys().filter(|key| of_role(key.head)) {
            insert(key.name[0], key.name[1]);
        }
        for key in self.name_prefixes.keys().filter(|key| of_role(key.data.head)) {
            match (key.bits - KEY_HEAD_BITS) / 8 {
                0 => (0..=u8::MAX).for_each(|first| (0..=u8::MAX).for_each(|second| insert(first, second))),
                1 => (0..=u8::MAX).for_each(|second| insert(key.data.name[0], second)),
                _ => insert(key.data.name[0], key.data.name[1]),
            }
        }
        starts
    }

    /// The lines of a class; the position is the line's bit.
    pub fn lines(&self, class: Class) -> &[LineOf] {
        &self.lines[class as usize]
    }

    /// What those of the lines of one rule except that are in the set.
    pub fn exceptions_of(&self, class: Class, lines: &Vector, rule: RuleId) -> Vec<&Exceptions> {
        let lines = vector::numbers(lines).filter_map(|number| self.lines(class).get(number));
        let mut exceptions: Vec<&Exceptions> =
            lines.filter(|line| line.rule.id == rule).map(|line| &*line.exceptions).collect();
        exceptions.dedup();
        exceptions
    }

    /// The rules whose lines are in the set, each once, by id.
    pub fn rules_of(&self, class: Class, lines: &Vector) -> impl Iterator<Item = &Arc<Rule>> {
        let mut last = None;
        vector::numbers(lines).filter_map(move |number| {
            // Lines of one rule are neighbours.
            let rule = &self.lines(class).get(number)?.rule;
            (last.replace(rule.id) != Some(rule.id)).then_some(rule)
        })
    }

    /// The operations that some line is about: what has to be observed at all.
    pub fn ops(&self) -> BTreeSet<Op> {
        let lines = self.lines.iter().flatten();
        lines.flat_map(|line| line.rule.lines[line.index].ops.iter().copied()).collect()
    }

    /// What each class's lines ask for in a resolved ruleset. Rules that are not compiled in are left out.
    /// A rule decided in user space is enabled without a mitigation in the kernel.
    pub fn ruleset_vectors(&self, ruleset: &ResolvedRuleset) -> [RulesetVectors; CLASSES] {
        Class::ALL.map(|class| {
            let mut vectors = RulesetVectors::default();
            for (number, line) in self.lines(class).iter().enumerate() {
                let decision = ruleset.rules.get(&line.rule.id);
                let mitigation = decision.and_then(|decision| decision.mitigation_with(&line.exceptions));
                let Some(mitigation) = mitigation else { continue };
                vector::insert(&mut vectors.enabled, number);
                let asked = match mitigation {
                    _ if line.rule.decided_by == DecidedBy::User => continue,
                    Mitigation::Log => continue,
                    Mitigation::Block => &mut vectors.block,
                    Mitigation::Isolate => &mut vectors.isolate,
                    Mitigation::Terminate => &mut vectors.terminate,
                };
                vector::insert(asked, number);
            }
            vectors
        })
    }
}
