//! Statuses of rulesets and policies.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use ringfence_api::{Condition, ConditionType, NodeFailure, RuntimePolicy, RuntimeRuleset};
use ringfence_policy::{Entry, Policy, Ruleset};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::reports::{Reports, Sum};
use crate::metrics::Metrics;
use crate::snapshot::{Published, Snapshot};
use crate::validate::faults;

/// Longest message of a condition, in characters.
const MESSAGE: usize = 1024;

/// How many pods are governed, and what nodes say.
#[derive(Default)]
pub(super) struct Counts<'a> {
    /// By a ruleset, by its name.
    pub rulesets: HashMap<String, u32>,
    /// At all.
    pub governed: u32,
    /// Of the nodes.
    pub reports: Reports<'a>,
}

/// Writes the statuses that are not so yet. Whether all are so now.
pub(super) async fn write(client: &Client, snapshot: &Snapshot, counts: &Counts<'_>, metrics: &Metrics) -> bool {
    let mut all = true;
    for (name, entry) in snapshot.index.rulesets() {
        let Some(published) = snapshot.published.rulesets.get(name) else { continue };
        let wanted = ruleset(snapshot, name, entry, published, counts);
        all &= write_one::<RuntimeRuleset>(client, name, published, wanted, metrics).await;
    }
    for (name, entry) in snapshot.index.policies() {
        let Some(published) = snapshot.published.policies.get(name) else { continue };
        let wanted = policy(snapshot, name, entry, published, counts);
        all &= write_one::<RuntimePolicy>(client, name, published, wanted, metrics).await;
    }
    all
}

/// The fields of a status.
struct Wanted {
    conditions: Vec<Condition>,
    rules: Option<usize>,
    pods: u32,
    reported: Sum,
}

async fn write_one<K>(client: &Client, name: &str, published: &Published, wanted: Wanted, metrics: &Metrics) -> bool
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    K: Resource<Scope = k8s_openapi::ClusterResourceScope>,
{
    let Wanted { conditions, rules, pods, reported: Sum { violations, failures } } = wanted;
    let failures = (!failures.is_empty()).then_some(failures);
    let wanted = json!({
        "observedGeneration": published.generation, "conditions": conditions, "rules": rules, "pods": pods,
        "violations": violations, "failures": failures,
    });
    let same = wanted.as_object().is_some_and(|fields| {
        fields.iter().all(|(field, value)| published.status.get(field).unwrap_or(&Value::Null) == value)
    });
    if same {
        return true;
    }
    let api: Api<K> = Api::all(client.clone());
    let patched = api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": wanted}))).await;
    metrics.write("status", patched.is_ok());
    match patched {
        Ok(_) => {
            info!(kind = %K::kind(&()), name, "status written");
            // The watch brings it back, and then it is compared again.
            true
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => true,
        Err(error) => {
            warn!(kind = %K::kind(&()), name, %error, "cannot write the status");
            false
        }
    }
}

fn ruleset(
    snapshot: &Snapshot,
    name: &str,
    entry: &Entry<Ruleset>,
    published: &Published,
    counts: &Counts<'_>,
) -> Wanted {
    let active = snapshot.index.active();
    let named =
        snapshot.enforced.policy.as_ref().is_some_and(|policy| policy.rulesets.iter().any(|ruleset| ruleset == name));
    let state = of_active(snapshot);
    let in_use = match &snapshot.enforced.policy {
        Some(policy) if named => (true, "Named", format!("policy '{}' names it{state}", policy.name)),
        Some(policy) => (false, "NotNamed", format!("policy '{}' does not name it{state}", policy.name)),
        None => (false, "NoPolicy", format!("no policy is in force: '{active}' is to be{state}")),
    };
    let in_force = entry.good.as_ref().map(|good| good.generation);
    let reported =
        in_force.filter(|_| named).map_or_else(Sum::default, |generation| counts.reports.ruleset(name, generation));
    let degraded = degraded(in_force, &entry.problems, &reported);
    Wanted {
        conditions: conditions(published, accepted(entry), in_use, degraded),
        rules: entry.good.as_ref().filter(|_| entry.problems.is_empty()).map(|ruleset| ruleset.rules.len()),
        pods: counts.rulesets.get(name).copied().unwrap_or_default(),
        reported,
    }
}

fn policy(
    snapshot: &Snapshot,
    name: &str,
    entry: &Entry<Policy>,
    published: &Published,
    counts: &Counts<'_>,
) -> Wanted {
    let active = snapshot.index.active();
    let in_force = snapshot.enforced.policy.as_ref().filter(|policy| policy.name == name);
    let state = of_active(snapshot);
    let in_use = match in_force {
        Some(policy) => (true, "Active", format!("generation {} is in force", policy.generation)),
        None if name == active => {
            (false, "NeverRight", "it is to be the active one, but no version of it was right".to_owned())
        }
        None => (false, "NotActive", format!("'{active}' is the active one{state}")),
    };
    let reported = in_force.map_or_else(Sum::default, |policy| counts.reports.policy(name, policy.generation));
    let mut degraded = degraded(in_force.map(|policy| policy.generation), &entry.problems, &reported);
    let missing: Vec<_> = if in_force.is_some() { snapshot.enforced.missing().collect() } else { Vec::new() };
    if !degraded.0 && !missing.is_empty() {
        degraded = (true, "RulesetsMissing", format!("not there, or not right: {}", missing.join(", ")));
    }
    let rules: Option<BTreeSet<_>> = entry.good.as_ref().filter(|_| entry.problems.is_empty()).map(|policy| {
        let rulesets = policy.rulesets.iter().filter_map(|name| snapshot.index.rulesets().get(name)?.good.as_deref());
        rulesets.flat_map(|ruleset| ruleset.rules.keys()).collect()
    });
    Wanted {
        conditions: conditions(published, accepted(entry), in_use, degraded),
        rules: rules.map(|rules| rules.len()),
        pods: if in_force.is_some() { counts.governed } else { 0 },
        reported,
    }
}

/// What every status says when the active policy is not as it should be. Empty if it is.
fn of_active(snapshot: &Snapshot) -> &'static str {
    match snapshot.index.policies().get(snapshot.index.active()) {
        None if snapshot.enforced.policy.is_some() => "; it was deleted, what it said last stays in force",
        None => " and does not exist",
        Some(entry) if !entry.problems.is_empty() && entry.good.is_some() => "; its last good version is in force",
        Some(entry) if !entry.problems.is_empty() => " and is not right",
        Some(_) => "",
    }
}

