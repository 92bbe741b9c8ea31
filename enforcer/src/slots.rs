//! Gives out slots. A slot that is given back rests as long as possible: records of its last owner may be under way.

use ringfence_abi::SLOTS;
use std::collections::{BTreeSet, VecDeque};

/// Free slots, the longest free first. Slot 0 means "not governed".
#[derive(Debug)]
pub struct Slots {
    free: VecDeque<u32>,
}

impl Slots {
    /// All slots but those in use.
    pub fn without(used: &BTreeSet<u32>) -> Self {
        Self { free: (1..SLOTS).filter(|slot| !used.contains(slot)).collect() }
    }

    /// Takes one.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop_front()
    }

    /// Takes a certain one, if it is free.
    pub fn claim(&mut self, slot: u32) {
        self.free.retain(|s| *s != slot);
    }

    /// Gives one back.
    pub fn give_back(&mut self, slot: u32) {
        self.free.push_back(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_never_given_twice_and_rests_when_given_back() {
        let mut slots = Slots::without(&BTreeSet::from([1, 3]));
        assert_eq!((slots.take(), slots.take(), slots.take()), (Some(2), Some(4), Some(5)));
        slots.give_back(2);
        slots.claim(6);
        let rest: Vec<u32> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!((rest[0], *rest.last().unwrap()), (7, 2));
        assert_eq!(rest.len(), SLOTS as usize - 1 - 2 - 3 - 1 + 1);
    }
}
