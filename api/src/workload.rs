//! The workload that a pod belongs to.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Label of the pods of a Deployment: what its `ReplicaSet`'s name ends with.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What makes a pod anew when it is gone, within the pod's namespace. Shown as `Deployment/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    kind: String,
    name: String,
}

impl Workload {
    /// The workload of a pod, told from the pod alone: its controller, or the Deployment whose `ReplicaSet` that is. None
    /// for a pod that nothing makes anew, and for one that comes from a file of its node.
    pub fn of(pod: &ObjectMeta) -> Option<Self> {
        let controller = pod.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
        let (kind, name) = (controller.kind.as_str(), controller.name.as_str());
        let of_deployment = || {
            let hash = pod.labels.as_ref()?.get(TEMPLATE_HASH)?;
            name.strip_suffix(hash.as_str())?.strip_suffix('-').filter(|name| !name.is_empty())
        };
        let (kind, name) = match kind {
            "Node" => return None,
            "ReplicaSet" => of_deployment().map_or((kind, name), |name| ("Deployment", name)),
            _ => (kind, name),
        };
        Some(Self { kind: kind.to_owned(), name: name.to_owned() })
    }

    /// Whether it keeps a number of pods ready. A Job's pods come to an end.
    pub fn keeps_replicas(&self) -> bool {
        self.kind != "Job"
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_belongs_to_whatever_makes_it_anew() {
        let of = |kind: &str, name: &str, hash: &str| {
            let owner = json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true});
            let pod = json!({"labels": {"pod-template-hash": hash}, "ownerReferences": [owner]});
            Workload::of(&serde_json::from_value(pod).unwrap()).map(|workload| workload.to_string())
        };
        assert_eq!(of("ReplicaSet", "web-5d4f", "5d4f").unwrap(), "Deployment/web");
        assert_eq!(of("ReplicaSet", "web-5d4f", "other").unwrap(), "ReplicaSet/web-5d4f");
        assert_eq!(of("ReplicaSet", "-5d4f", "5d4f").unwrap(), "ReplicaSet/-5d4f");
        assert_eq!(of("StatefulSet", "db", "").unwrap(), "StatefulSet/db");
        assert_eq!(of("Node", "node1", ""), None, "a static pod");
        let owner = json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u"});
        let pod = serde_json::from_value(json!({"ownerReferences": [owner]})).unwrap();
        assert_eq!(Workload::of(&pod), None, "an owner that does not make it anew");
    }
}
