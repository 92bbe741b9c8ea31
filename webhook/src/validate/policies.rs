//! Policies.

use ringfence_policy::{Catalogue, Policy, Source, nearest, read_policy};

use super::{faults, name, same_spec};
use crate::review::{Answer, Operation, Request, ReviewError};
use crate::snapshot::Snapshot;

pub(super) fn validate(request: &Request<'_>, snapshot: &Snapshot) -> Result<Answer, ReviewError> {
    if request.operation == Operation::Delete {
        let name = name(request)?;
        return Ok(if name == snapshot.index.active() {
            Answer::conflict(format!("policy '{name}' is the active one, so it stays: make another one active first"))
        } else {
            Answer::allow()
        });
    }
    if same_spec(request)? {
        return Ok(Answer::allow());
    }
    let source = Source { name: "object".to_owned(), text: request.new_text()?.to_owned() };
    Ok(match read_policy(&source) {
        Ok(policy) => {
            crowded(&policy, snapshot).map_or_else(|| Answer::warn(missing(&policy, snapshot)), Answer::invalid)
        }
        Err(diagnostics) => Answer::invalid(format!("policy '{}': {}", request.name, faults(&diagnostics.0))),
    })
}

/// Why nodes could not enforce the rulesets that it names beside one another.
fn crowded(policy: &Policy, snapshot: &Snapshot) -> Option<String> {
    let error = snapshot.index.under(Some(policy)).compile(Catalogue::builtin()).err()?;
    Some(format!("policy '{}': spec.rulesets: they do not fit beside one another: {error}", policy.name))
}

/// Warnings about rulesets that do not exist. They may be about to: files of a folder are applied in any order.
fn missing(policy: &Policy, snapshot: &Snapshot) -> Vec<String> {
    let rulesets = snapshot.index.rulesets();
    let warning = |name: &String| {
        let near = nearest(name, rulesets.keys().map(String::as_str));
        let hint = near.map_or_else(String::new, |near| format!(", did you mean '{near}'?"));
        format!("spec.rulesets: there is no ruleset '{name}' (yet){hint}")
    };
    policy.rulesets.iter().filter(|name| !rulesets.contains_key(*name)).map(warning).collect()
}
