//! Which hierarchies there are, and which of them tells containers apart.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Error;

/// How cgroups are set up on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// cgroup v2 alone.
    Unified,
    /// v1 controllers, and a v2 hierarchy beside them.
    Hybrid,
    /// v1 controllers alone.
    Legacy,
}

/// The v1 hierarchy by which containers are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1 {
    /// `pids`, else `memory`: every runtime puts containers into these, and no one moves between their cgroups.
    pub controller: &'static str,
    /// Where it is mounted.
    pub mount: PathBuf,
}

/// The cgroup hierarchies of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    mode: Mode,
    v2: Option<PathBuf>,
    v1: Option<V1>,
    freezer: Option<PathBuf>,
}

impl Hierarchies {
    /// Looks at the mounts of this process.
    pub fn detect() -> Result<Self, Error> {
        let path = PathBuf::from("/proc/self/mountinfo");
        match fs::read_to_string(&path) {
            Ok(mountinfo) => Self::parse(&mountinfo).ok_or(Error::NoHierarchy(path)),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// Reads `/proc/PID/mountinfo`; `None` if it shows nothing to tell containers apart by.
    pub fn parse(mountinfo: &str) -> Option<Self> {
        let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
        let v1_mount = |controller: &str| {
            mounts
                .iter()
                .find(|mount| mount.kind == "cgroup" && mount.options.split(',').any(|option| option == controller))
        };
        let v1 = ["pids", "memory"]
            .into_iter()
            .find_map(|controller| v1_mount(controller).map(|mount| V1 { controller, mount: mount.point.clone() }));
        let v2 = mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.point.clone());
        let mode = match (&v1, &v2) {
            (Some(_), Some(_)) => Mode::Hybrid,
            (Some(_), None) => Mode::Legacy,
            (None, Some(_)) => Mode::Unified,
            (None, None) => return None,
        };
        let freezer = v1_mount("freezer").map(|mount| mount.point.clone());
        Some(Self { mode, v2, v1, freezer })
    }

    /// The set-up.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Mount point of the v2 hierarchy.
    pub fn v2(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    /// The v1 hierarchy by which containers are told apart; `None` in [`Mode::Unified`].
    pub fn v1(&self) -> Option<&V1> {
        self.v1.as_ref()
    }

    /// Mount point of the v1 freezer.
    pub fn freezer(&self) -> Option<&Path> {
        self.freezer.as_deref()
    }
}

/// A line of mountinfo: proc(5).
struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, _source, options) = (after.next()?, after.next()?, after.next()?);
        // A bind mount of some cgroup (in a container: its own) is not the hierarchy.
        (root == "/").then(|| Self { point: unescape(point), kind, options })
    }
}

/// Spaces, tabs, newlines and backslashes are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if let Some(byte) = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            plain.push(char::from(byte));
            plain.push_str(&part[3..]);
        } else {
            plain.push('\\');
            plain.push_str(part);
        }
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TMPFS: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n";
    const V2_BESIDE: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    fn v1(name: &str) -> String {
        format!("39 31 0:36 / /sys/fs/cgroup/{name} rw,relatime shared:9 - cgroup cgroup rw,{name}\n")
    }

    #[test]
    fn unified_is_cgroup2_alone() {
        let found =
            Hierarchies::parse("30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
        let found = found.expect("a hierarchy");
        assert_eq!((found.mode(), found.v2(), found.v1()), (Mode::Unified, Some(Path::new("/sys/fs/cgroup")), None));
    }

    #[test]
    fn hybrid_is_told_apart_by_pids() {
        let text = [TMPFS, &v1("memory"), &v1("freezer"), &v1("pids"), V2_BESIDE].concat();
        let found = Hierarchies::parse(&text).expect("a hierarchy");
        assert_eq!((found.mode(), found.v2()), (Mode::Hybrid, Some(Path::new("/sys/fs/cgroup/unified"))));
        assert_eq!(found.v1(), Some(&V1 { controller: "pids", mount: "/sys/fs/cgroup/pids".into() }));
        assert_eq!(found.freezer(), Some(Path::new("/sys/fs/cgroup/freezer")));
    }

    #[test]
    fn legacy_without_pids_is_told_apart_by_memory() {
        let joint = "39 31 0:36 / /sys/fs/cgroup/cpu,memory rw - cgroup cgroup rw,cpu,memory\n";
        let found = Hierarchies::parse(&[TMPFS, joint].concat()).expect("a hierarchy");
        assert_eq!((found.mode(), found.v2(), found.freezer()), (Mode::Legacy, None, None));
        assert_eq!(
            found.v1().map(|v1| (v1.controller, v1.mount.as_path())),
            Some(("memory", Path::new("/sys/fs/cgroup/cpu,memory")))
        );
    }

    #[test]
    fn systemds_named_hierarchy_beside_v2_is_no_controller() {
        let named = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        assert_eq!(Hierarchies::parse(&[named, V2_BESIDE].concat()).map(|found| found.mode()), Some(Mode::Unified));
        assert_eq!(Hierarchies::parse(named), None);
    }

    #[test]
    fn a_containers_own_cgroup_is_not_the_hierarchy() {
        assert_eq!(Hierarchies::parse("30 23 0:26 /../.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n"), None);
    }

    #[test]
    fn escaped_mount_points_are_read() {
        let found = Hierarchies::parse("30 23 0:26 / /a\\040b\\134c rw - cgroup2 cgroup2 rw\n").expect("a hierarchy");
        assert_eq!(found.v2(), Some(Path::new("/a b\\c")));
    }
}
