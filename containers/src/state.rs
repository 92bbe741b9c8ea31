//! What has been told about each container, so that only news is told.
//!
//! Events and listings overlap: a container that is created between a source's subscription and its listing comes
//! twice. Everything goes through here, and what is no news yields no event.

use std::collections::BTreeMap;

use crate::{Container, ContainerEvent, ContainerKey};

/// The first process of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its process id.
    pub pid: u32,
    /// Whether the entry point executes.
    pub started: bool,
}

/// All containers of a source, as its consumer knows them.
#[derive(Debug, Default)]
pub struct State {
    containers: BTreeMap<ContainerKey, Entry>,
}

#[derive(Debug)]
struct Entry {
    container: Container,
    task: Option<Task>,
}

impl State {
    /// The container, if it is known.
    pub fn get(&self, key: &ContainerKey) -> Option<&Container> {
        self.containers.get(key).map(|entry| &entry.container)
    }

    /// A container was described.
    pub fn known(&mut self, mut container: Container) -> Option<ContainerEvent> {
        let before = self.containers.get(&container.key);
        let task = before.and_then(|entry| entry.task);
        container.pid = task.map(|task| task.pid);
        if before.is_some_and(|entry| entry.container == container) {
            return None;
        }
        self.containers.insert(container.key.clone(), Entry { container: container.clone(), task });
        Some(ContainerEvent::Known(Box::new(container)))
    }

    /// The container's first process is there, or executes the entry point.
    pub fn task(&mut self, key: &ContainerKey, task: Task) -> Vec<ContainerEvent> {
        let Some(entry) = self.containers.get_mut(key) else { return Vec::new() };
        let mut events = Vec::new();
        match entry.task {
            // A late word about what is told already.
            Some(before) if before.pid == task.pid && (before.started || !task.started) => return events,
            Some(before) if before.pid != task.pid => {
                events.push(ContainerEvent::Exited { key: key.clone(), pid: before.pid, status: None });
            }
            _ => {}
        }
        entry.task = Some(task);
        entry.container.pid = Some(task.pid);
        let key = key.clone();
        events.push(match task {
            Task { pid, started: true } => ContainerEvent::Started { key, pid },
            Task { pid, started: false } => ContainerEvent::Created { key, pid },
        });
        events
    }

    /// The process ended. Another one than the container's first is no news.
    pub fn exited(&mut self, key: &ContainerKey, pid: u32, status: Option<u32>) -> Option<ContainerEvent> {
        let entry = self.containers.get_mut(key)?;
        entry.task.take_if(|task| task.pid == pid)?;
        entry.container.pid = None;
        Some(ContainerEvent::Exited { key: key.clone(), pid, status })
    }

    /// The runtime forgot the container.
    pub fn removed(&mut self, key: &ContainerKey) -> Vec<ContainerEvent> {
        let Some(entry) = self.containers.remove(key) else { return Vec::new() };
        let exited = entry.task.map(|task| ContainerEvent::Exited { key: key.clone(), pid: task.pid, status: None });
        exited.into_iter().chain([ContainerEvent::Removed(key.clone())]).collect()
    }

