//! Rulesets, policies and namespaces as the API server tells them, and what follows: what the cluster enforces.

use super::{
    listing::{Item, Listing},
    memory::{Kind, Memory},
    watch::News,
};
use crate::rulesets::Compiled;
use k8s_openapi::api::core::v1::Namespace;
use kube::{ResourceExt, api::DynamicObject, core::PartialObjectMeta};
use ringfence_policy::{Catalogue, Diagnostic, Enforced, Index, Labels};
use std::{
    collections::{BTreeMap, HashMap},
    mem,
};

/// What tells one version of an object from another: whose it is, and which.
type Version = (Option<String>, Option<i64>);

/// What the cluster says about enforcement.
pub struct Objects {
    index: Index,
    /// What was asked for when it was compiled last, and whether that went well.
    asked: Option<Enforced>,
    compiled: bool,
    /// What an earlier enforcer remembered, until something else can be put in force.
    recalled: Option<Enforced>,
    /// What is to be remembered once everything together could be put in force; no text: to be forgotten.
    unconfirmed: BTreeMap<(Kind, String), Option<String>>,
    namespaces: BTreeMap<String, Labels>,
    rulesets: Watched,
    policies: Watched,
    namespaces_listed: Listing,
    memory: Memory,
    /// What was complained about last.
    complaint: Option<String>,
}

/// Objects that have versions.
#[derive(Debug, Default)]
struct Watched {
    listing: Listing,
    /// Those that were read. Most changes are of statuses, and change no version.
    versions: HashMap<String, Version>,
}

impl Watched {
    /// Whether this version is new.
    fn is_new(&mut self, name: &str, object: &DynamicObject) -> bool {
        let version = (object.uid(), object.metadata.generation);
        self.versions.insert(name.to_owned(), version.clone()) != Some(version)
    }
}

impl Objects {
    /// What was in force when the last enforcer heard of it; nothing if there was none since the node started.
    pub fn recall(catalogue: Catalogue, own_namespace: String, active: String, memory: Memory) -> Self {
        let mut index = Index::new(own_namespace, active).with_catalogue(catalogue);
        for (name, ruleset) in memory.all::<DynamicObject>(Kind::Rulesets) {
            index.put_ruleset(&name, text(&ruleset));
        }
        for (name, policy) in memory.all::<DynamicObject>(Kind::Policies) {
            if !index.recall_policy(text(&policy)) {
                tracing::warn!(policy = name, "the policy that was in force is not understood any more");
            }
        }
        Self {
            recalled: index.in_force().is_some().then(|| index.enforced()),
            index,
            asked: None,
            compiled: false,
            unconfirmed: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            rulesets: Watched::default(),
            policies: Watched::default(),
            namespaces_listed: Listing::default(),
            memory,
            complaint: None,
        }
    }

    /// A pod's namespace has labels, as far as anybody remembers.
    pub fn recall_namespace(&mut self, name: String, labels: Labels) {
        self.namespaces.insert(name, labels);
    }

    /// Whether there is a policy that can be enforced, from whenever.
    pub fn has_policy(&self) -> bool {
        self.index.in_force().is_some()
    }

    /// News of rulesets.
    pub fn ruleset(&mut self, news: News<DynamicObject>) {
        match self.rulesets.listing.hear(news, ResourceExt::name_any) {
            Some(Item::There(object)) => {
                let name = object.name_any();
                if !self.rulesets.is_new(&name, &object) {
                    return;
                }
                let text = text(&slim(object));
                self.index.put_ruleset(&name, text.clone());
                if self.index.rulesets()[&name].problems.is_empty() {
                    self.unconfirmed.insert((Kind::Rulesets, name), Some(text));
                }
            }
            Some(Item::Gone(object)) => self.remove_ruleset(&object.name_any()),
            Some(Item::Listed(names)) => {
                let gone: Vec<_> =
                    self.index.rulesets().keys().filter(|name| !names.contains(*name)).cloned().collect();
                for name in &gone {
                    self.remove_ruleset(name);
                }
            }
            None => {}
        }
    }

    fn remove_ruleset(&mut self, name: &str) {
        self.index.remove_ruleset(name);
        self.rulesets.versions.remove(name);
        self.unconfirmed.insert((Kind::Rulesets, name.to_owned()), None);
    }

