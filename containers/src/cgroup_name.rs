//! By which name a container's cgroup will be recognised when it is made.

use crate::{Container, Kind};

/// Longest name, in bytes: what the kernel side compares.
pub const MAX_CGROUP_NAME: usize = 160;

/// The name that stands for the cgroup of any pod which has no name of its own here.
pub const ANY_POD: &str = "*";

/// The possible ends of the path of a container's cgroup: see [`cgroup_names_of_path`]; of a pod's: see
/// [`pod_cgroup_names`].
pub fn cgroup_names(container: &Container) -> Vec<String> {
    if container.kind == Kind::Pod {
        return pod_cgroup_names(&container.key.id);
    }
    if container.cgroups_path.is_empty() {
        // runc and crun then make a cgroup named after the container, below their own.
        return cgroup_names_of_path(&format!("/{}", container.key.id));
    }
    cgroup_names_of_path(&container.cgroups_path)
}

/// The possible names of the cgroup that the kubelet makes for a pod: `podUID` with the cgroupfs driver, a slice with the
/// systemd driver, below the kubelet's own one where it has one (kind). [`ANY_POD`] stands for itself.
pub fn pod_cgroup_names(uid: &str) -> Vec<String> {
    if uid == ANY_POD {
        return vec![ANY_POD.to_owned()];
    }
    // Dashes separate the levels of slices.
    let escaped = uid.replace('-', "_");
    let slices = ["", "kubelet-"].into_iter().flat_map(|above| {
        let escaped = &escaped;
        ["", "burstable-", "besteffort-"].map(move |class| format!("{above}kubepods-{class}pod{escaped}.slice"))
    });
    [format!("pod{uid}")].into_iter().chain(slices).filter(|name| name.len() <= MAX_CGROUP_NAME).collect()
}

/// The UID of the pod whose cgroup has this name: see [`pod_cgroup_names`]. Of a static pod it is the hash of its file.
pub fn pod_uid_in(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => name.strip_prefix("pod")?.to_owned(),
    };
    (!uid.is_empty()).then_some(uid)
}

/// The possible ends of the path of the cgroup that a runtime makes for an OCI spec's `linux.cgroupsPath`:
/// the last component, or the last two joined by `/`; without a leading slash, at most [`MAX_CGROUP_NAME`] bytes.
///
/// - `/kubepods/burstable/podUID/<64 hex digits>` gives the id alone, which nobody else has.
/// - `/default/demo` gives `default/demo`: `demo` alone may be the name of several.
/// - `slice:prefix:name` (systemd) gives `prefix-name.scope`. If the prefix is empty, runc and crun disagree about the
///   dash; if the name is a slice, runc takes it as it is.
///
/// Empty if the path ends in nothing that could be compared: then only a walk of the cgroup tree finds it.
pub fn cgroup_names_of_path(cgroups_path: &str) -> Vec<String> {
    let names = match systemd_parts(cgroups_path) {
        Some((_, name)) if has_extension(name, "slice") => vec![name.to_owned()],
        Some(("", name)) => vec![format!("{name}.scope"), format!("-{name}.scope")],
        Some((prefix, name)) => vec![format!("{prefix}-{name}.scope")],
        None => path_end(cgroups_path).into_iter().collect(),
    };
    names.into_iter().filter(|name| name.len() <= MAX_CGROUP_NAME).collect()
}

/// Prefix and name of `slice:prefix:name`.
fn systemd_parts(cgroups_path: &str) -> Option<(&str, &str)> {
    if cgroups_path.starts_with('/') {
        return None;
    }
    let mut parts = cgroups_path.split(':');
    let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
    let plausible = parts.next().is_none() && !name.is_empty() && (slice.is_empty() || has_extension(slice, "slice"));
    (plausible && ![prefix, name].iter().any(|part| part.contains('/'))).then_some((prefix, name))
}

fn has_extension(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, found)| found == extension)
}

fn path_end(path: &str) -> Option<String> {
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            // As runc cleans it: above the root is the root.
            ".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    let last = *components.last()?;
    if is_container_id(last) || components.len() == 1 {
        return Some(last.to_owned());
    }
    Some(components[components.len() - 2..].join("/"))
}

/// The id of the container whose cgroup lies on a path: `/kubepods/podUID/<id>`, `.../cri-containerd-<id>.scope`.
pub fn container_id_in(path: &str) -> Option<&str> {
    path.split('/').find_map(|name| {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        let id = name.rsplit_once('-').map_or(name, |(_, id)| id);
        is_container_id(id).then_some(id)
    })
}

