//! Rulesets, policies and namespaces as the API server tells them, and what follows: what the cluster enforces.

use super::watch::News;
use kube::{
    ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::watcher::Event,
};
use ringfence_api::{RuntimePolicy, RuntimeRuleset};
use ringfence_policy::{Catalogue, Enforced, Labels, Policy, Ruleset, Source, read, read_policy};
use std::{collections::BTreeMap, fmt};

/// All objects of a kind, by name. A list that begins anew replaces what was there when it is complete.
#[derive(Debug)]
pub struct Collection<T> {
    present: BTreeMap<String, T>,
    listing: BTreeMap<String, T>,
    synced: bool,
}

impl<T> Default for Collection<T> {
    fn default() -> Self {
        Self { present: BTreeMap::new(), listing: BTreeMap::new(), synced: false }
    }
}

impl<T> Collection<T> {
    /// Takes in news. `read` makes of an object's what is kept of it.
    pub fn hear<K>(&mut self, news: Event<K>, read: impl Fn(K) -> (String, T)) {
        match news {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => self.listing.extend([read(object)]),
            Event::InitDone => {
                self.present = std::mem::take(&mut self.listing);
                self.synced = true;
            }
            Event::Apply(object) => self.present.extend([read(object)]),
            Event::Delete(object) => drop(self.present.remove(&read(object).0)),
        }
    }

    /// Whether a list has been complete once.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.present.get(name)
    }
}

/// An object that is right, or what is wrong with it.
type Judged<T> = Result<T, String>;

/// What the cluster says about enforcement.
pub struct Objects {
    catalogue: Catalogue,
    own_namespace: String,
    /// Name of the active policy.
    active: String,
    rulesets: Collection<Judged<Ruleset>>,
    policies: Collection<Judged<Policy>>,
    namespaces: Collection<Labels>,
    /// The last active policy that was right.
    last_good: Option<Policy>,
    /// What was complained about last.
    complaint: Option<String>,
}

impl Objects {
    /// Nothing is known yet.
    pub fn new(catalogue: Catalogue, own_namespace: String, active: String) -> Self {
        Self {
            catalogue,
            own_namespace,
            active,
            rulesets: Collection::default(),
            policies: Collection::default(),
            namespaces: Collection::default(),
            last_good: None,
            complaint: None,
        }
    }

    /// News of rulesets.
    pub fn ruleset(&mut self, news: News<DeserializeGuard<RuntimeRuleset>>) {
        let catalogue = &self.catalogue;
        self.rulesets.hear(news, |object| {
            let name = object.name_any();
            let judged = text(object.0).and_then(|text| {
                let mut rulesets = read(&[Source { name: format!("ruleset {name}"), text }], catalogue)
                    .map_err(|problems| shown(&problems))?;
                rulesets.pop().ok_or_else(|| format!("ruleset {name}: it is empty"))
            });
            (name, judged)
        });
    }

    /// News of policies.
    pub fn policy(&mut self, news: News<DeserializeGuard<RuntimePolicy>>) {
        self.policies.hear(news, |object| {
            let name = object.name_any();
            let judged = text(object.0).and_then(|text| {
                read_policy(&Source { name: format!("policy {name}"), text }).map_err(|problems| shown(&problems))
            });
            (name, judged)
        });
    }

    /// News of namespaces.
    pub fn namespace(&mut self, news: News<PartialObjectMeta<k8s_openapi::api::core::v1::Namespace>>) {
        self.namespaces.hear(news, |object| (object.name_any(), object.metadata.labels.unwrap_or_default()));
    }

    /// Whether everything has been told once.
    pub fn synced(&self) -> bool {
        self.rulesets.synced() && self.policies.synced() && self.namespaces.synced()
    }

    /// Labels of a namespace; none if it is not known (yet).
    pub fn namespace_labels(&self, namespace: &str) -> Labels {
        self.namespaces.get(namespace).cloned().unwrap_or_default()
    }

    /// What is enforced. An active policy that is gone or wrong leaves the last good one in force, and so does a ruleset
    /// that became wrong.
    pub fn enforced(&mut self, before: Option<&Enforced>) -> Enforced {
        let mut complaints = Vec::new();
        match self.policies.get(&self.active) {
            Some(Ok(policy)) => self.last_good = Some(policy.clone()),
            Some(Err(problem)) => complaints.push(problem.clone()),
            None => complaints.push(format!("policy {}, which is to be the active one, does not exist", self.active)),
        }
        let mut rulesets = Vec::new();
        for (name, judged) in &self.rulesets.present {
            match judged {
                Ok(ruleset) => rulesets.push(ruleset.clone()),
                Err(problem) => {
                    complaints.push(problem.clone());
                    let last = before.and_then(|before| before.rulesets.iter().find(|ruleset| ruleset.name == *name));
                    rulesets.extend(last.cloned());
                }
            }
        }
        let enforced = Enforced { own_namespace: self.own_namespace.clone(), policy: self.last_good.clone(), rulesets };
        complaints
            .extend(enforced.missing().map(|name| format!("the policy names ruleset {name}, which does not exist")));
        let complaint = (!complaints.is_empty()).then(|| complaints.join("; "));
        if complaint != self.complaint {
            if let Some(complaint) = &complaint {
                tracing::error!("what was good last stays in force: {complaint}");
            }
            self.complaint = complaint;
        }
        enforced
    }
}

