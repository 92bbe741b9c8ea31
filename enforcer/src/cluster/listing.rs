//! Objects of one kind, as a watch lists them: what a new list does not have is gone.

use kube::runtime::watcher::Event;
use std::collections::BTreeSet;

/// What a piece of news comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<K> {
    /// The object is there, like this.
    There(K),
    /// It is gone.
    Gone(K),
    /// A list is complete: whatever has none of these names is gone.
    Listed(BTreeSet<String>),
}

/// Follows the lists of one watch.
#[derive(Debug, Default)]
pub struct Listing {
    names: Option<BTreeSet<String>>,
    complete: bool,
}

impl Listing {
    /// Takes in news; `name` is what tells the objects apart.
    pub fn hear<K>(&mut self, news: Event<K>, name: impl Fn(&K) -> String) -> Option<Item<K>> {
        match news {
            Event::Init => {
                self.names = Some(BTreeSet::new());
                None
            }
            Event::InitApply(object) => {
                if let Some(names) = &mut self.names {
                    names.insert(name(&object));
                }
                Some(Item::There(object))
            }
            Event::InitDone => {
                self.complete = true;
                Some(Item::Listed(self.names.take().unwrap_or_default()))
            }
            Event::Apply(object) => Some(Item::There(object)),
            Event::Delete(object) => Some(Item::Gone(object)),
        }
    }

    /// Whether a list was complete once, and none is under way.
    pub fn is_settled(&self) -> bool {
        self.complete && self.names.is_none()
    }

    /// Whether a list was complete once.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Goes on as if there had been a list, with what is known by other ways.
    pub fn assume(&mut self) {
        self.complete = true;
    }
}
