//! Whether something may be done. Pure: what can't be decided here is a [`Question`].

mod pods;
mod policies;
mod rulesets;
mod templates;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use ringfence_api::GROUP;
use ringfence_policy::Diagnostic;

use crate::identity::Accounts;
use crate::pod::Pod;
use crate::review::{Answer, Operation, Request, ReviewError};
use crate::snapshot::Snapshot;

/// A decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is made.
    Answer(Answer),
    /// The pod's labels are of another moment than those known here. Another replica may be ahead: the answer stands if
    /// no newer snapshot changes it.
    Unless(Answer),
    /// Allowed if the answer is yes, else this.
    Ask(Question, Answer),
}

/// What only the API server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// May who asks lift the isolation of a pod?
    MayRelease {
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// Does a pod of our namespace run on this node?
    RunsOn {
        /// The pod's name.
        pod: String,
        /// The node's name.
        node: String,
    },
}

/// Decides. `snapshots` has the current one first, then those of the last seconds; it is never empty.
pub fn validate(
    request: &Request<'_>,
    snapshots: &[Arc<Snapshot>],
    accounts: &Accounts,
) -> Result<Verdict, ReviewError> {
    let current = &*snapshots[0];
    let resource = (request.resource.group.as_str(), request.resource.resource.as_str(), request.sub_resource.as_str());
    Ok(match resource {
        ("", "pods", "" | "ephemeralcontainers" | "status" | "resize") => match request.operation {
            Operation::Create => pods::create(request, snapshots)?,
            Operation::Update => pods::update(request, accounts)?,
            Operation::Delete => pods::delete(request, accounts)?,
            Operation::Connect => Verdict::Answer(Answer::allow()),
        },
        // Annotations of a binding become the pod's.
        ("", "pods", "binding") | ("", "bindings", "") => pods::bind(request, accounts)?,
        (GROUP, "runtimerulesets", "") => Verdict::Answer(rulesets::validate(request, current)?),
        (GROUP, "runtimepolicies", "") => Verdict::Answer(policies::validate(request, current)?),
        ("apps" | "batch" | "", _, "") if templates::has(&request.resource) => {
            Verdict::Answer(templates::validate(request)?)
        }
        _ => Verdict::Answer(Answer::warn(vec![not_ours(request)])),
    })
}

/// For what is sent here although nobody asked for it.
pub fn not_ours(request: &Request<'_>) -> String {
    format!("ringfence has nothing to say about {}: take it out of the webhook's rules", request.what())
}

fn new_pod(request: &Request<'_>) -> Result<Pod, ReviewError> {
    Pod::parse(request.new_text()?).map_err(|error| ReviewError::Object { part: "object", error })
}

fn old_pod(request: &Request<'_>) -> Result<Pod, ReviewError> {
    Pod::parse(request.old_text()?).map_err(|error| ReviewError::Object { part: "oldObject", error })
}

/// The name of an object that is being deleted: of a whole collection, each has it only in itself.
fn name(request: &Request<'_>) -> Result<String, ReviewError> {
    if request.name.is_empty() { Ok(old_pod(request)?.name) } else { Ok(request.name.clone()) }
}

/// So many faults of an object are told, ...
const FAULTS: usize = 20;
/// ... and of each so many characters: a user has to read them, and a condition of a status has room for 32,768 bytes.
const LENGTH: usize = 400;

/// What is wrong with an object, in one sentence.
pub(crate) fn faults(diagnostics: &[Diagnostic]) -> String {
    let fault = |diagnostic: &Diagnostic| {
        let Diagnostic { field, message, .. } = diagnostic;
        let fault = if field.is_empty() { message.clone() } else { format!("{field}: {message}") };
        match fault.char_indices().nth(LENGTH) {
            Some((end, _)) => format!("{}...", &fault[..end]),
            None => fault,
        }
    };
    let told: Vec<_> = diagnostics.iter().take(FAULTS).map(fault).collect();
    let more = diagnostics.len().saturating_sub(FAULTS);
    let rest = if more == 0 { String::new() } else { format!("; and {more} more") };
    told.join("; ") + &rest
}

/// Whether an update leaves `spec` alone: whatever is wrong with it was there before, and must not be in the way of
/// labels, finalizers and the like.
fn same_spec(request: &Request<'_>) -> Result<bool, ReviewError> {
    if request.operation != Operation::Update {
        return Ok(false);
    }
    let spec = |part, text: &str| {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|error| ReviewError::Object { part, error })?;
        Ok::<_, ReviewError>(object.get("spec").cloned())
    };
    Ok(spec("object", request.new_text()?)? == spec("oldObject", request.old_text()?)?)
}
