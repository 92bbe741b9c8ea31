//! Events on their way to any number of readers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::broadcast;

use crate::Violation;

/// Holds the last violations and hands new ones to whoever follows. Memory is bounded, and publishing never
/// waits for a reader: one that falls behind by more than the capacity loses events and is told how many.
#[derive(Debug)]
pub struct Feed {
    recent: Mutex<VecDeque<Arc<Violation>>>,
    capacity: usize,
    sender: broadcast::Sender<Arc<Violation>>,
}

/// What a reader of a [`Feed`] gets: no event is missing or doubled between the two.
#[derive(Debug)]
pub struct Subscription {
    /// Violations that are still held, oldest first.
    pub recent: Vec<Arc<Violation>>,
    /// Those to come.
    pub next: broadcast::Receiver<Arc<Violation>>,
}

impl Feed {
    /// A feed that holds at most `capacity` violations (at least one).
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { recent: Mutex::new(VecDeque::new()), capacity, sender: broadcast::Sender::new(capacity) }
    }

    /// Hands a violation to all readers.
    pub fn publish(&self, violation: Arc<Violation>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == self.capacity {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&violation));
        // Still under the lock, so that a subscription is entirely before or entirely after this violation.
        // The error says that nobody follows, which is no error.
        let _ = self.sender.send(violation);
    }

    /// The violations held, and those to come.
    pub fn subscribe(&self) -> Subscription {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        Subscription { recent: recent.iter().cloned().collect(), next: self.sender.subscribe() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::violation::tests::drift;

    fn numbered(number: u64) -> Arc<Violation> {
        Arc::new(Violation { kernel_time_ns: number, ..drift() })
    }

    #[test]
    fn holds_the_last_ones_and_hands_on_the_next_without_gap_or_double() {
        let feed = Feed::new(2);
        (1..=3).for_each(|number| feed.publish(numbered(number)));
        let mut subscription = feed.subscribe();
        feed.publish(numbered(4));
        let recent: Vec<_> = subscription.recent.iter().map(|violation| violation.kernel_time_ns).collect();
        assert_eq!(recent, [2, 3]);
        assert_eq!(subscription.next.try_recv().unwrap().kernel_time_ns, 4);
        assert!(subscription.next.try_recv().is_err());
    }

    #[test]
    fn slow_reader_is_told_how_many_it_lost() {
        let feed = Feed::new(4);
        let mut subscription = feed.subscribe();
        (0..10).for_each(|number| feed.publish(numbered(number)));
        assert_eq!(subscription.next.try_recv(), Err(broadcast::error::TryRecvError::Lagged(6)));
        assert_eq!(subscription.next.try_recv().unwrap().kernel_time_ns, 6);
    }
}
