//! Rulesets.

use ringfence_policy::{Catalogue, Ruleset, Source, read};

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
        Ok(mut rulesets) => {
            rulesets.pop().and_then(|ruleset| crowded(ruleset, snapshot)).map_or_else(Answer::allow, Answer::invalid)
        }
        Err(diagnostics) => Answer::invalid(format!("ruleset '{}': {}", request.name, faults(&diagnostics.0))),
    })
}

/// Why nodes could not enforce it beside the others of the active policy: each different set of exceptions from a rule
/// takes room of its own in the kernel's tables.
fn crowded(ruleset: Ruleset, snapshot: &Snapshot) -> Option<String> {
    let name = ruleset.name.clone();
    let error = snapshot.enforced.with(ruleset).compile(Catalogue::builtin()).err()?;
    Some(format!("ruleset '{name}' beside the others of policy '{}': {error}", snapshot.index.active()))
}
