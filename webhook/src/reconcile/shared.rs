//! Values that many pods have in common, such as the labels of all replicas of a workload: each is kept once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// All values that are in use.
pub(super) struct Shared<T>(HashSet<Arc<T>>);

impl<T: Eq + Hash> Default for Shared<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Eq + Hash> Shared<T> {
    /// The same value, as others have it.
    pub(super) fn keep(&mut self, value: T) -> Arc<T> {
        if let Some(kept) = self.0.get(&value) {
            return Arc::clone(kept);
        }
        let kept = Arc::new(value);
        self.0.insert(Arc::clone(&kept));
        kept
    }

    /// This use is about to end; the last one takes the value along.
    pub(super) fn release(&mut self, value: &Arc<T>) {
        // The one here and the one that is about to go.
        if Arc::strong_count(value) <= 2 {
            self.0.remove(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_kept_once_and_as_long_as_it_is_used() {
        let mut shared = Shared::default();
        let [one, two] = ["web", "web"].map(|value| shared.keep(value.to_owned()));
        assert!(Arc::ptr_eq(&one, &two));
        shared.release(&one);
        drop(one);
        assert_eq!(shared.0.len(), 1);
        shared.release(&two);
        assert!(shared.0.is_empty());
    }
}