/// An object as JSON, for the one reader that judges objects from wherever they come.
fn text<K: ResourceExt + serde::Serialize, E: fmt::Display>(object: Result<K, E>) -> Result<String, String> {
    let mut object = object.map_err(|error| error.to_string())?;
    object.managed_fields_mut().clear();
    serde_json::to_string(&object).map_err(|error| error.to_string())
}

fn shown(problems: &ringfence_policy::Diagnostics) -> String {
    let each = problems.0.iter().map(|problem| format!("{}: {}: {}", problem.file, problem.field, problem.message));
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, name: &str, spec: &serde_json::Value) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "ringfence.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "generation": 4, "creationTimestamp": "2026-11-28T00:00:00Z", "uid": "u",
                "managedFields": [{"manager": "kubectl", "operation": "Apply"}]},
            "spec": spec,
        })
    }

    fn guarded<K: serde::de::DeserializeOwned + kube::Resource>(value: serde_json::Value) -> DeserializeGuard<K> {
        serde_json::from_value(value).unwrap()
    }

    fn ruleset(name: &str, rule: &str) -> DeserializeGuard<RuntimeRuleset> {
        guarded(object("RuntimeRuleset", name, &serde_json::json!({"rules": [{"rule": rule, "mitigation": "log"}]})))
    }

    fn policy(rulesets: &serde_json::Value) -> DeserializeGuard<RuntimePolicy> {
        guarded(object("RuntimePolicy", "main", &serde_json::json!({"rulesets": rulesets})))
    }

    fn objects() -> Objects {
        let mut objects = Objects::new(Catalogue::builtin().clone(), "ringfence".to_owned(), "main".to_owned());
        objects.ruleset(Event::Init);
        objects.ruleset(Event::InitApply(ruleset("web", "RF-901")));
        objects.ruleset(Event::InitDone);
        objects.policy(Event::Init);
        objects.policy(Event::InitApply(policy(&serde_json::json!(["web"]))));
        objects.policy(Event::InitDone);
        assert!(!objects.synced());
        objects.namespace(Event::Init);
        objects.namespace(Event::InitDone);
        assert!(objects.synced());
        objects
    }

    #[test]
    fn objects_of_the_api_server_are_read_like_files() {
        let enforced = objects().enforced(None);
        let [web] = &enforced.rulesets[..] else { panic!("{enforced:?}") };
        assert_eq!((web.name.as_str(), web.generation, web.rules.len()), ("web", 4, 1));
        assert_eq!(enforced.policy.as_ref().unwrap().rulesets, ["web"]);
        assert_eq!(enforced.missing().count(), 0);
    }

    #[test]
    fn what_was_good_last_stays_in_force() {
        let mut objects = objects();
        let good = objects.enforced(None);
        objects.policy(Event::Delete(policy(&serde_json::json!([]))));
        assert_eq!(objects.enforced(Some(&good)), good, "the policy is gone");
        objects.policy(Event::Apply(policy(&serde_json::json!(["Wrong Name"]))));
        assert_eq!(objects.enforced(Some(&good)), good, "the policy is wrong");
        objects.policy(Event::Apply(policy(&serde_json::json!(["web"]))));
        objects.ruleset(Event::Apply(ruleset("web", "RF-9999")));
        assert_eq!(objects.enforced(Some(&good)), good, "the ruleset is wrong");
        objects.ruleset(Event::Delete(ruleset("web", "RF-901")));
        let gone = objects.enforced(Some(&good));
        assert_eq!((gone.rulesets.len(), gone.missing().collect::<Vec<_>>()), (0, vec!["web"]));
    }

    #[test]
    fn a_list_that_begins_anew_replaces_what_was_there() {
        let mut objects = objects();
        objects.ruleset(Event::Init);
        objects.ruleset(Event::InitApply(ruleset("other", "RF-901")));
        assert_eq!(objects.enforced(None).rulesets[0].name, "web", "it is not complete yet");
        objects.ruleset(Event::InitDone);
        let names: Vec<_> = objects.enforced(None).rulesets.into_iter().map(|ruleset| ruleset.name).collect();
        assert_eq!(names, ["other"]);
    }

    #[test]
    fn an_object_that_can_not_be_read_does_not_hide_the_others() {
        let mut objects = objects();
        objects.ruleset(Event::Apply(guarded(object("RuntimeRuleset", "odd", &serde_json::json!({"rules": 5})))));
        let names: Vec<_> = objects.enforced(None).rulesets.into_iter().map(|ruleset| ruleset.name).collect();
        assert_eq!(names, ["web"]);
    }
}
