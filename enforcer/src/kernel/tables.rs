//! Compiled rules into the kernel's maps: the next generation is written beside the one in force, then one word flips.

use super::{Error, Kernel};
use aya::maps::{MapError, lpm_trie};
use ringfence_abi::{
    ByteFacetVectors, Class, Entry, FacetDefaults, NameStarts, RULESETS, Role, RulesetVectors, byte_facet_index,
    facet_defaults_index, name_starts_index, ruleset_index,
};
use ringfence_policy::{Generational, Prefix, Tables};
use std::collections::BTreeMap;

impl Kernel {
    /// The generation in force; 0 before the first.
    pub fn generation(&mut self) -> Result<u32, Error> {
        self.array::<u32>("GENERATION")?.get(&0, 0).map_err(failed("GENERATION"))
    }

    /// Writes the tables of a generation that is not in force. Its bank and its keys are touched by nobody else.
    pub fn write_tables(&mut self, generation: u32, tables: &Tables) -> Result<(), Error> {
        let mut byte_facets = self.array::<ByteFacetVectors>("BYTE_FACETS")?;
        for (class, facet, vectors) in tables.byte_facets() {
            let index = byte_facet_index(generation, class, facet);
            byte_facets.set(index, vectors, 0).map_err(failed("BYTE_FACETS"))?;
        }
        let mut defaults = self.array::<FacetDefaults>("FACET_DEFAULTS")?;
        for class in Class::ALL {
            let value = tables.defaults[class as usize];
            defaults.set(facet_defaults_index(generation, class), value, 0).map_err(failed("FACET_DEFAULTS"))?;
        }
        let mut starts = self.array::<NameStarts>("NAME_STARTS")?;
        for class in Class::ALL {
            for role in Role::ALL {
                let index = name_starts_index(generation, class as u8, role as u8);
                starts.set(index, tables.name_starts(class, role), 0).map_err(failed("NAME_STARTS"))?;
            }
        }
        let stamp = stamp(generation);
        self.insert_all("PATHS", &tables.paths, stamp)?;
        self.insert_all("NAMES", &tables.names, stamp)?;
        self.insert_all("NUMBERS", &tables.numbers, stamp)?;
        self.insert_prefixes("PATH_PREFIXES", &tables.path_prefixes, stamp)?;
        self.insert_prefixes("NAME_PREFIXES", &tables.name_prefixes, stamp)?;
        self.insert_prefixes("DESTINATIONS", &tables.destinations, stamp)
    }

    /// Removes a generation that is no longer in force.
    pub fn remove_tables(&mut self, generation: u32, tables: &Tables) -> Result<(), Error> {
        let stamp = stamp(generation);
        self.remove_all("PATHS", &tables.paths, stamp)?;
        self.remove_all("NAMES", &tables.names, stamp)?;
        self.remove_all("NUMBERS", &tables.numbers, stamp)?;
        self.remove_prefixes("PATH_PREFIXES", &tables.path_prefixes, stamp)?;
        self.remove_prefixes("NAME_PREFIXES", &tables.name_prefixes, stamp)?;
        self.remove_prefixes("DESTINATIONS", &tables.destinations, stamp)
    }

    /// Writes what a resolved ruleset asks for, for a generation that is not in force (or a number not in use).
    pub fn write_ruleset(
        &mut self,
        generation: u32,
        ruleset: u32,
        vectors: &[RulesetVectors; ringfence_abi::CLASSES],
    ) -> Result<(), Error> {
        assert!(ruleset < RULESETS, "numbers are given out below the limit");
        let mut rulesets = self.array("RULESETS")?;
        for class in Class::ALL {
            let index = ruleset_index(generation, ruleset, class);
            rulesets.set(index, vectors[class as usize], 0).map_err(failed("RULESETS"))?;
        }
        Ok(())
    }

    /// Puts a generation in force.
    pub fn flip(&mut self, generation: u32) -> Result<(), Error> {
        self.array("GENERATION")?.set(0, generation, 0).map_err(failed("GENERATION"))
    }

    fn insert_all<K: aya::Pod + Generational>(
        &mut self,
        map: &'static str,
        entries: &BTreeMap<K, Entry>,
        stamp: u8,
    ) -> Result<(), Error> {
        let mut target = self.hash::<K, Entry>(map)?;
        for (key, entry) in entries {
            target.insert(key.with_generation(stamp), entry, 0).map_err(failed(map))?;
        }
        Ok(())
    }

    fn remove_all<K: aya::Pod + Generational>(
        &mut self,
        map: &'static str,
        entries: &BTreeMap<K, Entry>,
        stamp: u8,
    ) -> Result<(), Error> {
        let mut target = self.hash::<K, Entry>(map)?;
        for key in entries.keys() {
            ignore_absent(target.remove(&key.with_generation(stamp))).map_err(failed(map))?;
        }
        Ok(())
    }

    fn insert_prefixes<K: aya::Pod + Generational>(
        &mut self,
        map: &'static str,
        entries: &BTreeMap<Prefix<K>, Entry>,
        stamp: u8,
    ) -> Result<(), Error> {
        let mut target = self.lpm::<K, Entry>(map)?;
        for (prefix, entry) in entries {
            target.insert(&lpm_key(prefix, stamp), entry, 0).map_err(failed(map))?;
        }
        Ok(())
    }

    fn remove_prefixes<K: aya::Pod + Generational>(
        &mut self,
        map: &'static str,
        entries: &BTreeMap<Prefix<K>, Entry>,
        stamp: u8,
    ) -> Result<(), Error> {
        let mut target = self.lpm::<K, Entry>(map)?;
        for prefix in entries.keys() {
            ignore_absent(target.remove(&lpm_key(prefix, stamp))).map_err(failed(map))?;
        }
        Ok(())
    }
}

/// Keys carry the generation in one byte. Two generations exist side by side, so it may wrap.
fn stamp(generation: u32) -> u8 {
    (generation & 0xff) as u8
}

fn lpm_key<K: aya::Pod + Generational>(prefix: &Prefix<K>, stamp: u8) -> lpm_trie::Key<K> {
    lpm_trie::Key::new(prefix.bits, prefix.data.with_generation(stamp))
}

fn failed(map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { map, source }
}

fn ignore_absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
