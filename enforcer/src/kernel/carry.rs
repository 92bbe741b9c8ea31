//! What is isolated stays so when the layout of the maps changes: it is copied out of the maps of the other layout, as far
//! as those maps are the same in both.

use super::{
    Error, Pins, pins,
    retain::{failed, open_in},
};
use aya::maps::{Array, HashMap, Map, MapData};
use ringfence_abi::{CgroupKey, CgroupName, Isolation, SLOTS, Slot};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The maps that say who is isolated, and by which ways it gets out.
struct Maps {
    isolated: Array<MapData, Isolation>,
    /// Versions before 0.1 had none.
    terminating: Option<Array<MapData, u64>>,
    slots: Array<MapData, Slot>,
    bound: HashMap<MapData, CgroupKey, u32>,
    coming: HashMap<MapData, CgroupName, u32>,
    veths: HashMap<MapData, u32, u32>,
}

impl Maps {
    fn open(dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            isolated: open_in(dir, "ISOLATED", Map::Array)?,
            terminating: open_in(dir, "TERMINATING", Map::Array).ok(),
            slots: open_in(dir, "SLOTS", Map::Array)?,
            bound: open_in(dir, "CGROUPS", Map::HashMap)?,
            coming: open_in(dir, "COMING", Map::HashMap)?,
            veths: open_in(dir, "VETHS", Map::HashMap)?,
        })
    }

    /// Everything that has a slot.
    fn used(&self) -> BTreeSet<u32> {
        let bound = self.bound.iter().flatten().map(|(_, slot)| slot);
        bound.chain(self.coming.iter().flatten().map(|(_, slot)| slot)).filter(|slot| *slot != 0).collect()
    }

    /// Isolates here what is isolated there, by the same number if that is free.
    fn take(&mut self, other: &Self) -> Result<usize, Error> {
        let mut isolated = BTreeMap::new();
        for slot in other.used() {
            // Another layout may have had more slots.
            if let Ok(value) = other.isolated.get(&slot, 0)
                && value.since != 0
            {
                isolated.insert(slot, value);
            }
        }
        let mut used = self.used();
        for (theirs, value) in &isolated {
            let cgroups: Vec<CgroupKey> = keys(&other.bound, *theirs);
            let ours = cgroups.iter().find_map(|cgroup| self.bound.get(cgroup, 0).ok().filter(|slot| *slot != 0));
            let free = || {
                let any = std::iter::once(*theirs).chain(1..SLOTS);
                any.filter(|slot| (1..SLOTS).contains(slot)).find(|slot| !used.contains(slot))
            };
            let ours = ours.or_else(free).ok_or(Error::NoSlot(SLOTS - 1))?;
            used.insert(ours);
            if self.isolated.get(&ours, 0).map_err(failed("ISOLATED"))?.since == 0 {
                self.isolated.set(ours, *value, 0).map_err(failed("ISOLATED"))?;
            }
            if let (Some(ours_of), Some(theirs_of)) = (&mut self.terminating, &other.terminating) {
                let since = theirs_of.get(theirs, 0).map_err(failed("TERMINATING"))?;
                if since != 0 {
                    ours_of.set(ours, since, 0).map_err(failed("TERMINATING"))?;
                }
            }
            let mut slot = self.slots.get(&ours, 0).map_err(failed("SLOTS"))?;
            slot.flags |= other.slots.get(theirs, 0).map_err(failed("SLOTS"))?.flags;
            self.slots.set(ours, slot, 0).map_err(failed("SLOTS"))?;
            for cgroup in cgroups {
                self.bound.insert(cgroup, ours, 0).map_err(failed("CGROUPS"))?;
            }
            for name in keys(&other.coming, *theirs) {
                self.coming.insert(name, ours, 0).map_err(failed("COMING"))?;
            }
            for interface in keys(&other.veths, *theirs) {
                self.veths.insert(interface, ours, 0).map_err(failed("VETHS"))?;
            }
        }
        Ok(isolated.len())
    }
}

fn keys<K: aya::Pod>(map: &HashMap<MapData, K, u32>, of: u32) -> Vec<K> {
    map.iter().flatten().filter(|(_, slot)| *slot == of).map(|(key, _)| key).collect()
}

/// Isolates what is isolated by the maps of other layouts. Those are left as they are: their programs still look at them.
pub fn over(pins: &Pins) -> Result<(), Error> {
    for other in pins.foreign_maps() {
        let layout = other.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match Maps::open(&other) {
            Ok(theirs) => {
                let carried = Maps::open(&pins.maps())?.take(&theirs)?;
                if carried > 0 {
                    tracing::info!(layout, carried, "isolated by an enforcer with another layout of maps: stays so");
                }
            }
            Err(error) => {
                tracing::warn!(layout, %error, "what an enforcer with another layout of maps has isolated is not known");
            }
        }
    }
    Ok(())
}

/// Once nobody looks at them any more: takes over what was isolated until now, and removes them.
pub fn finish(pins: &Pins) -> Result<(), Error> {
    over(pins)?;
    pins.foreign_maps().iter().try_for_each(|other| pins::remove(other))
}
