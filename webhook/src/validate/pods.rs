//! Pods: nobody but our own service accounts writes our labels and annotations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringfence_api::names::{POLICY_LABEL, REPORT_ANNOTATION, is_ours};
use ringfence_policy::Labels;
use serde_json::{Map, Value};

use super::{Question, Verdict, new_pod, old_pod};
use crate::identity::{Accounts, Bound, Caller, is_kubelet};
use crate::labels::{of_isolation, of_mitigation};
use crate::pod::{MIRROR, Pod};
use crate::review::{Answer, Request, ReviewError};
use crate::snapshot::Snapshot;

/// After the mutating webhook a new pod bears the labels that it computed, and no others of ours. If it does not, then
/// that one was not asked, or somebody wrote over its answer.
pub(super) fn create(request: &Request<'_>, snapshots: &[Arc<Snapshot>]) -> Result<Verdict, ReviewError> {
    let pod = new_pod(request)?;
    // Such a copy is exempt, and stands for another pod on its node.
    if pod.is_static() && !is_kubelet(&request.user_info) {
        let user = request.user_info.username.as_deref().unwrap_or_default();
        return Ok(Verdict::Answer(Answer::forbid(format!(
            "metadata.annotations[{MIRROR}]: only a kubelet (group system:nodes) makes the copy of a pod from a file of its \
             node, and user '{user}' is none: take it out"
        ))));
    }
    let mut first = None;
    for snapshot in snapshots {
        let right = snapshot.labels_of(&request.namespace, &pod).unwrap_or_default();
        match wrong(&pod, &right) {
            None => return Ok(Verdict::Answer(Answer::allow())),
            Some(message) => first = first.or(Some(message)),
        }
    }
    // While the policy is being switched, replicas of the webhook do not agree about which one is in force.
    let other = pod.labels.get(POLICY_LABEL).and_then(|policy| snapshots[0].under(policy));
    let right = other.and_then(|snapshot| snapshot.labels_of(&request.namespace, &pod));
    if right.is_some_and(|right| wrong(&pod, &right).is_none()) {
        return Ok(Verdict::Answer(Answer::allow()));
    }
    let message = first.unwrap_or_default();
    Ok(Verdict::Unless(Answer::forbid(message)))
}

/// What is wrong with our labels of a new pod.
fn wrong(pod: &Pod, right: &Labels) -> Option<String> {
    if let Some(key) = pod.annotations.keys().find(|key| is_ours(key)) {
        return Some(format!("metadata.annotations[{key}]: a new pod can't have it"));
    }
    let ours = pod.labels.iter().filter(|(key, _)| is_ours(key));
    let forged = ours.into_iter().find(|(key, value)| right.get(*key) != Some(value));
    if let Some((key, value)) = forged {
        return Some(match right.get(key) {
            Some(right) => format!("metadata.labels[{key}]: '{value}' is not right, it has to be '{right}'"),
            None => format!("metadata.labels[{key}]: this pod can't have it, take it out"),
        });
    }
    // None at all: the mutating webhook was not reached. The reconciler will write them.
    let missing = right.keys().find(|key| !pod.labels.contains_key(*key));
    missing
        .filter(|_| pod.labels.keys().any(|key| is_ours(key)))
        .map(|key| format!("metadata.labels[{key}]: it is missing beside other labels of ringfence.dev, take them out"))
}

pub(super) fn update(request: &Request<'_>, accounts: &Accounts) -> Result<Verdict, ReviewError> {
    let (old, new) = (old_pod(request)?, new_pod(request)?);
    let changes = changes(&old, &new);
    Ok(match accounts.caller(&request.user_info) {
        // Marks of isolation are its own to take off where no enforcer is any more.
        Caller::Webhook => match changes.iter().find(|change| change.of_mitigation() && !change.is_release()) {
            Some(change) => Verdict::Answer(Answer::forbid(change.refusal(accounts))),
            None => Verdict::Answer(Answer::allow()),
        },
        Caller::Enforcer(bound) => {
            let own = request.namespace == accounts.namespace;
            let foreign = match changes.iter().find(|change| !is_enforcers(change.key, own)) {
                Some(change) => Some(change.field()),
                None if request.sub_resource == "status" => None,
                None => other_change(request, own)?,
            };
            match foreign {
                Some(field) => Verdict::Answer(Answer::forbid(format!(
                    "{field}: an enforcer changes nothing of a pod but what says whether it is isolated or terminated"
                ))),
                None => own_node(request, bound)?,
            }
        }
        Caller::Other if changes.is_empty() => Verdict::Answer(Answer::allow()),
        Caller::Other => {
            let release = changes.iter().all(Change::is_release);
            if release {
                let question = Question::MayRelease { namespace: request.namespace.clone(), pod: request.name.clone() };
                Verdict::Ask(question, Answer::forbid(changes[0].release_refusal(request)))
            } else {
                let change = changes.iter().find(|change| !change.is_release());
                Verdict::Answer(Answer::forbid(change.unwrap_or(&changes[0]).refusal(accounts)))
            }
        }
    })
}

/// Anybody who may delete pods may; of enforcers, only the node's own.
pub(super) fn delete(request: &Request<'_>, accounts: &Accounts) -> Result<Verdict, ReviewError> {
    match accounts.caller(&request.user_info) {
        Caller::Enforcer(bound) => own_node(request, bound),
        Caller::Webhook | Caller::Other => Ok(Verdict::Answer(Answer::allow())),
    }
}

pub(super) fn bind(request: &Request<'_>, accounts: &Accounts) -> Result<Verdict, ReviewError> {
    let (none, binding) = (Pod::default(), new_pod(request)?);
    let changes = changes(&none, &binding);
    Ok(Verdict::Answer(changes.first().map_or_else(Answer::allow, |change| Answer::forbid(change.refusal(accounts)))))
}

