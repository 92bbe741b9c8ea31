//! Templates that controllers make pods from. Our labels in them would be taken off every pod; where the selector asks
//! for them too, the controller would not know its own pods again and make new ones for ever.

use ringfence_api::names::is_ours;
use serde_json::Value;

use crate::review::{Answer, Operation, Request, Resource, ReviewError};

/// Kinds whose objects have templates of pods.
const KINDS: [&str; 7] =
    ["cronjobs", "daemonsets", "deployments", "jobs", "replicasets", "replicationcontrollers", "statefulsets"];

/// Where labels, annotations and selectors are.
const PLACES: [&str; 7] = [
    "spec.selector",
    "spec.selector.matchLabels",
    "spec.template.metadata.labels",
    "spec.template.metadata.annotations",
    "spec.jobTemplate.spec.selector.matchLabels",
    "spec.jobTemplate.spec.template.metadata.labels",
    "spec.jobTemplate.spec.template.metadata.annotations",
];

pub(super) fn has(resource: &Resource) -> bool {
    KINDS.contains(&resource.resource.as_str())
}

pub(super) fn validate(request: &Request<'_>) -> Result<Answer, ReviewError> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(Answer::allow());
    }
    let new = ours(request.new_text()?, "object")?;
    // What was there before Ringfence came does not get in the way of later changes.
    let old = match request.old_object {
        Some(_) => ours(request.old_text()?, "oldObject")?,
        None => Vec::new(),
    };
    let added: Vec<_> = new.into_iter().filter(|field| !old.contains(field)).collect();
    Ok(if added.is_empty() {
        Answer::allow()
    } else {
        Answer::forbid(format!(
            "{}: Ringfence writes these names on pods by itself; take them out here",
            added.join(", ")
        ))
    })
}

/// Fields whose name is ours.
fn ours(text: &str, part: &'static str) -> Result<Vec<String>, ReviewError> {
    let object: Value = serde_json::from_str(text).map_err(|error| ReviewError::Object { part, error })?;
    let mut fields = Vec::new();
    for place in PLACES {
        let map = place.split('.').try_fold(&object, |value, field| value.get(field)).and_then(Value::as_object);
        let keys = map.into_iter().flat_map(serde_json::Map::keys).filter(|key| is_ours(key));
        fields.extend(keys.map(|key| format!("{place}[{key}]")));
    }
    let expressions = object.pointer("/spec/selector/matchExpressions").and_then(Value::as_array);
    for (i, expression) in expressions.into_iter().flatten().enumerate() {
        if let Some(key) = expression.get("key").and_then(Value::as_str).filter(|key| is_ours(key)) {
            fields.push(format!("spec.selector.matchExpressions[{i}].key: {key}"));
        }
    }
    Ok(fields)
}
