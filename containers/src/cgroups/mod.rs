//! The kernel's side of containers: cgroup hierarchies, ids of cgroups, and killing all that is in one.
//!
//! Three set-ups exist. *Unified*: one cgroup v2 hierarchy. *Legacy*: only v1 hierarchies. *Hybrid*: v1 hierarchies, and a
//! v2 one beside them that runtimes may or may not use. Everything here works below the mount points that
//! `/proc/self/mountinfo` shows and changes no mount.

mod hierarchy;
mod kill;
mod tree;

pub use hierarchy::{Hierarchies, Mode, V1};
pub use tree::{Cgroup, Version, cgroup_id};
