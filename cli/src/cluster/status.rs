//! What is in force, in the whole cluster?

use clap::Args;
use k8s_openapi::api::apps::v1 as apps;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, ListParams, Object},
};
use ringfence_api::{Condition, ConditionType, Mitigation, RuntimePolicy, RuntimeRuleset};
use ringfence_control::render;
use serde::{Deserialize, Serialize};

use super::{Connection, connection::Open, isolated, pods};
use crate::{failure::Failure, failure::Outcome, output, status::Format};

/// Label of what the chart installs.
const PART_OF: &str = "app.kubernetes.io/part-of=ringfence";

/// `ringfence cluster status`.
#[derive(Debug, Args)]
#[command(after_help = "You need `list` of runtimepolicies, runtimerulesets, daemonsets, deployments and pods in the \
                        whole cluster.\n\nExamples:\n  ringfence cluster status\n  ringfence cluster status -o json")]
pub struct Status {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    policies: Vec<Policy>,
    rulesets: Vec<Ruleset>,
    components: Vec<Component>,
    isolated_pods: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    name: String,
    active: String,
    accepted: String,
    max_mitigation: Mitigation,
    suspended: bool,
    rulesets: usize,
    pods: Option<u32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ruleset {
    name: String,
    in_use: String,
    accepted: String,
    degraded: String,
    rules: Option<u32>,
    pods: Option<u32>,
}

/// A `DaemonSet` or `Deployment`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    name: String,
    namespace: String,
    ready: i32,
    wanted: i32,
}

impl Status {
    /// Asks the API server.
    pub async fn run(self, connection: &Connection) -> Outcome {
        let shown = Shown::ask(&connection.open().await?).await?;
        match self.output {
            Format::Json => output::json(&shown),
            Format::Text => output::text(&shown.text()),
        }
    }
}

impl Shown {
    async fn ask(open: &Open) -> Result<Self, Failure> {
        let (all, ours) = (ListParams::default(), ListParams::default().labels(PART_OF));
        let client = || open.client.clone();
        let policies = Api::<RuntimePolicy>::all(client()).list(&all).await.map_err(|error| objects(open, error))?;
        let rulesets = Api::<RuntimeRuleset>::all(client()).list(&all).await.map_err(|error| objects(open, error))?;
        let nodes = Api::<Workload>::all_with(client(), &ApiResource::erase::<apps::DaemonSet>(&()));
        let nodes = nodes.list(&ours).await.map_err(|error| open.failure(error))?;
        let central = Api::<Workload>::all_with(client(), &ApiResource::erase::<apps::Deployment>(&()));
        let central = central.list(&ours).await.map_err(|error| open.failure(error))?;
        let isolated = pods::of_all(client()).list(&isolated::labelled()).await.map_err(|error| open.failure(error))?;
        Ok(Self {
            policies: policies.into_iter().map(Policy::of).collect(),
            rulesets: rulesets.into_iter().map(Ruleset::of).collect(),
            components: nodes.into_iter().chain(central).map(Component::of).collect(),
            isolated_pods: isolated.items.len(),
        })
    }

    fn text(&self) -> String {
        let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let policies = self.policies.iter().map(|policy| {
            let mitigation = if policy.suspended { "suspended".to_owned() } else { policy.max_mitigation.to_string() };
            let rulesets = policy.rulesets.to_string();
            let (active, accepted) = (policy.active.clone(), policy.accepted.clone());
            [policy.name.clone(), active, accepted, mitigation, rulesets, number(policy.pods)]
        });
        let rulesets = self.rulesets.iter().map(|ruleset| {
            let (in_use, accepted, degraded) =
                (ruleset.in_use.clone(), ruleset.accepted.clone(), ruleset.degraded.clone());
            [ruleset.name.clone(), in_use, accepted, degraded, number(ruleset.rules), number(ruleset.pods)]
        });
        let components = self.components.iter().map(|component| {
            let ready = format!("{}/{}", component.ready, component.wanted);
            [component.name.clone(), component.namespace.clone(), ready]
        });
        let part = |rows: usize, table: String, none: &str| if rows == 0 { none.to_owned() } else { table };
        [
            part(
                self.policies.len(),
                render::table(&["POLICY", "ACTIVE", "ACCEPTED", "MAX MITIGATION", "RULESETS", "PODS"], policies),
                "no policy",
            ),
            part(
                self.rulesets.len(),
                render::table(&["RULESET", "IN USE", "ACCEPTED", "DEGRADED", "RULES", "PODS"], rulesets),
                "no ruleset",
            ),
            part(
                self.components.len(),
                render::table(&["COMPONENT", "NAMESPACE", "READY"], components),
                "nothing of the chart is installed",
            ),
            match self.isolated_pods {
                0 => "no pod is isolated\n".to_owned(),
                1 => "1 pod is isolated\n".to_owned(),
                many => format!("{many} pods are isolated\n"),
            },
        ]
        .join("\n\n")
    }
}

