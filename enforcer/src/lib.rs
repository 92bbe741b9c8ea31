//! The agent of a node.
//!
//! | module | what it is about |
//! |---|---|
//! | [`kernel`] | the eBPF object on this node: offsets, programs, maps, pins |
//! | [`agent`] | the task that owns it: containers, rulesets, records, mitigation that the kernel could not do |
//! | [`rulesets`], [`slots`], [`state`] | what the agent keeps |
//! | [`report`], [`output`] | from a record to a line that people read |
//! | [`control`] | answers `ringfence` |
//! | [`cluster`] | the API server: what is enforced, pods, and its part of a mitigation |
//! | [`mode`] | with a cluster or without one: wiring |
//! | [`uninstall`] | leaves nothing behind |
//! | [`args`], [`plan`] | the command line, and whether it can be followed |

pub mod agent;
pub mod args;
pub mod cluster;
pub mod control;
pub mod kernel;
pub mod mode;
pub mod output;
pub mod plan;
pub mod processes;
pub mod report;
pub mod rulesets;
pub mod slots;
pub mod state;
pub mod uninstall;
