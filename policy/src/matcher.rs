//! Matching over the compiled tables, step by step as the kernel side does it: hash look-ups, one longest prefix,
//! and the AND of all facets.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_abi::{ALL, ByteFacet, Entry, Facet, NONE, Vector};

use crate::keys::{self, PrefixData};
use crate::line::{Network, is_path};
use crate::observed::Observed;
use crate::tables::{Prefix, Tables};
use crate::vector;

/// What the kernel's LPM trie answers: the value of the longest stored prefix of the key.
fn longest<K: PrefixData>(table: &BTreeMap<Prefix<K>, Entry>, key: Prefix<K>) -> Option<&Entry> {
    let mut at_most = key.bits;
    loop {
        // Keys are ordered by length first: the last one before any longer has the greatest length there is.
        let longer = Prefix { bits: at_most + 1, data: K::LEAST };
        let (Prefix { bits, .. }, _) = table.range(..longer).next_back()?;
        match table.get(&keys::shorten(key, *bits)) {
            Some(entry) => return Some(entry),
            None => at_most = bits.checked_sub(1)?,
        }
    }
}

impl Tables {
    /// The lines of the event's class that it satisfies, whether or not any pod enables them.
    pub fn matches(&self, event: &Observed) -> Vector {
        self.narrow(event, &BTreeSet::new())
    }

    /// The lines that the event does not satisfy by what is known of it, but may by what is not: everything else holds.
    pub fn candidates(&self, event: &Observed) -> Vector {
        vector::without(&self.narrow(event, &event.unknown), &self.matches(event))
    }

    /// The lines that all facets leave; an open one leaves all that care about it.
    fn narrow(&self, event: &Observed, open: &BTreeSet<Facet>) -> Vector {
        let class = event.class();
        let [flags0, flags1, flags2, _] = event.flags.to_le_bytes();
        let bytes = [
            (ByteFacet::Op, event.op as u8),
            (ByteFacet::Flags0, flags0),
            (ByteFacet::Flags1, flags1),
            (ByteFacet::Flags2, flags2),
            (ByteFacet::Family, event.family),
            (ByteFacet::SocketType, event.socket_type),
        ];
        let mut hit = ALL;
        for (facet, value) in bytes {
            hit = vector::and(&hit, &self.byte_facet(class, facet)[usize::from(value)]);
        }
        for facet in Facet::ALL {
            // Look-ups that no line cares about which is still possible are spared.
            let care = &self.defaults[class as usize][facet as usize].care;
            if !open.contains(&facet) && vector::and(&hit, care) != NONE {
                hit = vector::and(&hit, &self.facet(event, facet));
            }
        }
        hit
    }

    /// The lines that the event's values of one facet satisfy.
    fn facet(&self, event: &Observed, facet: Facet) -> Vector {
        let class = event.class();
        let default = self.defaults[class as usize][facet as usize].default;
        let entries = match facet {
            Facet::Destination => {
                let key = keys::destination_key(class, &Network::new(event.address, 128));
                vec![longest(&self.destinations, key)]
            }
            Facet::Port => vec![self.numbers.get(&keys::number_key(class, facet, u64::from(event.port)))],
            Facet::Number => vec![self.numbers.get(&keys::number_key(class, facet, event.number))],
            Facet::NoAncestorName => {
                // Each ancestor is judged alone and all must pass; that is what clearing for any of them does.
                return event.texts(facet).into_iter().fold(default, |lines, name| {
                    vector::and(&lines, &apply(default, self.text_entries(event, facet, name)))
                });
            }
            Facet::ObjectName => {
                let own = event.texts(facet).into_iter().flat_map(|name| self.text_entries(event, facet, name));
                let others = event.other_names.iter().flat_map(|name| self.text_entries(event, facet, name));
                return others.flatten().fold(apply(default, own), |lines, entry| vector::or(&lines, &entry.set));
            }
            _ => event.texts(facet).into_iter().flat_map(|text| self.text_entries(event, facet, text)).collect(),
        };
        apply(default, entries)
    }

    /// The exact and the prefix entry for one text.
    fn text_entries(&self, event: &Observed, facet: Facet, text: &[u8]) -> Vec<Option<&Entry>> {
        let (class, role) = (event.class(), keys::role(facet));
        if is_path(facet) {
            let exact = self.paths.get(&keys::path_key(class, role, text));
            vec![exact, longest(&self.path_prefixes, keys::path_prefix_key(class, role, text))]
        } else {
            let exact = self.names.get(&keys::name_key(class, role, text));
            vec![exact, longest(&self.name_prefixes, keys::name_prefix_key(class, role, text))]
        }
    }
}

/// A facet's vector: its default and everything set, without everything cleared.
fn apply<'a>(default: Vector, entries: impl IntoIterator<Item = Option<&'a Entry>>) -> Vector {
    let (mut set, mut clear) = (default, NONE);
    for entry in entries.into_iter().flatten() {
        set = vector::or(&set, &entry.set);
        clear = vector::or(&clear, &entry.clear);
    }
    vector::without(&set, &clear)
}
