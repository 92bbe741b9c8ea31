//! What stays in the kernel of what is isolated when everything else is removed, and no enforcer is there any more.
//!
//! The datapath drops the packets of isolated slots, and identity binds new cgroups of theirs (a container that is
//! started again). Nothing is detected.

use super::{Error, Pins, cgroup_name, pins, programs};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use ringfence_abi::{CgroupKey, CgroupName, Isolation, SLOTS, Slot};
use ringfence_containers::ANY_POD;
use std::{collections::BTreeSet, fs, path::Path};

/// Isolated slots that somebody has, and the interfaces that lead to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolated {
    /// The slots.
    pub slots: BTreeSet<u32>,
    /// Numbers of the host's sides of their veths.
    pub interfaces: BTreeSet<u32>,
}

impl Isolated {
    /// What is isolated, by the pinned maps. Empty: nothing is, or there are no maps.
    pub fn find(pins: &Pins) -> Result<Self, Error> {
        if !pins.maps().join("ISOLATED").exists() {
            return Ok(Self::default());
        }
        let isolated: Array<_, Isolation> = open(pins, "ISOLATED", Map::Array)?;
        let mut slots = BTreeSet::new();
        let bound: HashMap<_, CgroupKey, u32> = open(pins, "CGROUPS", Map::HashMap)?;
        for slot in bound.iter().flatten().map(|(_, slot)| slot) {
            if isolated.get(&slot, 0).map_err(failed("ISOLATED"))?.since != 0 {
                slots.insert(slot);
            }
        }
        let veths: HashMap<_, u32, u32> = open(pins, "VETHS", Map::HashMap)?;
        let interfaces = veths.iter().flatten().filter(|(_, slot)| slots.contains(slot)).map(|(index, _)| index);
        Ok(Self { interfaces: interfaces.collect(), slots })
    }

    /// Removes everything of all other slots from the maps, and every program that detects. Returns the pins that are
    /// gone.
    pub fn retain(&self, pins: &Pins) -> Result<Vec<String>, Error> {
        let mut coming: HashMap<_, CgroupName, u32> = open(pins, "COMING", Map::HashMap)?;
        let any = cgroup_name(ANY_POD);
        // Pods that come now are nobody's.
        remove(&mut coming, |name, slot| *name == any || !self.slots.contains(&slot));
        let mut bound: HashMap<_, CgroupKey, u32> = open(pins, "CGROUPS", Map::HashMap)?;
        remove(&mut bound, |_, slot| !self.slots.contains(&slot));
        let mut veths: HashMap<_, u32, u32> = open(pins, "VETHS", Map::HashMap)?;
        remove(&mut veths, |_, slot| !self.slots.contains(&slot));
        let mut slots: Array<_, Slot> = open(pins, "SLOTS", Map::Array)?;
        let mut isolated: Array<_, Isolation> = open(pins, "ISOLATED", Map::Array)?;
        // Versions before 0.1 had none.
        let mut terminating = open::<Array<_, u64>>(pins, "TERMINATING", Map::Array).ok();
        for slot in 1..SLOTS {
            let mut value = Slot::default();
            if self.slots.contains(&slot) {
                value.flags = slots.get(&slot, 0).map_err(failed("SLOTS"))?.flags;
            } else {
                isolated.set(slot, Isolation::default(), 0).map_err(failed("ISOLATED"))?;
                if let Some(terminating) = &mut terminating {
                    terminating.set(slot, 0, 0).map_err(failed("TERMINATING"))?;
                }
            }
            slots.set(slot, value, 0).map_err(failed("SLOTS"))?;
        }
        let identity: BTreeSet<String> = programs::IDENTITY.iter().map(super::Attachment::link_name).collect();
        let mut removed = Vec::new();
        for link in pins.all_links() {
            let name = link.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !identity.contains(name) {
                fs::remove_file(&link).map_err(|source| Error::Path { path: link.clone(), source })?;
                removed.push(format!("pin {}", link.display()));
            }
        }
        pins::remove_empty(pins);
        Ok(removed)
    }
}

fn remove<K: aya::Pod>(map: &mut HashMap<MapData, K, u32>, gone: impl Fn(&K, u32) -> bool) {
    let keys: Vec<K> = map.iter().flatten().filter(|(key, slot)| gone(key, *slot)).map(|(key, _)| key).collect();
    for key in keys {
        // Gone by itself meanwhile: as good.
        let _ = map.remove(&key);
    }
}

fn open<M: TryFrom<Map, Error = MapError>>(
    pins: &Pins,
    map: &'static str,
    kind: fn(MapData) -> Map,
) -> Result<M, Error> {
    open_in(&pins.maps(), map, kind)
}

/// A map that is pinned in a folder.
pub fn open_in<M: TryFrom<Map, Error = MapError>>(
    dir: &Path,
    map: &'static str,
    kind: fn(MapData) -> Map,
) -> Result<M, Error> {
    let data = MapData::from_pin(dir.join(map)).map_err(failed(map))?;
    M::try_from(kind(data)).map_err(failed(map))
}

/// Names the map that an error is about.
pub fn failed(map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { map, source }
}