    /// News of policies.
    pub fn policy(&mut self, news: News<DynamicObject>) {
        match self.policies.listing.hear(news, ResourceExt::name_any) {
            Some(Item::There(object)) => {
                let name = object.name_any();
                if !self.policies.is_new(&name, &object) {
                    return;
                }
                let text = text(&slim(object));
                self.index.put_policy(&name, text.clone());
                if name == self.index.active() && self.index.policies()[&name].problems.is_empty() {
                    self.unconfirmed.insert((Kind::Policies, IN_FORCE.to_owned()), Some(text));
                }
            }
            Some(Item::Gone(object)) => self.remove_policy(&object.name_any()),
            Some(Item::Listed(names)) => {
                let gone: Vec<_> =
                    self.index.policies().keys().filter(|name| !names.contains(*name)).cloned().collect();
                for name in &gone {
                    self.remove_policy(name);
                }
            }
            None => {}
        }
    }

    fn remove_policy(&mut self, name: &str) {
        self.index.remove_policy(name);
        self.policies.versions.remove(name);
    }

    /// News of namespaces.
    pub fn namespace(&mut self, news: News<PartialObjectMeta<Namespace>>) {
        match self.namespaces_listed.hear(news, ResourceExt::name_any) {
            Some(Item::There(object)) => {
                self.namespaces.insert(object.name_any(), object.metadata.labels.unwrap_or_default());
            }
            Some(Item::Gone(object)) => drop(self.namespaces.remove(&object.name_any())),
            Some(Item::Listed(names)) => self.namespaces.retain(|name, _| names.contains(name)),
            None => {}
        }
    }

    /// Whether everything has been told once.
    pub fn synced(&self) -> bool {
        [&self.rulesets.listing, &self.policies.listing, &self.namespaces_listed].into_iter().all(Listing::is_complete)
    }

    /// Whether no list of what is enforced is under way.
    pub fn is_settled(&self) -> bool {
        self.rulesets.listing.is_settled() && self.policies.listing.is_settled()
    }

    /// Labels of a namespace; none if it is not known (yet).
    pub fn namespace_labels(&self, namespace: &str) -> Labels {
        self.namespaces.get(namespace).cloned().unwrap_or_default()
    }

    /// What is enforced from the start, and why that is not what is asked for: what can't be put in force leaves in force
    /// what an earlier enforcer remembered.
    pub fn first(&mut self) -> Result<(Compiled, Option<String>), String> {
        let before = self.recalled.take();
        let asked = self.enforced();
        match self.compile(asked) {
            Ok(compiled) => Ok((compiled, None)),
            Err(problem) => {
                let before = before.and_then(|before| Compiled::new(before, self.index.catalogue()).ok());
                let first = before.map_or_else(|| Compiled::new(Enforced::default(), self.index.catalogue()), Ok)?;
                Ok((first, Some(problem)))
            }
        }
    }

    /// What is enforced from now on; none: what was enforced before. An error: it can't be put in force as a whole, and
    /// what could be last stays.
    pub fn change(&mut self) -> Option<Result<Compiled, String>> {
        let asked = self.enforced();
        if self.asked.as_ref() == Some(&asked) {
            if self.compiled {
                self.confirm();
            }
            return None;
        }
        Some(self.compile(asked))
    }

    fn compile(&mut self, asked: Enforced) -> Result<Compiled, String> {
        self.asked = Some(asked.clone());
        let compiled = Compiled::new(asked, self.index.catalogue());
        self.compiled = compiled.is_ok();
        if self.compiled {
            self.confirm();
        }
        compiled
    }

    /// Everything that was heard fits together.
    fn confirm(&mut self) {
        for ((kind, name), text) in mem::take(&mut self.unconfirmed) {
            match text {
                Some(text) => self.memory.put_text(kind, &name, &text),
                None => self.memory.remove(kind, &name),
            }
        }
    }

