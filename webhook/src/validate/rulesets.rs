//! Rulesets.

use ringfence_policy::{Catalogue, Source, read};

use super::{faults, name, same_spec};
use crate::review::{Answer, Operation, Request, ReviewError};
use crate::snapshot::Snapshot;

pub(super) fn validate(request: &Request<'_>, snapshot: &Snapshot) -> Result<Answer, ReviewError> {
    if request.operation == Operation::Delete {
        let name = name(request)?;
        let policies = snapshot.policies_with(&name);
        return Ok(if policies.is_empty() {
            Answer::allow()
        } else {
            let policies = policies.iter().map(|policy| format!("'{policy}'")).collect::<Vec<_>>().join(", ");
            Answer::conflict(format!(
                "ruleset '{name}' is in use, so it stays: take '{name}' out of spec.rulesets of policy {policies} first"
            ))
        });
    }
    if same_spec(request)? {
        return Ok(Answer::allow());
    }
    let source = Source { name: "object".to_owned(), text: request.new_text()?.to_owned() };
    Ok(match read(&[source], Catalogue::builtin()) {
        Ok(_) => Answer::allow(),
        Err(diagnostics) => Answer::invalid(format!("ruleset '{}': {}", request.name, faults(&diagnostics.0))),
    })
}
