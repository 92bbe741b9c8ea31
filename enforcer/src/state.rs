//! What outlives the enforcer but not the node, in its folder: which rules the lines of the generation in force belong
//! to, violations that were counted, how containers' networks were made, and what the API server has told.
//!
//! Everything else is found again where it is: slots in the kernel's maps, containers at the runtime.

use ringfence_abi::Class;
use ringfence_policy::{Catalogue, Exceptions, LineOf, RuleId, Tables, compile_with};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

const FILE: &str = "generation.json";
/// Violations that were counted.
pub const VIOLATIONS: &str = "violations.json";
/// Ways past isolation that containers had before they were isolated.
pub const GAPS: &str = "gaps.json";
/// All that are replaced.
const FILES: [&str; 3] = [FILE, VIOLATIONS, GAPS];
/// A folder: what the API server has told.
pub const CLUSTER: &str = "cluster";

/// Notes a generation before it comes into force. Replaces the file whole.
pub fn save(dir: &Path, generation: u32, tables: &Tables) -> io::Result<()> {
    let rules: BTreeSet<(RuleId, &Exceptions)> = Class::ALL
        .into_iter()
        .flat_map(|class| tables.lines(class).iter().map(|line| (line.rule.id, &*line.exceptions)))
        .collect();
    let text = serde_json::json!({ "generation": generation, "rules": rules, "lines": lines(tables) }).to_string();
    replace(dir, FILE, &text)
}

/// Replaces files on a thread of its own: on a disk that is busy one takes a tenth of a second, and nothing that happens
/// on the node waits for that. Dropped, it has written all of them.
#[derive(Debug)]
pub struct Writer {
    texts: Option<mpsc::Sender<(&'static str, String)>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// For files of this folder.
    pub fn start(dir: PathBuf) -> io::Result<Self> {
        let (texts, asked) = mpsc::channel();
        let thread = thread::Builder::new().name("state".to_owned()).spawn(move || write(&dir, &asked))?;
        Ok(Self { texts: Some(texts), thread: Some(thread) })
    }

    /// This is what the file is to hold now.
    pub fn replace(&self, file: &'static str, text: String) {
        if let Some(texts) = &self.texts {
            let _ = texts.send((file, text));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.texts = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn write(dir: &Path, asked: &mpsc::Receiver<(&'static str, String)>) {
    while let Ok(first) = asked.recv() {
        // What came meanwhile is newer.
        let texts: BTreeMap<&str, String> = std::iter::once(first).chain(asked.try_iter()).collect();
        for (file, text) in texts {
            if let Err(error) = replace(dir, file, &text) {
                tracing::error!(%error, "what the next enforcer is to know can't be written to {}", dir.join(file).display());
            }
        }
    }
}

/// Writes a file that whoever reads it finds whole, as it was or as it is.
fn replace(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    let next = next(dir, file);
    fs::write(&next, text)?;
    fs::rename(next, dir.join(file))
}

/// What is to become the file.
fn next(dir: &Path, file: &str) -> PathBuf {
    dir.join(format!("{file}.next"))
}

/// Removes what an enforcer was writing when it was killed.
pub fn tidy(dir: &Path) -> io::Result<()> {
    FILES.iter().try_for_each(|file| unless_gone(fs::remove_file(next(dir, file))))
}

/// Removes all of it. The folder itself may be somebody's mount point.
pub fn remove(dir: &Path) -> io::Result<()> {
    tidy(dir)?;
    FILES.iter().try_for_each(|file| unless_gone(fs::remove_file(dir.join(file))))?;
    unless_gone(fs::remove_dir_all(dir.join(CLUSTER)))
}

fn unless_gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The tables of the generation that an earlier enforcer left in force, if it can be told.
///
/// It can't if the catalogue has changed meanwhile: the lines' numbers would be taken for others'.
pub fn restore(dir: &Path, generation: u32, catalogue: &Catalogue) -> Option<Arc<Tables>> {
    let text = fs::read_to_string(dir.join(FILE)).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    if value["generation"].as_u64() != Some(u64::from(generation)) {
        return None;
    }
    let rules: Vec<(RuleId, Exceptions)> = serde_json::from_value(value["rules"].clone()).ok()?;
    let rules = rules.iter().map(|(rule, exceptions)| Some((catalogue.get(*rule)?, exceptions)));
    let tables = compile_with(rules.collect::<Option<Vec<_>>>()?).ok()?;
    (value["lines"] == lines(&tables)).then(|| Arc::new(tables))
}

/// Stands for what the lines are and how they are numbered.
fn lines(tables: &Tables) -> String {
    let mut hasher = DefaultHasher::new();
    for class in Class::ALL {
        for line in tables.lines(class) {
            let LineOf { rule, index, exceptions } = line;
            format!("{class:?} {} {exceptions:?} {:?}", rule.id, rule.lines[*index]).hash(&mut hasher);
        }
    }
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::compile;

    #[test]
    fn what_was_saved_is_restored_for_its_generation_alone() {
        let dir = tempfile::tempdir().unwrap();
        let tables = compile(Catalogue::builtin().rules().take(3)).unwrap();
        save(dir.path(), 7, &tables).unwrap();
        assert!(restore(dir.path(), 8, Catalogue::builtin()).is_none());
        let restored = restore(dir.path(), 7, Catalogue::builtin()).unwrap();
        for class in Class::ALL {
            assert_eq!(restored.lines(class).len(), tables.lines(class).len());
        }
    }

    #[test]
    fn half_of_a_file_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), GAPS, "{}").unwrap();
        fs::write(next(dir.path(), GAPS), "{").unwrap();
        tidy(dir.path()).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [GAPS]);
    }

    #[test]
    fn another_catalogue_restores_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tables = compile(Catalogue::builtin().rules().take(3)).unwrap();
        save(dir.path(), 7, &tables).unwrap();
        let changed: Vec<_> = Catalogue::builtin_files()
            .iter()
            .map(|(name, text)| (*name, text.replacen("lines:\n", "lines:\n  - {on: memfd}\n", 1)))
            .collect();
        let changed = Catalogue::read(changed.iter().map(|(name, text)| (*name, text.as_str()))).unwrap();
        assert!(restore(dir.path(), 7, &changed).is_none());
    }
}
