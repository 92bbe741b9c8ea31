//! The Kubernetes API of Ringfence: custom resources, and the contract of labels, annotations and events ([`names`]).
//!
//! Types only, no I/O. What a schema can say about a value it says here, for the API server to check; what it can't say
//! (an unknown rule, a ruleset that does not exist) is checked by the webhook with crate `ringfence-policy`.

// Columns of `kubectl get` share types: the lint takes them for repetitions.
#![allow(clippy::duplicated_attributes)]

mod crd;
mod mitigation;
pub mod names;
mod policy;
mod report;
mod ruleset;
mod selector;
mod status;
mod workload;

pub use crd::{CrdFile, crds};
pub use mitigation::{Mitigation, UnknownMitigation};
pub use policy::{
    Exception, IsolationSpec, LimitsSpec, Ports, Protocol, RuntimePolicy, RuntimePolicySpec, RuntimePolicyStatus,
};
pub use report::{NodeReport, Reported};
pub use ruleset::{RuleEntry, RuleException, RuntimeRuleset, RuntimeRulesetSpec, RuntimeRulesetStatus};
pub use selector::{LabelSelector, LabelSelectorOperator, LabelSelectorRequirement, LabelValue};
pub use status::{Condition, ConditionType, NodeFailure, Violations};
pub use workload::Workload;

/// API group of both kinds.
pub const GROUP: &str = "ringfence.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// Both, as `apiVersion` has it.
pub const API_VERSION: &str = "ringfence.dev/v1alpha1";
/// Longest name of a ruleset, in bytes: it becomes the name part of a label key.
pub const RULESET_NAME: usize = 63;