/// Whether a name is one that Docker, CRI and podman make up: 64 hex digits.
fn is_container_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4f0c8d2b6a1e3957f0c8d2b6a1e39574f0c8d2b6a1e3957f0c8d2b6a1e395700";

    fn names(path: &str) -> Vec<String> {
        cgroup_names_of_path(path)
    }

    #[test]
    fn a_pods_name_says_its_uid() {
        let uid = "3c866514-c377-4c56-9bd8-fa5ebb4622b6";
        for name in pod_cgroup_names(uid) {
            assert_eq!(pod_uid_in(&name).as_deref(), Some(uid), "{name}");
        }
        for other in ["pod", "kubepods.slice", "kubepods-burstable.slice", ANY_POD, ""] {
            assert_eq!(pod_uid_in(other), None, "{other}");
        }
    }

    #[test]
    fn an_id_stands_for_itself() {
        assert_eq!(names(&format!("/kubepods/burstable/pod1-2/{ID}")), [ID]);
        assert_eq!(names(&format!("/docker/{ID}")), [ID]);
        assert_eq!(names(ID), [ID]);
    }

    #[test]
    fn a_pod_has_a_name_for_each_driver() {
        let names = pod_cgroup_names("0a-1b");
        for name in ["pod0a-1b", "kubepods-pod0a_1b.slice", "kubelet-kubepods-besteffort-pod0a_1b.slice"] {
            assert!(names.contains(&name.to_owned()), "{names:?}");
        }
        assert_eq!(pod_cgroup_names(ANY_POD), [ANY_POD]);
    }

    #[test]
    fn the_container_on_a_path() {
        assert_eq!(container_id_in(&format!("/kubepods/burstable/pod1-2/{ID}/nested")), Some(ID));
        assert_eq!(
            container_id_in(&format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope")),
            Some(ID)
        );
        assert_eq!(container_id_in("/kubepods/burstable/pod1-2"), None);
    }

    #[test]
    fn a_chosen_name_needs_its_parent() {
        assert_eq!(names("/default/demo"), ["default/demo"]);
        assert_eq!(names("a/b/demo/"), ["b/demo"]);
        assert_eq!(names("/demo"), ["demo"]);
        // Almost an id, and an id in capitals, are chosen names.
        assert_eq!(names(&format!("/default/{}", &ID[1..])), [format!("default/{}", &ID[1..])]);
        assert_eq!(names(&format!("/default/{}", ID.to_uppercase())), [format!("default/{}", ID.to_uppercase())]);
    }

    #[test]
    fn dots_are_cleaned_as_runc_does() {
        assert_eq!(names("/a/../b/./c"), ["b/c"]);
        assert_eq!(names("../../x//y"), ["x/y"]);
    }

    #[test]
    fn systemd_form_becomes_a_scope() {
        assert_eq!(names(&format!("kubepods-pod1.slice:cri-containerd:{ID}")), [format!("cri-containerd-{ID}.scope")]);
        assert_eq!(names("system.slice:docker:web"), ["docker-web.scope"]);
        assert_eq!(names(":docker:web"), ["docker-web.scope"]);
        assert_eq!(names("system.slice::web"), ["web.scope", "-web.scope"]);
        assert_eq!(names("system.slice:x:web.slice"), ["web.slice"]);
    }

    #[test]
    fn colons_alone_do_not_make_it_systemd() {
        assert_eq!(names("/a:b:c"), ["a:b:c"]);
        assert_eq!(names("x/a:b:c"), ["x/a:b:c"]);
        assert_eq!(names("a:b"), ["a:b"]);
        assert_eq!(names("system.slice:docker:"), ["system.slice:docker:"]);
    }

    #[test]
    fn nothing_comparable_gives_nothing() {
        for path in ["", "/", "/..", "//./"] {
            assert!(names(path).is_empty(), "{path}");
        }
        assert!(names(&format!("/default/{}", "x".repeat(160))).is_empty());
        assert_eq!(names(&format!("/d/{}", "x".repeat(158))), [format!("d/{}", "x".repeat(158))]);
    }

    proptest! {
        #[test]
        fn any_text_gives_short_relative_names(path in "\\PC*") {
            for name in names(&path) {
                prop_assert!(!name.is_empty() && name.len() <= MAX_CGROUP_NAME);
                prop_assert!(!name.starts_with('/') && !name.ends_with('/') && name.matches('/').count() <= 1);
            }
        }

        #[test]
        fn a_clean_path_ends_in_its_name(components in proptest::collection::vec("[a-z0-9][a-z0-9_.-]{0,30}[a-z0-9]", 1..6)) {
            let path = format!("/{}", components.join("/"));
            let found = names(&path);
            prop_assert_eq!(found.len(), 1);
            let with_slash = format!("/{}", found[0]);
            prop_assert!(path.ends_with(&with_slash));
        }

        #[test]
        fn an_id_is_found_below_any_parent(parent in "(/[a-z.-]{1,20}){0,5}", id in "[0-9a-f]{64}") {
            let path = format!("{parent}/{id}");
            prop_assert_eq!(names(&path), [id]);
        }

        #[test]
        fn any_scope_is_prefix_dash_name(slice in "([a-z-]{1,20}\\.slice)?", prefix in "[a-z-]{1,20}", name in "[a-z0-9_-]{1,64}") {
            let path = format!("{slice}:{prefix}:{name}");
            prop_assert_eq!(names(&path), [format!("{prefix}-{name}.scope")]);
        }
    }
}
