//! Pods that are being created get our labels, whatever labels of ours they came with.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation};
use ringfence_api::names::is_ours;
use ringfence_policy::Labels;
use serde_json::{Value, json};

use crate::pod::Pod;
use crate::review::{Answer, Request, ReviewError};
use crate::snapshot::Snapshot;

/// The answer to the request to create a pod. Of a namespace that nobody knows: what is ours is taken off, and the
/// reconciler looks again.
pub fn answer(request: &Request<'_>, snapshot: &Snapshot) -> Result<Answer, ReviewError> {
    let pod = Pod::parse(request.new_text()?).map_err(|error| ReviewError::Object { part: "object", error })?;
    let ours = snapshot.labels_of(&request.namespace, &pod).unwrap_or_default();
    Ok(Answer { patch: patch(&pod, &ours), ..Answer::default() })
}

/// What makes of a new pod one that bears exactly these labels of ours, and no annotation.
pub fn patch(pod: &Pod, ours: &Labels) -> Patch {
    let mut operations = Vec::new();
    let wrong = |(key, _): &(&String, &String)| is_ours(key) && !ours.contains_key(*key);
    for (key, _) in pod.labels.iter().filter(wrong) {
        operations.push(remove(["metadata", "labels", key]));
    }
    for (key, _) in pod.annotations.iter().filter(|(key, _)| is_ours(key)) {
        operations.push(remove(["metadata", "annotations", key]));
    }
    if pod.without_labels && !ours.is_empty() {
        operations.push(add(["metadata", "labels"], json!({})));
    }
    for (key, value) in ours.iter().filter(|(key, value)| pod.labels.get(*key) != Some(value)) {
        operations.push(add(["metadata", "labels", key], json!(value)));
    }
    Patch(operations)
}

fn add<'a>(path: impl IntoIterator<Item = &'a str>, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path), value })
}

fn remove<'a>(path: impl IntoIterator<Item = &'a str>) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path: PointerBuf::from_tokens(path) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use ringfence_api::names::{HASH_LABEL, ISOLATED_LABEL, POLICY_LABEL, ruleset_label};

    use super::*;
    use crate::labels;

    fn snapshot() -> Snapshot {
        crate::validate::tests::snapshot()
    }

    /// Keys of ours and of others, right and forged.
    fn key() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("app".to_owned()),
            Just("a~b/c~1".to_owned()),
            Just(HASH_LABEL.to_owned()),
            Just(POLICY_LABEL.to_owned()),
            Just(ISOLATED_LABEL.to_owned()),
            Just(ruleset_label("web")),
            Just(ruleset_label("gone")),
            Just("x.ringfence.dev/any".to_owned()),
            Just("ringfence.dev/spare-replicas".to_owned()),
            "[a-z]{1,4}",
        ]
    }

    fn map() -> impl Strategy<Value = Option<BTreeMap<String, String>>> {
        proptest::option::of(proptest::collection::btree_map(
            key(),
            prop_oneof![Just("web".to_owned()), "[a-z0-9]{0,3}"],
            0..8,
        ))
    }

    proptest! {
        #[test]
        fn a_pod_gets_exactly_its_labels(labels in map(), annotations in map(), namespace in "shop|prod|kube-system") {
            let mut metadata = json!({"generateName": "x-"});
            if let Some(labels) = &labels { metadata["labels"] = json!(labels); }
            if let Some(annotations) = &annotations { metadata["annotations"] = json!(annotations); }
            let mut object = json!({"metadata": metadata, "spec": {}});
            let snapshot = snapshot();
            let parse = |object: &Value| Pod::parse(&object.to_string()).unwrap();
            let pod = parse(&object);
            let ours = snapshot.labels_of(&namespace, &pod).unwrap();

            json_patch::patch(&mut object, &patch(&pod, &ours)).unwrap();
            let after = parse(&object);
            let (is, was) = (labels::foreign(&after.labels), labels::foreign(&pod.labels));
            prop_assert_eq!(is, was, "labels of others stay");
            let is: Labels = after.labels.iter().filter(|(key, _)| is_ours(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(&is, &ours);
            prop_assert!(!after.annotations.keys().any(|key| is_ours(key)));
            if namespace == "kube-system" { prop_assert!(ours.is_empty()); } else { prop_assert!(ours.contains_key(HASH_LABEL)); }
            // Once more: nothing to do.
            prop_assert_eq!(&snapshot.labels_of(&namespace, &after).unwrap(), &ours);
            prop_assert!(patch(&after, &ours).is_empty());
        }
    }
}
