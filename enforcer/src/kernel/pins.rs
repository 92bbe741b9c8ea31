//! What stays in the kernel when the enforcer does not: pinned maps and links, under one folder of the bpf file system.
//!
//! ```text
//! <bpffs>/ringfence/maps/<LAYOUT>/<MAP>        shared by old and new programs of one layout
//! <bpffs>/ringfence/links/<object>/<link>      programs of one object, attached
//! <bpffs>/ringfence/links/<object>/<MAP>       where every system call goes on to these by its number: to which
//! <bpffs>/ringfence/net/...                    netiso's
//! ```

use super::Error;
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Layout of the maps. To be raised with every change of a map's key, value or meaning.
pub const LAYOUT: &str = "5";

/// The folder of pins.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Under a mounted bpf file system.
    pub fn new(bpffs: &Path) -> Self {
        Self { root: bpffs.join("ringfence") }
    }

    /// Folder of everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of the maps.
    pub fn maps(&self) -> PathBuf {
        self.root.join("maps").join(LAYOUT)
    }

    /// Folder of the links of one object.
    pub fn links(&self, object: &str) -> PathBuf {
        self.root.join("links").join(object)
    }

    /// Folder that netiso keeps.
    pub fn net(&self) -> PathBuf {
        self.root.join("net")
    }

    /// Claims the folder, which is made if need be: two enforcers over the same maps would undo each other's doings. The
    /// claim ends with the file, or with the process.
    pub fn claim(&self) -> Result<File, Error> {
        let failed = |source| Error::Path { path: self.root.clone(), source };
        fs::create_dir_all(&self.root).map_err(failed)?;
        let folder = File::open(&self.root).map_err(failed)?;
        match folder.try_lock() {
            Ok(()) => Ok(folder),
            Err(TryLockError::WouldBlock) => Err(Error::InUse(self.root.clone())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Makes the folders.
    pub fn create(&self, object: &str) -> Result<(), Error> {
        for dir in [self.maps(), self.links(object), self.net()] {
            fs::create_dir_all(&dir).map_err(|source| Error::Path { path: dir, source })?;
        }
        Ok(())
    }

    /// Links of other objects than `object`: of an older or newer enforcer.
    pub fn foreign_links(&self, object: &str) -> Vec<PathBuf> {
        entries(&self.root.join("links")).into_iter().filter(|dir| !dir.ends_with(object)).collect()
    }

    /// Folders of maps of other layouts: of an older or newer enforcer.
    pub fn foreign_maps(&self) -> Vec<PathBuf> {
        entries(&self.root.join("maps")).into_iter().filter(|dir| !dir.ends_with(LAYOUT)).collect()
    }

    /// Links of every object.
    pub fn all_links(&self) -> Vec<PathBuf> {
        entries(&self.root.join("links")).iter().flat_map(|object| entries(object)).collect()
    }

    /// Everything that is pinned, files only.
    pub fn list(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut todo = vec![self.root.clone()];
        while let Some(dir) = todo.pop() {
            for path in entries(&dir) {
                if path.is_dir() { todo.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// Removes folders of objects that have no link left.
pub fn remove_empty(pins: &Pins) {
    for object in entries(&pins.root.join("links")) {
        // One that is not empty stays.
        let _ = fs::remove_dir(object);
    }
}

/// Removes a folder of pins and what is in it: the last reference to a link detaches it.
pub fn remove(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Path { path: dir.to_owned(), source }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::LAYOUT;
    use crate::kernel::{PINNED, object::Object};

    /// Pinned maps of a layout: name, type (`enum bpf_map_type`), bytes of a key and of a value, entries, flags.
    const MAPS: (&str, &str) = (
        "5",
        "\
ATTACHED 2 4 4 1 0\n\
BYTE_FACETS 2 4 8192 60 0\n\
CANDIDATES 27 0 0 1048576 0\n\
CGROUPS 1 8 4 65536 0\n\
COMING 1 160 4 16384 0\n\
COUNTS 6 4 8 30 0\n\
DESTINATIONS 11 24 64 16384 1\n\
ENTERING 1 4 4 8192 0\n\
ESCAPED 1 4 4 8192 0\n\
ESCAPES 2 4 8 1 0\n\
EVENTS 27 0 0 4194304 0\n\
EXCEPTIONS 11 20 98 1024 1\n\
FACET_DEFAULTS 2 4 768 10 0\n\
GENERATION 2 4 4 1 0\n\
ISOLATED 2 4 16 4096 0\n\
MEMBERS 1 4 8 65536 0\n\
MITIGATIONS 27 0 0 2097152 0\n\
NAMES 1 64 64 32768 1\n\
NAME_PREFIXES 11 68 64 16384 1\n\
NAME_STARTS 2 4 8192 60 0\n\
NEIGHBOUR_AT 2 4 8 4096 0\n\
NODE_ADDRESSES 1 16 1 4096 0\n\
NUMBERS 1 16 64 8192 1\n\
PATHS 1 256 64 16384 1\n\
PATH_PREFIXES 11 252 64 16384 1\n\
PROBE_FLOWS 9 24 8 65536 0\n\
RULESETS 2 4 128 5120 0\n\
SLOTS 2 4 16 4096 0\n\
STRANGERS 9 8 160 1024 0\n\
TERMINATING 2 4 8 4096 0\n\
VETHS 1 4 4 16384 0\n\
WRITTEN 9 16 8 16384 0\n",
    );

    #[test]
    fn another_layout_has_another_name() {
        let object = aya_obj::Object::parse(Object::with_helper_reads().bytes()).expect("it is an object");
        let line = |name: &&str| {
            let map = &object.maps[*name];
            let [kind, key, value] = [map.map_type(), map.key_size(), map.value_size()];
            format!("{name} {kind} {key} {value} {} {}\n", map.max_entries(), map.map_flags())
        };
        let maps: String = PINNED.iter().map(line).collect();
        assert_eq!((LAYOUT, maps.as_str()), MAPS, "a map has changed: LAYOUT has to change too, and then this table");
    }
}
