//! What is read of pods.

use k8s_openapi::api::core::v1 as core;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, NotUsed, Object},
};
use ringfence_api::names;
use serde::{Deserialize, Serialize};

/// A pod, of which little is read.
pub type Pod = Object<Spec, NotUsed>;

/// Where it runs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Absent until it is bound.
    pub node_name: Option<String>,
}

/// What a pod says about its isolation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// Its label says that it is to be isolated.
    pub wanted: bool,
    /// What the enforcer has noted: by which rule, or `manual`.
    pub by: Option<String>,
    /// The same: since when.
    pub since: Option<String>,
}

impl Isolation {
    /// None: nothing says that it is isolated.
    pub fn of(pod: &Pod) -> Option<Self> {
        let noted = |name| pod.annotations().get(name).cloned();
        let wanted = names::is_isolated(pod.labels());
        let isolation =
            Self { wanted, by: noted(names::ISOLATED_BY_ANNOTATION), since: noted(names::ISOLATED_AT_ANNOTATION) };
        (isolation.wanted || isolation.by.is_some() || isolation.since.is_some()).then_some(isolation)
    }
}

/// Pods of one namespace.
pub fn of_namespace(client: Client, namespace: &str) -> Api<Pod> {
    Api::namespaced_with(client, namespace, &resource())
}

/// Pods of all namespaces.
pub fn of_all(client: Client) -> Api<Pod> {
    Api::all_with(client, &resource())
}

fn resource() -> ApiResource {
    ApiResource::erase::<core::Pod>(&())
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod as the API server gives it.
    pub fn pod(labels: &Value, annotations: &Value) -> Pod {
        let metadata =
            json!({"name": "web", "namespace": "shop", "uid": "1-2", "labels": labels, "annotations": annotations});
        let spec = json!({"nodeName": "node-1", "containers": [{"name": "web", "image": "web"}]});
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Running"}});
        serde_json::from_value(object).expect("a pod")
    }

    #[test]
    fn a_pod_is_isolated_until_nothing_says_so() {
        let (label, by, since) = (names::ISOLATED_LABEL, names::ISOLATED_BY_ANNOTATION, names::ISOLATED_AT_ANNOTATION);
        let time = "2026-11-28T05:00:00Z";
        assert_eq!(Isolation::of(&pod(&json!({"app": "web"}), &json!(null))), None);
        assert_eq!(Isolation::of(&pod(&json!({label: "false"}), &json!(null))), None);
        let whole = pod(&json!({label: "true"}), &json!({by: "RF-901", since: time}));
        let expected = Isolation { wanted: true, by: Some("RF-901".to_owned()), since: Some(time.to_owned()) };
        assert_eq!(Isolation::of(&whole), Some(expected.clone()));
        // Released by a user; the enforcer has not done it yet.
        let half = pod(&json!({}), &json!({by: "RF-901", since: time}));
        assert_eq!(Isolation::of(&half), Some(Isolation { wanted: false, ..expected }));
        assert_eq!(whole.spec.node_name.as_deref(), Some("node-1"));
    }
}
