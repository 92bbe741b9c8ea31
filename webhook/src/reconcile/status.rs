//! Statuses of rulesets and policies.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

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

/// Statuses whose numbers alone have changed are written so seldom that all enforcers together are told of this many in a
/// second: each of them watches all rulesets and policies.
const TOLD_A_SECOND: u64 = 1_000;

/// Writes statuses, those whose numbers alone have changed in turn.
#[derive(Default)]
pub(super) struct Writer {
    /// The object whose numbers were written last.
    last: Option<Name>,
}

/// Kind and name.
type Name = (Kind, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Policy,
    Ruleset,
}

/// A status that is not so yet.
struct Due {
    name: Name,
    status: Value,
    numbers_alone: bool,
}

impl Writer {
    /// Writes the statuses that are not so yet; `pause` is the time since this was done last. Whether all are so now.
    pub(super) async fn write(
        &mut self,
        client: &Client,
        snapshot: &Snapshot,
        counts: &Counts<'_>,
        pause: Duration,
        metrics: &Metrics,
    ) -> bool {
        let mut due = due(snapshot, counts);
        let all = self.choose(&mut due, allowance(counts.reports.nodes(), pause));
        let mut written = true;
        for Due { name: (kind, name), status, .. } in due {
            written &= match kind {
                Kind::Policy => write_one::<RuntimePolicy>(client, &name, status, metrics).await,
                Kind::Ruleset => write_one::<RuntimeRuleset>(client, &name, status, metrics).await,
            };
        }
        all && written
    }

    /// Leaves out what has to wait. Whether nothing has to. Who was written last is the last one in turn.
    fn choose(&mut self, due: &mut Vec<Due>, allowance: usize) -> bool {
        let (numbers, mut chosen): (Vec<_>, Vec<_>) =
            std::mem::take(due).into_iter().partition(|due| due.numbers_alone);
        let (mut turn, served): (Vec<_>, Vec<_>) =
            numbers.into_iter().partition(|due| self.last.as_ref().is_none_or(|last| due.name > *last));
        turn.extend(served);
        let all = turn.len() <= allowance;
        turn.truncate(allowance);
        if let Some(last) = turn.last() {
            self.last = Some(last.name.clone());
        }
        chosen.extend(turn);
        *due = chosen;
        all
    }
}

/// How many statuses may be written after a pause because of their numbers, at least one.
fn allowance(nodes: usize, pause: Duration) -> usize {
    let told = TOLD_A_SECOND.saturating_mul(pause.as_secs().max(1));
    usize::try_from(told).unwrap_or(usize::MAX).checked_div(nodes).unwrap_or(usize::MAX).max(1)
}

/// Statuses that are not so yet, by kind and name.
fn due(snapshot: &Snapshot, counts: &Counts<'_>) -> Vec<Due> {
    let policies = snapshot.index.policies().iter().filter_map(|(name, entry)| {
        let published = snapshot.published.policies.get(name)?;
        one((Kind::Policy, name.clone()), published, policy(snapshot, name, entry, published, counts))
    });
    let rulesets = snapshot.index.rulesets().iter().filter_map(|(name, entry)| {
        let published = snapshot.published.rulesets.get(name)?;
        one((Kind::Ruleset, name.clone()), published, ruleset(snapshot, name, entry, published, counts))
    });
    policies.chain(rulesets).collect()
}

/// The fields of a status.
struct Wanted {
    conditions: Vec<Condition>,
    rules: Option<usize>,
    pods: u32,
    reported: Sum,
}

/// Fields that change with every pod and every violation.
const NUMBERS: [&str; 2] = ["pods", "violations"];

fn one(name: Name, published: &Published, wanted: Wanted) -> Option<Due> {
    let Wanted { conditions, rules, pods, reported: Sum { violations, failures } } = wanted;
    let failures = (!failures.is_empty()).then_some(failures);
    let status = json!({
        "observedGeneration": published.generation, "conditions": conditions, "rules": rules, "pods": pods,
        "violations": violations, "failures": failures,
    });
    let differs = |(field, value): &(&String, &Value)| published.status.get(*field).unwrap_or(&Value::Null) != *value;
    let changed: Vec<&String> = status.as_object()?.iter().filter(differs).map(|(field, _)| field).collect();
    let numbers_alone = changed.iter().all(|field| NUMBERS.contains(&field.as_str()));
    (!changed.is_empty()).then_some(Due { name, status, numbers_alone })
}

