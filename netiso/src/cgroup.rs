//! Programs at the sockets of a cgroup and of all cgroups below it.

use crate::Error;
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType,
    links::{FdLink, LinkError},
};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use std::{fs, fs::File, io, path::Path};

/// Attaches `program` to `cgroup` and pins the link at `pin`. What was pinned there before is let go only then: for a
/// moment both lie on the way, never none.
pub(crate) fn attach(
    name: &'static str,
    program: &mut CgroupSkb,
    direction: CgroupSkbAttachType,
    cgroup: &Path,
    pin: &Path,
) -> Result<(), Error> {
    let directory = open(cgroup)?;
    let attached = |source| Error::Attach { program: name, to: cgroup.display().to_string(), source };
    // A link is "multi" by itself; the kernel takes no flags besides (EINVAL).
    let id = program.attach(&directory, direction, CgroupAttachMode::Single).map_err(attached)?;
    let link = program.take_link(id).map_err(attached)?;
    let link: FdLink = link.try_into().map_err(|error: LinkError| attached(io::Error::other(error).into()))?;

    let pinned = |source| Error::Pin { path: pin.to_owned(), source };
    // A bpf file system allows no dots in names.
    let mut fresh = pin.as_os_str().to_owned();
    fresh.push("-new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(pinned(error)),
        _ => {}
    }
    link.pin(&fresh).map_err(|error| pinned(io::Error::other(error)))?;
    fs::rename(&fresh, pin).map_err(pinned)
}

fn open(cgroup: &Path) -> Result<File, Error> {
    let failed = |source| Error::Cgroup { path: cgroup.to_owned(), source };
    let directory = File::open(cgroup).map_err(failed)?;
    let file_system = fstatfs(&directory).map_err(|errno| failed(errno.into()))?;
    if file_system.filesystem_type() != CGROUP2_SUPER_MAGIC {
        return Err(Error::NotCgroup2(cgroup.to_owned()));
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cgroup_v2_directory_will_do() {
        let error = open(Path::new("/proc")).unwrap_err().to_string();
        assert_eq!(error, "/proc is not a directory of a cgroup v2 hierarchy");
        let error = open(Path::new("/proc/no-such-cgroup")).unwrap_err().to_string();
        assert!(error.starts_with("cgroup /proc/no-such-cgroup: No such file"), "{error}");
    }
}
