//! The node itself under test, and crate `containers` on it. Nothing here needs an enforcer.

mod follower;
mod kill;
mod node;
mod pods;
mod watch;

use anyhow::Result;

use super::{Container, Image, Node, Spec};

/// A name and what is to hold.
type Test = (&'static str, fn() -> Result<()>);

/// They stand alone: each makes the node that it needs.
pub const TESTS: &[Test] = &[
    ("harness/streams-and-status", node::streams_and_status),
    ("harness/terminal-and-input", node::terminal_and_input),
    ("harness/root-is-overlay", node::root_is_overlay),
    ("harness/privileges", node::privileges),
    ("harness/bridge", node::bridge),
    ("harness/point-to-point", node::point_to_point),
    ("harness/host-network", node::host_network),
    ("harness/nothing-is-left", node::nothing_is_left),
    ("harness/nothing-is-left-after-a-panic", node::nothing_is_left_after_a_panic),
    ("harness/stale-remains-are-swept", node::stale_remains_are_swept),
    ("containers/a-life-in-order", watch::a_life_in_order),
    ("containers/what-runs-already", watch::what_runs_already),
    ("containers/known-before-it-runs", watch::known_before_it_runs),
    ("containers/labels-change", watch::labels_change),
    ("containers/other-namespaces-are-not-told", watch::other_namespaces_are_not_told),
    ("containers/containerd-crashes", watch::containerd_crashes),
    ("containers/stop", kill::stop),
    ("containers/cgroups-are-found", kill::cgroups_are_found),
    ("containers/kill-all", kill::kill_all),
    ("containers/kill-all-outruns-forks", kill::kill_all_outruns_forks),
    ("containers/pods-by-containerd", pods::by_containerd),
    ("containers/pods-by-cri", pods::by_cri),
];

const IMAGE: &str = "localhost/busybox:1";

/// A node that has a busybox.
fn node_with_image() -> Result<Node> {
    let node = Node::start()?;
    node.import(&Image::busybox(IMAGE))?;
    Ok(node)
}

/// A container that stays.
fn sleeper() -> Spec {
    Spec::new(IMAGE, ["sleep", "600"])
}

/// Whether a process is there and not merely waiting for its parent to notice its end.
fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z") && !rest.starts_with(" X"))
}

/// The pids in a container's cgroup, of every hierarchy.
fn pids(container: &Container) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for directory in container.cgroup_directories()? {
        let text = std::fs::read_to_string(directory.join("cgroup.procs"))?;
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}