/// A label or annotation of ours that an update changes.
struct Change<'a> {
    map: &'static str,
    key: &'a str,
    before: Option<&'a String>,
    after: Option<&'a String>,
}

impl Change<'_> {
    /// A mark of isolation is taken off.
    fn is_release(&self) -> bool {
        of_isolation(self.key) && self.after.is_none()
    }

    fn of_mitigation(&self) -> bool {
        of_mitigation(self.key)
    }

    fn field(&self) -> String {
        format!("metadata.{}[{}]", self.map, self.key)
    }

    fn done(&self) -> String {
        match (self.before, self.after) {
            (None, Some(after)) => format!("'{after}' can't be added"),
            (Some(before), None) => format!("'{before}' can't be removed"),
            (before, after) => {
                let shown = |value: Option<&String>| value.cloned().unwrap_or_default();
                format!("'{}' can't become '{}'", shown(before), shown(after))
            }
        }
    }

    fn refusal(&self, accounts: &Accounts) -> String {
        let may = if self.of_mitigation() { &accounts.enforcer } else { &accounts.webhook };
        format!("{}: {}, only {may} may do that", self.field(), self.done())
    }

    fn release_refusal(&self, request: &Request<'_>) -> String {
        let user = request.user_info.username.as_deref().unwrap_or_default();
        format!(
            "{}: {}: user '{user}' may not lift an isolation, which needs the right to 'update' 'pods/isolation' of \
             'ringfence.dev' in namespace '{}'",
            self.field(),
            self.done(),
            request.namespace
        )
    }
}

fn changes<'a>(old: &'a Pod, new: &'a Pod) -> Vec<Change<'a>> {
    type Pairs = BTreeMap<String, String>;
    let mut changes = Vec::new();
    let maps: [(_, &'a Pairs, &'a Pairs); 2] =
        [("labels", &old.labels, &new.labels), ("annotations", &old.annotations, &new.annotations)];
    for (map, old, new) in maps {
        let keys: BTreeSet<_> = old.keys().chain(new.keys()).filter(|key| is_ours(key)).collect();
        let each = keys.into_iter().map(|key| Change { map, key, before: old.get(key), after: new.get(key) });
        changes.extend(each.filter(|change| change.before != change.after));
    }
    changes
}

/// Whether an enforcer may write this label or annotation: in our own namespace also what it reports.
fn is_enforcers(key: &str, own_namespace: bool) -> bool {
    of_mitigation(key) || own_namespace && key == REPORT_ANNOTATION
}

/// The first field that an update changes, apart from what an enforcer may write.
fn other_change(request: &Request<'_>, own_namespace: bool) -> Result<Option<String>, ReviewError> {
    let read = |part, text| {
        serde_json::from_str::<Map<String, Value>>(text).map_err(|error| ReviewError::Object { part, error })
    };
    let (mut old, mut new) = (read("oldObject", request.old_text()?)?, read("object", request.new_text()?)?);
    let (was, is) = (take_metadata(&mut old, own_namespace), take_metadata(&mut new, own_namespace));
    let metadata = first_difference(&was, &is).map(|field| format!("metadata.{field}"));
    Ok(metadata.or_else(|| first_difference(&old, &new).map(str::to_owned)))
}

/// The metadata but for what an enforcer may change, and what the API server changes by itself.
fn take_metadata(object: &mut Map<String, Value>, own_namespace: bool) -> Map<String, Value> {
    let Some(Value::Object(mut metadata)) = object.remove("metadata") else { return Map::new() };
    for field in ["managedFields", "resourceVersion", "generation"] {
        metadata.remove(field);
    }
    metadata.retain(|_, value| !value.is_null());
    for field in ["labels", "annotations"] {
        if let Some(Value::Object(map)) = metadata.get_mut(field) {
            map.retain(|key, _| !is_enforcers(key, own_namespace));
            if map.is_empty() {
                metadata.remove(field);
            }
        }
    }
    metadata
}

fn first_difference<'a>(old: &'a Map<String, Value>, new: &'a Map<String, Value>) -> Option<&'a str> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    keys.into_iter().find(|key| old.get(*key) != new.get(*key)).map(String::as_str)
}

/// An enforcer touches pods of its own node.
fn own_node(request: &Request<'_>, bound: Bound) -> Result<Verdict, ReviewError> {
    #[derive(serde::Deserialize)]
    struct Scheduled {
        spec: Spec,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        #[serde(default)]
        node_name: String,
    }
    let Scheduled { spec: Spec { node_name } } =
        serde_json::from_str(request.old_text()?).map_err(|error| ReviewError::Object { part: "oldObject", error })?;
    let pod = format!("{}/{}", request.namespace, request.name);
    if node_name.is_empty() {
        return Ok(Verdict::Answer(Answer::forbid(format!("pod {pod} is on no node yet: no enforcer may change it"))));
    }
    let refusal = format!("pod {pod} is on node '{node_name}': only that node's enforcer may change it");
    Ok(match bound {
        Bound::Node(own) if own == node_name => Verdict::Answer(Answer::allow()),
        Bound::Node(own) => Verdict::Answer(Answer::forbid(format!("{refusal}, not that of node '{own}'"))),
        Bound::Pod(pod) => {
            let refusal = format!("{refusal}, and '{pod}', the pod of this token, does not run there");
            Verdict::Ask(Question::RunsOn { pod, node: node_name }, Answer::forbid(refusal))
        }
        Bound::Nothing => {
            Verdict::Answer(Answer::forbid(format!("{refusal}, and this token is not bound to a pod of any node")))
        }
    })
}
