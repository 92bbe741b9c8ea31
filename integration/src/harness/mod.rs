//! A private little node: its own containerd and network, images made by hand, containers.
//!
//! Nothing of the machine is touched. containerd has its own root, state, socket and mount namespace; bridges and
//! addresses live in a network namespace of the node's own; containerd and what it starts sit in a cgroup of their own,
//! by which they are killed. What a run that was itself killed left behind, the next one sweeps away.

mod cgroup;
mod client;
mod cni;
mod container;
mod daemon;
mod image;
mod io;
mod netns;
mod node;
mod proof;
mod spec;
mod sweep;

pub use container::{Container, Output};
pub use image::Image;
pub use node::Node;
pub use proof::TESTS;
pub use spec::Spec;
