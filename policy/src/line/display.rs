//! A line as people read it.

use std::fmt::{self, Display};

use ringfence_abi::{Facet, flag};

use super::{Line, Network, Test, facet_key, op_name, vocabulary};

/// Words that go on in one another's company.
fn join<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// `key: values`, for the values asked for and for those excluded.
fn conditions<T: Display>(facet: Facet, test: &Test<T>) -> Vec<String> {
    let (any_key, none_key) = facet_key(facet);
    let named = [(any_key, &test.any), (none_key, &test.none)];
    named
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(key, values)| format!("{key}: {}", join(values)))
        .collect()
}

impl Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = std::net::Ipv6Addr::from(self.address());
        match address.to_ipv4_mapped() {
            Some(v4) if self.bits() == 128 => write!(f, "{v4}"),
            Some(v4) if self.bits() >= 96 => write!(f, "{v4}/{}", self.bits() - 96),
            _ if self.bits() == 128 => write!(f, "{address}"),
            _ => write!(f, "{address}/{}", self.bits()),
        }
    }
}

/// In the words of the catalogue's files: `on: exec; flags: tty, entry; name: sh, bash`.
impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = vec![format!("on: {}", join(self.ops.iter().map(|op| op_name(*op))))];
        let flags =
            flag::NAMES.iter().filter_map(|(name, bit)| match (self.flags.required & bit, self.flags.refused & bit) {
                (0, 0) => None,
                (0, _) => Some(format!("!{name}")),
                _ => Some((*name).to_owned()),
            });
        let flags: Vec<_> = flags.collect();
        if !flags.is_empty() {
            parts.push(format!("flags: {}", join(flags)));
        }
        if !self.families.is_empty() {
            parts
                .push(format!("family: {}", join(self.families.iter().map(|family| vocabulary::family_name(*family)))));
        }
        if !self.socket_types.is_empty() {
            let names = self.socket_types.iter().map(|kind| vocabulary::socket_type_name(*kind));
            parts.push(format!("type: {}", join(names)));
        }
        for (facet, test) in &self.texts {
            parts.extend(conditions(*facet, test));
        }
        parts.extend(conditions(Facet::Destination, &self.destination));
        parts.extend(conditions(Facet::Port, &self.port));
        let op = self.ops.first().copied();
        let names = |numbers: &[u64]| numbers.iter().map(|number| vocabulary::number_name(op, *number)).collect();
        let numbers = Test::<String> { any: names(&self.number.any), none: names(&self.number.none) };
        parts.extend(conditions(Facet::Number, &numbers));
        f.write_str(&parts.join("; "))
    }
}
