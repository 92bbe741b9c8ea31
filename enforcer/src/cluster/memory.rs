//! What the API server has told, kept for an enforcer that starts while nobody answers there: what is in force, and the
//! pods of this node. One file for each object, in a folder that outlives the enforcer and not the node.
//!
//! What can't be written is only lost for such a start: it is said once, and nothing fails.

use crate::state::CLUSTER;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// What is remembered. Each has its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Rulesets, as objects, as they were when all of them together could be put in force last.
    Rulesets,
    /// The policy, as an object, as it was then.
    Policies,
    /// Pods of this node.
    Pods,
    /// What is still to be said at the API server.
    Deeds,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Rulesets => "rulesets",
            Self::Policies => "policies",
            Self::Pods => "pods",
            Self::Deeds => "deeds",
        }
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Memory {
    folder: PathBuf,
    failing: Arc<AtomicBool>,
}

impl Memory {
    /// Below the folder for what outlives the enforcer.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join(CLUSTER), failing: Arc::default() }
    }

    /// Remembers an object in place of what was remembered by its name.
    pub fn put(&self, kind: Kind, name: &str, object: &impl Serialize) {
        match serde_json::to_string(object) {
            Ok(text) => self.put_text(kind, name, &text),
            Err(error) => tracing::warn!(name, %error, "can't be remembered"),
        }
    }

    /// The same of an object that is JSON already.
    pub fn put_text(&self, kind: Kind, name: &str, json: &str) {
        let Some(path) = self.path(kind, name) else { return };
        self.tell(write(&path, json.as_bytes()), &path);
    }

    /// Forgets it.
    pub fn remove(&self, kind: Kind, name: &str) {
        let Some(path) = self.path(kind, name) else { return };
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => self.tell(removed, &path),
        }
    }

    /// Everything of a kind, by name. What can't be read, such as an older version's, is left out.
    pub fn all<T: DeserializeOwned>(&self, kind: Kind) -> Vec<(String, T)> {
        let Ok(entries) = fs::read_dir(self.folder.join(kind.folder())) else { return Vec::new() };
        let read = |path: PathBuf| {
            let name = path.file_name()?.to_str().filter(|name| !name.ends_with(NEXT))?.to_owned();
            match serde_json::from_slice(&fs::read(&path).ok()?) {
                Ok(object) => Some((name, object)),
                Err(error) => {
                    tracing::warn!("{} is not understood, and left out: {error}", path.display());
                    None
                }
            }
        };
        entries.flatten().filter_map(|entry| read(entry.path())).collect()
    }

    /// Names come from the API server, which allows no such ones; a file elsewhere is never touched all the same.
    fn path(&self, kind: Kind, name: &str) -> Option<PathBuf> {
        let fits = !name.is_empty() && !name.starts_with('.') && !name.contains('/') && !name.ends_with(NEXT);
        fits.then(|| self.folder.join(kind.folder()).join(name))
    }

    fn tell(&self, result: io::Result<()>, path: &Path) {
        let failing = result.is_err();
        if let Err(error) = result
            && !self.failing.load(Ordering::Relaxed)
        {
            tracing::warn!(
                "{} can't be written: an enforcer that starts while the API server is away will not know it: {error}",
                path.display()
            );
        }
        self.failing.store(failing, Ordering::Relaxed);
    }
}

/// End of a file's name that is not complete. No name at the API server has it.
const NEXT: &str = "~";

/// Whoever reads it finds it whole, as it was or as it is. Nobody but root reads it.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut next = path.as_os_str().to_owned();
    next.push(NEXT);
    fs::write(&next, text)?;
    fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_until_it_is_removed() {
        let state = tempfile::tempdir().unwrap();
        let memory = Memory::new(state.path());
        assert_eq!(memory.all::<String>(Kind::Rulesets), []);
        for text in ["first", "second"] {
            memory.put(Kind::Rulesets, "web", &text);
        }
        memory.put(Kind::Pods, "u1", &7);
        let again = Memory::new(state.path());
        assert_eq!(again.all::<String>(Kind::Rulesets), [("web".to_owned(), "second".to_owned())]);
        assert_eq!(again.all::<String>(Kind::Pods), [], "it is a number");
        again.remove(Kind::Rulesets, "web");
        again.remove(Kind::Rulesets, "web");
        assert_eq!(memory.all::<String>(Kind::Rulesets), []);
    }

    #[test]
    fn no_name_leaves_the_folder() {
        let state = tempfile::tempdir().unwrap();
        let memory = Memory::new(state.path());
        for name in ["", "..", "../x", "a/b", ".hidden", "a~"] {
            memory.put(Kind::Pods, name, &1);
        }
        assert!(fs::read_dir(state.path()).unwrap().next().is_none());
    }
}
