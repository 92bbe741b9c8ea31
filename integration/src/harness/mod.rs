//! A private little node: its own containerd and network, images made by hand, containers.
//!
//! Nothing of the machine is touched. containerd has its own root, state, socket and mount namespace; bridges and
//! addresses live in a network namespace of the node's own; containerd and what it starts sit in a cgroup of their own,
//! by which they are killed. What a run that was itself killed left behind, the next one sweeps away.

pub mod cgroup;
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

pub use client::Client;
pub use cni::{Network, PLUGINS as CNI_PLUGINS, PREFIX4, Plugin, Stack, loopback_up};
pub use container::{Container, Output};
pub use daemon::SANDBOX_IMAGE;
pub use image::{BUSYBOX, Image};
pub use netns::Netns;
pub use node::{Node, POD_NAMESPACE};
pub use proof::TESTS;
pub use spec::Spec;
