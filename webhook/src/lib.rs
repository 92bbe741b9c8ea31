//! Ringfence's side of the API server: which rulesets govern a pod is decided and written on it at admission, nobody
//! else may write it, and rulesets and policies are checked whole.
//!
//! The way of a request: [`server`] receives it, [`review`] reads it, [`mutate`] or [`validate`] decides over it and a
//! [`Snapshot`] (both pure), [`ask`] answers what a decision leaves open. Snapshots come from watches ([`state`]).
//! Beside that run, on one replica at a time ([`lease`]): [`reconcile`], which labels pods that exist already and writes
//! statuses, and [`authority`], which keeps the certificates.

pub mod arguments;
pub mod ask;
pub mod authority;
pub mod certificate;
pub mod health;
pub mod identity;
pub mod labels;
pub mod lease;
pub mod metrics;
pub mod mutate;
pub mod pod;
pub mod reconcile;
pub mod review;
pub mod server;
pub mod snapshot;
pub mod state;
pub mod validate;

pub use snapshot::Snapshot;
