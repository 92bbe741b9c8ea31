//! The containers of one host: what runs, under which labels, in which cgroup.
//!
//! Two sources speak the same words: [`Containerd`] (events and metadata; sees a container before its task exists)
//! and [`Cri`] (for runtimes that have nothing better, such as CRI-O). [`Runtime`] is either.
//! Module [`cgroups`] is about the kernel's side of it: hierarchies, ids, and killing all of a cgroup.
//!
//! Order of the events of one container: [`ContainerEvent::Known`], then `Created`, `Started`, `Exited`, `Removed`.
//! A source that was away (the runtime restarted) makes up for what it missed before it says `Synced` again, so a
//! consumer that only follows the events is always right in the end. Nothing here knows of eBPF or rulesets.

pub mod cgroups;

mod backoff;
mod cgroup_name;
mod container;
mod containerd;
mod cri;
mod error;
mod runtime;
mod spec;
mod state;

pub use cgroup_name::{
    ANY_POD, MAX_CGROUP_NAME, cgroup_names, cgroup_names_of_path, container_id_in, pod_cgroup_names, pod_uid_in,
};
pub use container::{
    Container, ContainerEvent, ContainerKey, Kind, Member, NAMESPACE_NAME, POD_NAMESPACE, Pod, Replica,
};
pub use containerd::{CONTAINERD_SOCKET, Containerd, DEFAULT_NAMESPACES};
pub use cri::{CRI_NAMESPACE, Cri};
pub use error::Error;
pub use runtime::Runtime;