/// Our own kinds may not be there.
fn objects(open: &Open, error: kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            Failure::input("this cluster knows no RuntimePolicy and RuntimeRuleset: install the chart")
        }
        error => open.failure(error),
    }
}

impl Policy {
    fn of(policy: RuntimePolicy) -> Self {
        let name = policy.name_any();
        let status = policy.status.unwrap_or_default();
        Self {
            name,
            active: condition(&status.conditions, ConditionType::InUse),
            accepted: condition(&status.conditions, ConditionType::Accepted),
            max_mitigation: policy.spec.max_mitigation,
            suspended: policy.spec.limits.suspend,
            rulesets: policy.spec.rulesets.len(),
            pods: status.pods,
        }
    }
}

impl Ruleset {
    fn of(ruleset: RuntimeRuleset) -> Self {
        let name = ruleset.name_any();
        let status = ruleset.status.unwrap_or_default();
        Self {
            name,
            in_use: condition(&status.conditions, ConditionType::InUse),
            accepted: condition(&status.conditions, ConditionType::Accepted),
            degraded: condition(&status.conditions, ConditionType::Degraded),
            rules: status.rules,
            pods: status.pods,
        }
    }
}

/// Of a `DaemonSet` or a `Deployment`, how many pods it has.
type Workload = Object<Wanted, Counts>;

/// Only a `Deployment` says it.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Wanted {
    replicas: Option<i32>,
}

/// The first two are a `DaemonSet`'s, the third is a `Deployment`'s.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    desired_number_scheduled: Option<i32>,
    number_ready: Option<i32>,
    ready_replicas: Option<i32>,
}

impl Component {
    fn of(workload: Workload) -> Self {
        let (name, namespace) = (workload.name_any(), workload.namespace().unwrap_or_default());
        let status = workload.status.unwrap_or_default();
        Self {
            name,
            namespace,
            ready: status.number_ready.or(status.ready_replicas).unwrap_or_default(),
            wanted: status.desired_number_scheduled.or(workload.spec.replicas).unwrap_or(1),
        }
    }
}

/// As Kubernetes has it: True, False or Unknown.
fn condition(conditions: &[Condition], kind: ConditionType) -> String {
    let found = conditions.iter().find(|condition| condition.type_ == kind.name());
    found.map_or_else(|| "Unknown".to_owned(), |condition| condition.status.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn daemon_sets_and_deployments_say_it_differently() {
        let component = |spec: &serde_json::Value, status: &serde_json::Value| {
            let object = json!({"metadata": {"name": "x", "namespace": "y"}, "spec": spec, "status": status});
            let component = Component::of(serde_json::from_value(object).expect("a workload"));
            (component.ready, component.wanted)
        };
        let template = json!({"selector": {}, "template": {}});
        assert_eq!(component(&template, &json!({"desiredNumberScheduled": 5, "numberReady": 4})), (4, 5));
        assert_eq!(component(&json!({"replicas": 2}), &json!({"readyReplicas": 1, "replicas": 2})), (1, 2));
        assert_eq!(component(&json!({"replicas": 2}), &json!({})), (0, 2));
    }

    #[test]
    fn what_is_there_is_shown_and_what_is_not_is_said() {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "x", "message": "", "lastTransitionTime": "2026-11-28T05:00:00Z"});
        let policy = serde_json::from_value(json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimePolicy", "metadata": {"name": "default"},
            "spec": {"rulesets": ["baseline", "web"], "maxMitigation": "log"},
            "status": {"conditions": [condition("InUse", "True"), condition("Accepted", "False")], "pods": 12},
        }));
        let shown = Shown {
            policies: vec![Policy::of(policy.expect("a policy"))],
            rulesets: Vec::new(),
            components: vec![Component { name: "x".to_owned(), namespace: "y".to_owned(), ready: 1, wanted: 3 }],
            isolated_pods: 2,
        };
        let expected = "\
POLICY   ACTIVE  ACCEPTED  MAX MITIGATION  RULESETS  PODS
default  True    False     log             2         12

no ruleset

COMPONENT  NAMESPACE  READY
x          y          1/3

2 pods are isolated
";
        assert_eq!(shown.text(), expected);
    }
}