    /// What is asked for. An active policy that is gone or wrong leaves the last good one in force, and so does a ruleset
    /// that became wrong.
    fn enforced(&mut self) -> Enforced {
        let enforced = self.index.enforced();
        let active = self.index.active();
        let mut complaints = Vec::new();
        match self.index.policies().get(active) {
            Some(entry) => complaints.extend(shown(&entry.problems)),
            None if self.policies.listing.is_complete() => {
                complaints.push(format!("policy {active}, which is to be the active one, does not exist"));
            }
            None => {}
        }
        complaints.extend(self.index.rulesets().values().filter_map(|entry| shown(&entry.problems)));
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

/// Under which the policy in force is remembered, whatever its name.
const IN_FORCE: &str = "in-force";

/// An object without what says nothing about enforcement.
fn slim(mut object: DynamicObject) -> DynamicObject {
    object.metadata.managed_fields = None;
    if let Some(data) = object.data.as_object_mut() {
        data.remove("status");
    }
    object
}

/// An object as JSON, for the one reader that judges objects from wherever they come.
fn text(object: &DynamicObject) -> String {
    // A map with text keys can be written.
    serde_json::to_string(object).unwrap_or_default()
}

/// None: nothing is wrong.
fn shown(problems: &[Diagnostic]) -> Option<String> {
    let each = problems.iter().map(|problem| format!("{}: {}: {}", problem.file, problem.field, problem.message));
    (!problems.is_empty()).then(|| each.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::watcher::Event;
    use std::{
        path::Path,
        sync::atomic::{AtomicI64, Ordering},
    };

    fn object(kind: &str, name: &str, spec: &serde_json::Value) -> DynamicObject {
        static NEXT: AtomicI64 = AtomicI64::new(4);
        let generation = NEXT.fetch_add(1, Ordering::Relaxed);
        let object = serde_json::json!({
            "apiVersion": "ringfence.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "generation": generation, "creationTimestamp": "2026-11-28T00:00:00Z",
                "uid": "u", "managedFields": [{"manager": "kubectl", "operation": "Apply"}]},
            "spec": spec,
            "status": {"conditions": []},
        });
        serde_json::from_value(object).unwrap()
    }

    fn ruleset(name: &str, rule: &str) -> DynamicObject {
        object("RuntimeRuleset", name, &serde_json::json!({"rules": [{"rule": rule, "mitigation": "log"}]}))
    }

    fn policy(rulesets: &serde_json::Value) -> DynamicObject {
        object("RuntimePolicy", "main", &serde_json::json!({"rulesets": rulesets}))
    }

    /// As recalled from a folder.
    fn recalled(state: &Path) -> Objects {
        let memory = Memory::new(state);
        Objects::recall(Catalogue::builtin().clone(), "ringfence".to_owned(), "main".to_owned(), memory)
    }

    fn objects(state: &Path) -> Objects {
        let mut objects = recalled(state);
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
        let (first, refused) = objects.first().unwrap();
        assert_eq!((first.enforced().present().len(), refused), (1, None));
        objects
    }

    #[test]
    fn objects_of_the_api_server_are_read_like_files() {
        let state = tempfile::tempdir().unwrap();
        let enforced = objects(state.path()).enforced();
        let [web] = enforced.present() else { panic!("{enforced:?}") };
        assert_eq!((web.name.as_str(), web.rules.len()), ("web", 1));
        assert_eq!(enforced.policy().unwrap().rulesets, ["web"]);
        assert_eq!(enforced.missing().count(), 0);
    }

    #[test]
    fn what_was_good_last_stays_in_force() {
        let state = tempfile::tempdir().unwrap();
        let mut objects = objects(state.path());
        let good = objects.enforced();
        objects.policy(Event::Delete(policy(&serde_json::json!([]))));
        assert_eq!(objects.enforced(), good, "the policy is gone");
        objects.policy(Event::Apply(policy(&serde_json::json!(["Wrong Name"]))));
        assert_eq!(objects.enforced(), good, "the policy is wrong");
        objects.policy(Event::Apply(policy(&serde_json::json!(["web"]))));
        let good = objects.enforced();
        objects.ruleset(Event::Apply(ruleset("web", "RF-9999")));
        assert_eq!(objects.enforced(), good, "the ruleset is wrong");
        objects.ruleset(Event::Delete(ruleset("web", "RF-901")));
        let gone = objects.enforced();
        assert_eq!((gone.present().len(), gone.missing().collect::<Vec<_>>()), (0, vec!["web"]));
    }

    #[test]
    fn a_list_that_begins_anew_replaces_what_was_there() {
        let state = tempfile::tempdir().unwrap();
        let mut objects = objects(state.path());
        objects.ruleset(Event::Init);
        objects.ruleset(Event::InitApply(ruleset("other", "RF-901")));
        assert!(!objects.is_settled() && objects.enforced().present().iter().any(|ruleset| ruleset.name == "web"));
        objects.ruleset(Event::InitDone);
        let names: Vec<_> = objects.enforced().present().iter().map(|ruleset| ruleset.name.clone()).collect();
        assert_eq!(names, ["other"]);
    }

    #[test]
    fn an_object_that_can_not_be_read_does_not_hide_the_others() {
        let state = tempfile::tempdir().unwrap();
        let mut objects = objects(state.path());
        objects.ruleset(Event::Apply(object("RuntimeRuleset", "odd", &serde_json::json!({"rules": 5}))));
        let names: Vec<_> = objects.enforced().present().iter().map(|ruleset| ruleset.name.clone()).collect();
        assert_eq!(names, ["web"]);
    }

    #[test]
    fn what_was_in_force_is_recalled_by_the_next_enforcer() {
        let state = tempfile::tempdir().unwrap();
        assert!(!recalled(state.path()).has_policy(), "there was none");
        let mut objects = objects(state.path());
        objects.ruleset(Event::Apply(ruleset("gone", "RF-901")));
        assert!(objects.change().unwrap().is_ok());
        objects.ruleset(Event::Delete(ruleset("gone", "RF-901")));
        assert!(objects.change().unwrap().is_ok());
        let good = objects.enforced();
        objects.policy(Event::Apply(policy(&serde_json::json!(["Wrong Name"]))));
        objects.ruleset(Event::Apply(ruleset("web", "RF-9999")));
        assert!(objects.change().is_none());
        let mut next = recalled(state.path());
        assert!(next.has_policy() && !next.synced());
        assert_eq!(next.enforced(), good);
        // What is wrong at the API server still is no reason to enforce nothing.
        next.policy(Event::Init);
        next.policy(Event::InitApply(policy(&serde_json::json!(["Wrong Name"]))));
        next.policy(Event::InitDone);
        assert_eq!(next.enforced(), good);
        // What is gone there is gone.
        next.ruleset(Event::Init);
        next.ruleset(Event::InitDone);
        assert_eq!(next.enforced().present(), []);
        assert!(next.change().unwrap().is_ok());
        assert_eq!(recalled(state.path()).enforced().present(), []);
    }

    /// Many of them do not fit into the kernel's tables: the exceptions of each are others.
    fn demanding(number: usize) -> DynamicObject {
        let exceptions = serde_json::json!([{"processes": [format!("/opt/{number}")]}]);
        let rule = |id| serde_json::json!({"rule": id, "mitigation": "log", "exceptions": exceptions});
        let rules: Vec<_> = ["RF-211", "RF-401", "RF-903", "RF-906"].into_iter().map(rule).collect();
        object("RuntimeRuleset", &format!("demanding-{number}"), &serde_json::json!({"rules": rules}))
    }

    #[test]
    fn what_does_not_fit_together_leaves_all_of_it_as_it_was() {
        let state = tempfile::tempdir().unwrap();
        let mut objects = objects(state.path());
        let good = objects.enforced();
        let names: Vec<String> = (0..40).map(|number| format!("demanding-{number}")).collect();
        let ask_for_too_much = |objects: &mut Objects| {
            for number in 0..names.len() {
                objects.ruleset(Event::Apply(demanding(number)));
            }
            objects.policy(Event::Apply(policy(&serde_json::json!(names))));
        };
        ask_for_too_much(&mut objects);
        let problem = objects.change().unwrap().err().unwrap();
        assert!(problem.starts_with("class Open is full"), "{problem}");
        assert!(objects.change().is_none(), "it is told once");
        // An enforcer that starts then, with an API server and without.
        let mut next = recalled(state.path());
        let (first, refused) = next.first().unwrap();
        assert_eq!((first.enforced(), refused), (&good, None));
        let mut next = recalled(state.path());
        ask_for_too_much(&mut next);
        let (first, refused) = next.first().unwrap();
        assert_eq!((first.enforced(), refused.as_ref()), (&good, Some(&problem)));
        // It is mended.
        next.policy(Event::Apply(policy(&serde_json::json!(["web", "demanding-0"]))));
        let mended = next.change().unwrap().unwrap();
        assert_eq!(mended.enforced().rulesets().count(), 2);
        assert_eq!(&recalled(state.path()).enforced(), mended.enforced());
        // Without anything to fall back to nothing is enforced, and it is said.
        let empty = tempfile::tempdir().unwrap();
        let mut next = recalled(empty.path());
        ask_for_too_much(&mut next);
        let (first, refused) = next.first().unwrap();
        assert_eq!((first.enforced().rulesets().count(), refused), (0, Some(problem)));
    }
}