/// Whether it is so now.
async fn write_one<K>(client: &Client, name: &str, status: Value, metrics: &Metrics) -> bool
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    K: Resource<Scope = k8s_openapi::ClusterResourceScope>,
{
    let api: Api<K> = Api::all(client.clone());
    let patched = api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await;
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
    let named = snapshot.enforced.policy().is_some_and(|policy| policy.rulesets.iter().any(|ruleset| ruleset == name));
    let state = of_active(snapshot);
    let in_use = match snapshot.enforced.policy() {
        Some(policy) if named => (true, "Named", format!("policy '{}' names it{state}", policy.name)),
        Some(policy) => (false, "NotNamed", format!("policy '{}' does not name it{state}", policy.name)),
        None => {
            (false, "NoPolicy", format!("no policy is known that is right: '{active}' is to be in force{state}{NODES}"))
        }
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
    let in_force = snapshot.enforced.policy().filter(|policy| policy.name == name);
    let state = of_active(snapshot);
    let in_use = match in_force {
        Some(policy) => (true, "Active", format!("generation {} is in force", policy.generation)),
        None if name == active => (
            false,
            "NotRight",
            format!("it is to be the active one, and no version of it is known that was right{NODES}"),
        ),
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
        Some(entry) if entry.problems.is_empty() => "",
        Some(entry) if entry.good.is_some() => "; its last good version is in force",
        Some(_) if snapshot.enforced.policy().is_some() => ", and the one that is to be active is not right",
        Some(_) => " and is not right",
        None => match snapshot.enforced.policy() {
            Some(policy) if policy.name == snapshot.index.active() => {
                "; it was deleted, what it said last stays in force"
            }
            Some(_) => ", and the one that is to be active does not exist",
            None => " and does not exist",
        },
    }
}

/// What is not known here may be known elsewhere.
const NODES: &str = "; nodes go on with the last one that was, until they are booted";

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

#[cfg(test)]
mod tests {
    use super::*;

    fn due(name: &str, numbers_alone: bool) -> Due {
        Due { name: (Kind::Ruleset, name.to_owned()), status: Value::Null, numbers_alone }
    }

    fn names(due: &[Due]) -> Vec<&str> {
        due.iter().map(|due| due.name.1.as_str()).collect()
    }

    #[test]
    fn numbers_take_turns_and_keep_nothing_else_waiting() {
        let all = || vec![due("a", true), due("b", false), due("c", true), due("d", true)];
        let mut writer = Writer::default();
        let mut turn = |allowance| {
            let mut due = all();
            let complete = writer.choose(&mut due, allowance);
            (names(&due).join(" "), complete)
        };
        assert_eq!(turn(2), ("b a c".to_owned(), false));
        assert_eq!(turn(2), ("b d a".to_owned(), false));
        assert_eq!(turn(2), ("b c d".to_owned(), false));
        assert_eq!(turn(3), ("b a c d".to_owned(), true));
    }

    #[test]
    fn the_more_nodes_the_seldomer() {
        let pause = Duration::from_secs(5);
        assert_eq!(allowance(0, pause), usize::MAX);
        assert_eq!(allowance(1, pause), 5_000);
        assert_eq!(allowance(1_000, pause), 5);
        assert_eq!(allowance(50_000, pause), 1, "but not never");
    }

    #[test]
    fn a_condition_is_more_than_a_number() {
        let wanted = |pods, rules| Wanted { conditions: Vec::new(), rules, pods, reported: Sum::default() };
        let name = || (Kind::Ruleset, "a".to_owned());
        let published = one(name(), &Published::default(), wanted(1, Some(2))).map(|due| due.status).unwrap();
        let published = Published { status: published, ..Published::default() };
        assert!(one(name(), &published, wanted(1, Some(2))).is_none(), "it is so");
        assert!(one(name(), &published, wanted(7, Some(2))).unwrap().numbers_alone);
        assert!(!one(name(), &published, wanted(7, Some(3))).unwrap().numbers_alone);
    }
}