    /// These containers are all there are.
    pub fn all(&mut self, listing: Vec<(Container, Option<Task>)>) -> Vec<ContainerEvent> {
        let gone: Vec<ContainerKey> =
            self.containers.keys().filter(|key| !listing.iter().any(|(c, _)| c.key == **key)).cloned().collect();
        let mut events: Vec<ContainerEvent> = gone.iter().flat_map(|key| self.removed(key)).collect();
        for (container, task) in listing {
            let key = container.key.clone();
            events.extend(self.known(container));
            if let Some(task) = task {
                events.extend(self.task(&key, task));
            } else {
                let before = self.containers.get(&key).and_then(|entry| entry.task);
                events.extend(before.and_then(|task| self.exited(&key, task.pid, None)));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::Kind;

    fn key(id: &str) -> ContainerKey {
        ContainerKey::new("default", id)
    }

    fn container(id: &str, label: &str) -> Container {
        Container {
            key: key(id),
            name: id.to_owned(),
            kind: Kind::Plain,
            pod: None,
            labels: BTreeMap::from([("app".to_owned(), label.to_owned())]),
            image: String::new(),
            image_digest: None,
            snapshotter: String::new(),
            cgroups_path: String::new(),
            host_network: false,
            netns: None,
            pid: None,
        }
    }

    fn created(pid: u32) -> Task {
        Task { pid, started: false }
    }

    fn started(pid: u32) -> Task {
        Task { pid, started: true }
    }

    #[test]
    fn a_life_is_told_once_however_often_it_is_heard() {
        let mut state = State::default();
        assert!(matches!(state.known(container("a", "x")), Some(ContainerEvent::Known(_))));
        assert_eq!(state.known(container("a", "x")), None);
        assert_eq!(state.task(&key("a"), created(7)), [ContainerEvent::Created { key: key("a"), pid: 7 }]);
        assert_eq!(state.task(&key("a"), started(7)), [ContainerEvent::Started { key: key("a"), pid: 7 }]);
        assert_eq!(state.task(&key("a"), started(7)), []);
        assert_eq!(state.task(&key("a"), created(7)), []);
        assert_eq!(state.known(container("a", "x")), None, "a task does not change the description");
        assert_eq!(state.exited(&key("a"), 8, Some(0)), None, "an exec'd process");
        let exited = ContainerEvent::Exited { key: key("a"), pid: 7, status: Some(137) };
        assert_eq!(state.exited(&key("a"), 7, Some(137)), Some(exited));
        assert_eq!(state.exited(&key("a"), 7, Some(137)), None);
        assert_eq!(state.removed(&key("a")), [ContainerEvent::Removed(key("a"))]);
        assert_eq!(state.removed(&key("a")), []);
    }

    #[test]
    fn changed_labels_are_news_and_carry_the_pid() {
        let mut state = State::default();
        state.known(container("a", "x"));
        state.task(&key("a"), started(7));
        let Some(ContainerEvent::Known(again)) = state.known(container("a", "y")) else { panic!("news expected") };
        assert_eq!((again.labels["app"].as_str(), again.pid), ("y", Some(7)));
    }

    #[test]
    fn a_listing_after_an_outage_makes_up_for_what_was_missed() {
        let mut state = State::default();
        state.all(vec![(container("gone", "x"), Some(started(1))), (container("restarted", "x"), Some(started(2)))]);
        let events = state.all(vec![(container("restarted", "x"), Some(started(3))), (container("new", "x"), None)]);
        assert_eq!(
            events,
            [
                ContainerEvent::Exited { key: key("gone"), pid: 1, status: None },
                ContainerEvent::Removed(key("gone")),
                ContainerEvent::Exited { key: key("restarted"), pid: 2, status: None },
                ContainerEvent::Started { key: key("restarted"), pid: 3 },
                ContainerEvent::Known(Box::new(container("new", "x"))),
            ]
        );
    }

    proptest! {
        /// Whatever was heard in between, a listing leaves the state as the listing says, and hearing it again is no news.
        #[test]
        fn a_listing_has_the_last_word(
            heard in proptest::collection::vec((0u8..4, 0usize..3, 1u32..4), 0..20),
            listed in proptest::collection::btree_map(0usize..3, proptest::option::of((1u32..4, any::<bool>())), 0..3),
        ) {
            let ids = ["a", "b", "c"];
            let mut state = State::default();
            for (what, id, pid) in heard {
                match what {
                    0 => drop(state.known(container(ids[id], "x"))),
                    1 => drop(state.task(&key(ids[id]), started(pid))),
                    2 => drop(state.exited(&key(ids[id]), pid, None)),
                    _ => drop(state.removed(&key(ids[id]))),
                }
            }
            let listing: Vec<_> = listed
                .iter()
                .map(|(&id, task)| (container(ids[id], "x"), task.map(|(pid, started)| Task { pid, started })))
                .collect();
            state.all(listing.clone());
            for (id, name) in ids.iter().enumerate() {
                let found = state.get(&key(name)).map(|c| c.pid);
                prop_assert_eq!(found, listed.get(&id).map(|task| task.map(|(pid, _)| pid)));
            }
            prop_assert_eq!(state.all(listing), []);
        }
    }
}
