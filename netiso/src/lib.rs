//! Network isolation of pods.
//!
//! This crate knows slots, network namespaces, interfaces and cgroups. It knows nothing of Kubernetes, of rulesets or
//! of containers. The programs that drop the packets are the enforcer's (`enforcer-ebpf/src/datapath.rs`); here they
//! are put into every place that a pod's packets pass, before anything happens, and stay there when we die.
//!
//! | module | its question |
//! |---|---|
//! | [`Switch`] | is this slot isolated? Isolate it, release it |
//! | [`Datapaths`] | which programs lie on this slot's way to the network? Put them there, keep them there |
//! | `veth` | which interfaces of the node does a network namespace hang on? |
//! | `classifier`, `cgroup` | how is a program attached, so that it outlives us and can be exchanged without a gap? |
//! | [`Watch`] | what changed on the node's interfaces and addresses? |
//! | [`leftovers`], [`uninstall`] | what of all that is still on the system? |
//!
//! ```no_run
//! # async fn example(ebpf: &mut aya::Ebpf) -> Result<(), ringfence_netiso::Error> {
//! use ringfence_netiso::{Netns, Options, Watch};
//! let (mut switch, mut datapaths) =
//!     ringfence_netiso::open(ebpf, "/sys/fs/bpf/ringfence/net".as_ref(), Options::default()).await?;
//! datapaths.cover_cgroups("/sys/fs/cgroup".as_ref())?;
//! println!("slot 7: {}", datapaths.arm(7, Netns::of_pid(4711)?).await?);
//! switch.isolate(7)?;
//!
//! let mut watch = Watch::start()?;
//! while let Some(change) = watch.next().await {
//!     for slot in datapaths.apply(change).await? {
//!         println!("slot {slot}: {}", datapaths.coverage(slot).unwrap());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod cgroup;
mod classifier;
mod clsact;
mod coverage;
mod datapaths;
mod error;
mod leftovers;
mod link;
mod netns;
mod network;
mod program;
mod switch;
mod veth;
mod watch;

pub use classifier::Hook;
pub use coverage::{Armed, Coverage, Gap};
pub use datapaths::{Datapaths, Options, open};
pub use error::Error;
pub use leftovers::{Keep, leftovers, uninstall};
pub use netns::Netns;
pub use switch::Switch;
pub use watch::{Change, Watch};
