//! Cgroups that exist: which are a container's, and which a process is in.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    Hierarchies,
    kill::{is_gone, processes_in},
};
use crate::Error;

/// Which hierarchy a cgroup is in: [`Hierarchies::v1`] or [`Hierarchies::v2`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// The v1 hierarchy that tells containers apart.
    V1,
    /// The v2 hierarchy.
    V2,
}

/// A cgroup that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its hierarchy.
    pub version: Version,
    /// Its path below the hierarchy's root, beginning with a slash.
    pub path: String,
    /// Its kernfs id, as eBPF sees it. Ids of different hierarchies are not distinct.
    pub id: u64,
}

/// The kernfs id of a cgroup's directory. On 64-bit kernels that is its inode number (the id was 32 bits wide before
/// 5.5, when inode and generation were the two halves of the handle).
pub fn cgroup_id(directory: &Path) -> io::Result<u64> {
    fs::metadata(directory).map(|metadata| metadata.ino())
}

impl Hierarchies {
    /// All cgroups that belong to one of `names` (see [`crate::cgroup_names`]): those whose path ends so, and all that
    /// are nested in them, which belong to the nearest. Cgroups that vanish during the walk are left out.
    pub fn find<'a, T>(&self, names: &'a HashMap<String, T>) -> Result<Vec<(&'a T, Cgroup)>, Error> {
        let mut found = Vec::new();
        for (version, root) in self.roots() {
            // The root must be there; anything below it may vanish.
            fs::read_dir(&root).map_err(|source| Error::File { path: root.clone(), source })?;
            walk(&root, "", None, names, &mut |value, path| {
                if let Ok(id) = cgroup_id(&root.join(path.trim_start_matches('/'))) {
                    found.push((value, Cgroup { version, path: path.to_owned(), id }));
                }
            });
        }
        Ok(found)
    }

    /// The threads that are in a cgroup itself, by the ids that `/proc` knows them by. Empty if it is gone.
    pub fn threads_in(&self, cgroup: &Cgroup) -> Result<Vec<u32>, Error> {
        let Some(directory) = self.directory(cgroup.version, &cgroup.path) else { return Ok(Vec::new()) };
        let path = directory.join(match cgroup.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.threads",
        });
        match fs::read_to_string(&path) {
            // 0: a thread of a pid namespace that is not ours.
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|id| *id != 0).collect()),
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            // An invalid domain of v2 has no threads of its own.
            Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => Ok(Vec::new()),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// The cgroups that a process is in, of the hierarchies that matter here. Empty if it has ended.
    pub fn of_process(&self, pid: u32) -> Result<Vec<Cgroup>, Error> {
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // ESRCH: it ended between open and read.
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ESRCH) => {
                return Ok(Vec::new());
            }
            Err(source) => return Err(Error::File { path, source }),
        };
        let cgroups = self.paths_in(&text).into_iter().filter_map(|(version, path)| {
            let id = cgroup_id(&self.directory(version, &path)?).ok()?;
            Some(Cgroup { version, path, id })
        });
        Ok(cgroups.collect())
    }

    /// The processes that are in a cgroup itself, not in one nested in it. Empty if it is gone.
    pub fn processes(&self, cgroup: &Cgroup) -> Result<BTreeSet<u32>, Error> {
        self.directory(cgroup.version, &cgroup.path).map_or(Ok(BTreeSet::new()), |directory| processes_in(&directory))
    }

    /// Where a cgroup of this path is; `None`: there is no such hierarchy.
    fn directory(&self, version: Version, path: &str) -> Option<PathBuf> {
        let (_, root) = self.roots().into_iter().find(|(of, _)| *of == version)?;
        Some(root.join(path.trim_start_matches('/')))
    }

    /// Lines `number:controllers:path` of `/proc/PID/cgroup`.
    fn paths_in(&self, text: &str) -> Vec<(Version, String)> {
        let line = |line: &str| {
            let mut parts = line.splitn(3, ':');
            let (_number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let v1 = self.v1().is_some_and(|v1| controllers.split(',').any(|controller| controller == v1.controller));
            let version = if v1 { Version::V1 } else { Version::V2 };
            (v1 || (controllers.is_empty() && self.v2().is_some())).then(|| (version, path.to_owned()))
        };
        text.lines().filter_map(line).collect()
    }

    fn roots(&self) -> Vec<(Version, PathBuf)> {
        let v1 = self.v1().map(|v1| (Version::V1, v1.mount.clone()));
        let v2 = self.v2().map(|mount| (Version::V2, mount.to_path_buf()));
        v1.into_iter().chain(v2).collect()
    }
}

/// Goes through the directories below `root``path`; `owner` is what the nearest cgroup above belongs to.
fn walk<'a, T>(
    root: &Path,
    path: &str,
    owner: Option<&'a T>,
    names: &'a HashMap<String, T>,
    found: &mut impl FnMut(&'a T, &str),
) {
    for name in subdirectories(&root.join(path.trim_start_matches('/'))) {
        let path = format!("{path}/{name}");
        let owner = owner_by_name(&path, names).or(owner);
        if let Some(value) = owner {
            found(value, &path);
        }
        walk(root, &path, owner, names, found);
    }
}

