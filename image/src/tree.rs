//! The files of an image.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;

/// Files, links and directories. All belong to root and are of 1970.
#[derive(Debug, Clone, Default)]
pub struct Tree(BTreeMap<PathBuf, Entry>);

#[derive(Debug, Clone)]
enum Entry {
    Directory(u32),
    File(Content, u32),
    Link(PathBuf),
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    Host(PathBuf),
}

impl Tree {
    /// A copy of a file of this machine. It is read when the archive is made.
    #[must_use]
    pub fn file(self, host: &Path, path: &str, mode: u32) -> Self {
        self.with(path, Entry::File(Content::Host(host.to_path_buf()), mode))
    }

    /// A file with this content.
    #[must_use]
    pub fn content(self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.with(path, Entry::File(Content::Bytes(content.into()), mode))
    }

    /// A symbolic link at `path`.
    #[must_use]
    pub fn link(self, target: &str, path: &str) -> Self {
        self.with(path, Entry::Link(target.into()))
    }

    /// A directory. Those above a path are made anyway.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.with(path, Entry::Directory(mode))
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is something at that path.
    pub fn has(&self, path: &Path) -> bool {
        self.0.contains_key(inside(path))
    }

    fn with(mut self, path: &str, entry: Entry) -> Self {
        self.0.insert(inside(Path::new(path)).to_path_buf(), entry);
        self
    }

    /// The uncompressed archive, in the order of paths: parents come before children.
    pub fn archive(&self) -> Result<Vec<u8>, Error> {
        let mut entries: BTreeMap<&Path, &Entry> = self.0.iter().map(|(path, entry)| (path.as_path(), entry)).collect();
        let parent = Entry::Directory(0o755);
        for path in self.0.keys() {
            for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
                entries.entry(above).or_insert(&parent);
            }
        }
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in entries {
            append(&mut archive, path, entry).map_err(|error| Error::new(entry.host().unwrap_or(path), error))?;
        }
        // Writing into memory does not fail.
        archive.into_inner().map_err(|error| Error::new("the archive", error))
    }
}

impl Entry {
    /// The file of this machine that is read for it.
    fn host(&self) -> Option<&Path> {
        match self {
            Self::File(Content::Host(path), _) => Some(path),
            _ => None,
        }
    }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &Path, entry: &Entry) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    match entry {
        Entry::Directory(mode) => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            archive.append_data(&mut header, path, io::empty())
        }
        Entry::Link(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            archive.append_link(&mut header, path, target)
        }
        Entry::File(content, mode) => {
            let bytes = match content {
                Content::Bytes(bytes) => bytes,
                Content::Host(path) => &std::fs::read(path)?,
            };
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, bytes.as_slice())
        }
    }
}

/// Without slashes at the beginning and the end, as archives have it.
fn inside(path: &Path) -> &Path {
    let path = path.strip_prefix("/").unwrap_or(path);
    // `components` does not see a slash at the end.
    path.components().as_path()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(tree: &Tree) -> Vec<(String, tar::EntryType, u32)> {
        let bytes = tree.archive().expect("an archive");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().expect("entries").map(|entry| entry.expect("an entry"));
        let name = |path: &Path| path.display().to_string().trim_end_matches('/').to_owned();
        let mode = |header: &tar::Header| header.mode().expect("a mode");
        entries
            .map(|entry| (name(&entry.path().expect("a path")), entry.header().entry_type(), mode(entry.header())))
            .collect()
    }

    #[test]
    fn parents_come_before_children_and_what_is_given_last_stays() {
        let tree = Tree::default().content("/a/b/c", "1", 0o644).link("/run", "/var/run").directory("/tmp/", 0o1777);
        let tree = tree.content("a/b/c", "22", 0o600);
        assert_eq!(
            paths(&tree),
            [
                ("a".to_owned(), tar::EntryType::Directory, 0o755),
                ("a/b".to_owned(), tar::EntryType::Directory, 0o755),
                ("a/b/c".to_owned(), tar::EntryType::Regular, 0o600),
                ("tmp".to_owned(), tar::EntryType::Directory, 0o1777),
                ("var".to_owned(), tar::EntryType::Directory, 0o755),
                ("var/run".to_owned(), tar::EntryType::Symlink, 0o777),
            ]
        );
        assert!(tree.has(Path::new("/tmp")) && tree.has(Path::new("a/b/c")) && !tree.has(Path::new("/a")));
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = Tree::default().file(Path::new("/nonexistent/program"), "/program", 0o755).archive().unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/program: No such file"), "{error}");
    }
}
