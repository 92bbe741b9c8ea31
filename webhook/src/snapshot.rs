//! What is known of the cluster at one moment. Immutable: a change makes a new one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ringfence_policy::{Enforced, Index, Labels, PodFacts, Policy};
use serde_json::Value;

use crate::labels::{self, Governance};
use crate::pod::Pod;

/// Labels of every namespace, by name.
pub type Namespaces = HashMap<String, Arc<Labels>>;

/// What is known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every ruleset and policy.
    pub index: Arc<Index>,
    /// What of them is enforced.
    pub enforced: Arc<Enforced>,
    /// The namespaces.
    pub namespaces: Arc<Namespaces>,
    /// What is said about the rulesets and policies.
    pub published: Arc<Statuses>,
}

/// What rulesets and policies say about themselves, by name.
#[derive(Clone, Debug, Default)]
pub struct Statuses {
    /// Of rulesets.
    pub rulesets: BTreeMap<String, Published>,
    /// Of policies.
    pub policies: BTreeMap<String, Published>,
}

/// The status of one of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// Whose.
    pub uid: String,
    /// The generation of the object, not of its status.
    pub generation: i64,
    /// `status`; null if there is none.
    pub status: Value,
}

impl Published {
    /// Whether a condition is true.
    pub fn says(&self, condition: &str) -> bool {
        let conditions = self.status["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == condition && one["status"] == "True")
    }
}

impl Snapshot {
    /// Of these objects.
    pub fn new(index: Index, namespaces: Namespaces) -> Self {
        let enforced = Arc::new(index.enforced());
        Self { index: Arc::new(index), enforced, namespaces: Arc::new(namespaces), published: Arc::default() }
    }

    /// Our labels that a pod of the namespace has to bear. None: the namespace is not known.
    pub fn labels_of(&self, namespace: &str, pod: &Pod) -> Option<Labels> {
        Some(self.governance_of(namespace, pod)?.labels)
    }

    /// The same, and what else follows for the pod.
    pub fn governance_of(&self, namespace: &str, pod: &Pod) -> Option<Governance> {
        self.governance(namespace, &pod.name, &pod.labels, pod.is_static())
    }

    /// The same of a pod by its parts.
    pub fn governance(&self, namespace: &str, name: &str, labels: &Labels, is_static: bool) -> Option<Governance> {
        let namespace_labels = self.namespaces.get(namespace)?;
        // Selectors do not see our own labels: what they give would depend on itself.
        let labels = labels::foreign(labels);
        let facts = PodFacts {
            namespace,
            name,
            labels: &labels,
            namespace_labels,
            is_static,
            // What governs a pod does not change with every pod that comes or goes.
            standing: None,
        };
        Some(labels::governing(&self.enforced, facts))
    }

    /// The same, were a policy in force that calls itself so in its label: a replica of the webhook that is about to end
    /// may have another one than its successor. None: there is no other such policy.
    pub fn under(&self, policy_label: &str) -> Option<Self> {
        let in_force = self.enforced.policy().map(labels::of_policy);
        let good = self.index.policies().values().filter_map(|entry| entry.good.as_deref());
        let policy =
            good.filter(|_| in_force != Some(policy_label)).find(|policy| labels::of_policy(policy) == policy_label)?;
        Some(Self { enforced: Arc::new(self.index.under(Some(policy))), ..self.clone() })
    }

    /// Names of the policies that name a ruleset.
    pub fn policies_with(&self, ruleset: &str) -> BTreeSet<&str> {
        let names = |policy: &Policy| policy.rulesets.iter().any(|name| name == ruleset);
        let good = self.index.policies().values().filter_map(|entry| entry.good.as_deref());
        // The one in force may have been deleted.
        good.chain(self.enforced.policy()).filter(|policy| names(policy)).map(|policy| policy.name.as_str()).collect()
    }
}