fn owner_by_name<'a, T>(path: &str, names: &'a HashMap<String, T>) -> Option<&'a T> {
    let (parent, last) = path.rsplit_once('/')?;
    let two = parent.rsplit_once('/').map(|(_, parent)| format!("{parent}/{last}"));
    two.and_then(|two| names.get(&two)).or_else(|| names.get(last))
}

/// Names of the cgroups in a cgroup; none if it is gone.
pub fn subdirectories(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A tree of directories is a hierarchy without processes.
    fn hybrid(directories: &[&str]) -> (tempfile::TempDir, Hierarchies) {
        let root = tempfile::tempdir().expect("temporary directory");
        for directory in directories {
            fs::create_dir_all(root.path().join(directory)).expect("directory");
        }
        let base = root.path().display();
        let mountinfo = format!(
            "1 0 0:1 / {base}/pids rw - cgroup cgroup rw,pids\n2 0 0:2 / {base}/unified rw - cgroup2 cgroup2 rw\n"
        );
        let hierarchies = Hierarchies::parse(&mountinfo).expect("hybrid");
        (root, hierarchies)
    }

    #[test]
    fn containers_are_found_in_both_hierarchies_with_what_is_nested() {
        let id = "a".repeat(64);
        let (root, hierarchies) = hybrid(&[
            &format!("pids/kubepods/pod1/{id}/inner"),
            &format!("unified/kubepods/pod1/{id}"),
            "pids/default/demo",
            "pids/other/demo",
            "unified",
        ]);
        let names = HashMap::from([(id.clone(), 1), ("default/demo".to_owned(), 2)]);
        let found = hierarchies.find(&names).expect("a walk");
        let told: BTreeSet<(i32, &str, bool)> =
            found.iter().map(|(value, c)| (**value, c.path.as_str(), c.version == Version::V1)).collect();
        let (pod, inner) = (format!("/kubepods/pod1/{id}"), format!("/kubepods/pod1/{id}/inner"));
        let expected = BTreeSet::from([
            (1, pod.as_str(), true),
            (1, inner.as_str(), true),
            (1, pod.as_str(), false),
            (2, "/default/demo", true),
        ]);
        assert_eq!(told, expected);
        for (_, cgroup) in &found {
            let mount = if cgroup.version == Version::V1 { "pids" } else { "unified" };
            let directory = root.path().join(mount).join(&cgroup.path[1..]);
            assert_eq!(cgroup.id, cgroup_id(&directory).expect("exists"));
        }
    }

    #[test]
    fn threads_are_those_of_the_cgroup_itself() {
        let (root, hierarchies) = hybrid(&["pids/demo/inner", "unified/demo"]);
        fs::write(root.path().join("pids/demo/tasks"), "7\n0\n9\n").expect("a file");
        fs::write(root.path().join("pids/demo/inner/tasks"), "11\n").expect("a file");
        fs::write(root.path().join("unified/demo/cgroup.threads"), "7\n8\n").expect("a file");
        let of = |version, path: &str| {
            hierarchies.threads_in(&Cgroup { version, path: path.to_owned(), id: 0 }).expect("readable")
        };
        assert_eq!(of(Version::V1, "/demo"), [7, 9]);
        assert_eq!(of(Version::V2, "/demo"), [7, 8]);
        assert_eq!(of(Version::V1, "/gone"), [0; 0]);
    }

    #[test]
    fn the_nearest_container_owns_what_is_nested() {
        let (_root, hierarchies) = hybrid(&["pids/a/outer/b/inner/leaf", "unified"]);
        let names = HashMap::from([("a/outer".to_owned(), "outer"), ("b/inner".to_owned(), "inner")]);
        let found: HashMap<String, &str> = hierarchies
            .find(&names)
            .expect("a walk")
            .into_iter()
            .map(|(value, cgroup)| (cgroup.path, *value))
            .collect();
        assert_eq!(found["/a/outer"], "outer");
        assert_eq!(found["/a/outer/b"], "outer");
        assert_eq!(found["/a/outer/b/inner"], "inner");
        assert_eq!(found["/a/outer/b/inner/leaf"], "inner");
    }

    #[test]
    fn a_missing_hierarchy_is_named() {
        let (root, hierarchies) = hybrid(&["pids"]);
        let error = hierarchies.find(&HashMap::<String, u8>::new()).expect_err("no unified").to_string();
        assert!(error.starts_with(&root.path().join("unified").display().to_string()), "{error}");
    }

    #[test]
    fn lines_of_a_process_are_sorted_by_hierarchy() {
        let (_root, hierarchies) = hybrid(&[]);
        let text = "9:name=systemd:/x\n8:pids:/default/demo\n4:memory:/y\n0::/default/a:b\n";
        let expected = [(Version::V1, "/default/demo".to_owned()), (Version::V2, "/default/a:b".to_owned())];
        assert_eq!(hierarchies.paths_in(text), expected);
    }

    #[test]
    fn this_process_is_somewhere_and_an_impossible_one_nowhere() {
        let hierarchies = Hierarchies::detect().expect("this machine has cgroups");
        let own = hierarchies.of_process(std::process::id()).expect("readable");
        assert!(!own.is_empty() && own.iter().all(|cgroup| cgroup.id != 0 && cgroup.path.starts_with('/')), "{own:?}");
        // Above the kernel's limit of pids.
        assert_eq!(hierarchies.of_process(4_194_305).expect("readable"), []);
    }
}
