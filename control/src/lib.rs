//! What the enforcer and its clients say to each other: violations, the node's status, and the
//! protocol on the enforcer's Unix socket. Loads no eBPF program, and knows nothing of containerd or Kubernetes.
//!
//! Invariants:
//! - Whatever an attacker may have made (paths, arguments, names) is an [`Escaped`] from the moment it
//!   enters this crate's types, so no consumer can forget to escape it.
//! - A message is one line of JSON; a violation in the log is the same JSON as on the socket.
//! - Only root (or the user the enforcer itself runs as) is answered.

mod client;
mod escape;
mod explain;
mod feed;
mod line;
mod listen;
mod message;
pub mod render;
mod sentence;
mod serve;
pub mod sources;
mod status;
mod tier;
mod violation;

pub use client::{Client, ClientError, Events, Next};
pub use escape::{Escaped, Malformed, printable};
pub use explain::{Explanation, GoverningRuleset, ResolvedRule};
pub use feed::{Feed, Subscription};
pub use listen::{ListenError, Listener};
pub use message::{EventFilter, MAX_REQUEST, Request, Response};
pub use sentence::sentence;
pub use serve::{Handler, Refusal, serve};
pub use status::{
    CandidatesStatus, ClassStatus, ContainerStatus, DatapathStatus, Isolation, RuleStatus, RulesetsStatus, Status,
};
pub use tier::Tier;
pub use violation::{Done, Held, Parent, Process, User, Violation};

/// Where the enforcer listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ringfence/enforcer.sock";