/// A condition: whether it holds, the reason, and a message.
type Holds = (bool, &'static str, String);

fn accepted<T>(entry: &Entry<T>) -> Holds {
    if entry.problems.is_empty() && entry.good.is_some() {
        (true, "Valid", "every field is right".to_owned())
    } else {
        (false, "Invalid", faults(&entry.problems))
    }
}

fn degraded(in_force: Option<i64>, problems: &[ringfence_policy::Diagnostic], reported: &Sum) -> Holds {
    match (in_force, problems) {
        (Some(generation), [_, ..]) => (true, "LastGoodInForce", format!("generation {generation} stays in force")),
        _ if !reported.failures.is_empty() => {
            let failure = |failure: &NodeFailure| format!("{} (nodes: {})", failure.reason, failure.nodes);
            (true, "NodesFail", reported.failures.iter().map(failure).collect::<Vec<_>>().join("; "))
        }
        _ => (false, "AsAsked", "nothing is known to be wrong".to_owned()),
    }
}

/// The conditions; those whose status does not change keep their time.
fn conditions(published: &Published, accepted: Holds, in_use: Holds, degraded: Holds) -> Vec<Condition> {
    let before: Vec<Condition> = published
        .status
        .get("conditions")
        .and_then(|conditions| serde_json::from_value(conditions.clone()).ok())
        .unwrap_or_default();
    let all =
        [(ConditionType::Accepted, accepted), (ConditionType::InUse, in_use), (ConditionType::Degraded, degraded)];
    all.into_iter()
        .map(|(kind, (holds, reason, message))| {
            let status = if holds { "True" } else { "False" };
            let before = before.iter().find(|before| before.type_ == kind.name() && before.status == status);
            Condition {
                type_: kind.name().to_owned(),
                status: status.to_owned(),
                observed_generation: Some(published.generation),
                reason: reason.to_owned(),
                message: message.chars().take(MESSAGE).collect(),
                last_transition_time: before
                    .map_or_else(|| Time(Timestamp::now()), |before| before.last_transition_time.clone()),
            }
        })
        .collect()
}
