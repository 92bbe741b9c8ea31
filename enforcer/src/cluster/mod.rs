//! The agent's ear and mouth in a cluster.
//!
//! | module | what it is about |
//! |---|---|
//! | [`watch`] | objects at the API server, for ever |
//! | [`objects`] | rulesets, policies and namespaces: what the cluster enforces |
//! | [`pods`] | pods of this node, put together from the API server's word and the runtime's |
//! | [`listing`] | what a list at the API server says is gone |
//! | [`memory`] | what was told, for an enforcer that starts while nobody answers |
//! | [`ear`] | the task that hears all of them and tells the agent |
//! | [`mouth`] | the task that does the API server's part of a mitigation |
//! | [`reporter`] | the task that tells the cluster what the node has to report |
//! | [`removal`] | whether an end is for good |

pub mod ear;
pub mod listing;
pub mod memory;
pub mod mouth;
pub mod objects;
pub mod pods;
pub mod removal;
pub mod reporter;
pub mod watch;
