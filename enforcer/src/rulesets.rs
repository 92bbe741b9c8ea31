//! The rulesets in force, compiled, by generation.

use jiff::Timestamp;
use ringfence_abi::{Op, flag};
use ringfence_containers::{Container, NAMESPACE_NAME};
use ringfence_control::{Escaped, Explanation, RulesetsStatus, sources};
use ringfence_policy::{
    Catalogue, Enforced, Labels, PodFacts, Policy, ResolvedRuleset, Rule, RuleId, Ruleset, Source, Standing, Subject,
    Tables, read, resolve,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What is to be enforced, with the rules of the rulesets that its policy names, compiled.
#[derive(Clone)]
pub struct Compiled {
    enforced: Enforced,
    tables: Arc<Tables>,
}

impl Compiled {
    /// An error: the rules do not fit together.
    pub fn new(enforced: Enforced, catalogue: &Catalogue) -> Result<Self, String> {
        let tables = Arc::new(enforced.compile(catalogue).map_err(|problem| problem.to_string())?);
        Ok(Self { enforced, tables })
    }

    /// What was compiled.
    pub fn enforced(&self) -> &Enforced {
        &self.enforced
    }
}

/// The rulesets in force, and their compiled rules.
pub struct Rulesets {
    catalogue: Catalogue,
    origin: Origin,
    in_force: Compiled,
    loaded_at: Timestamp,
    rejected: Option<String>,
}

/// Where rulesets come from.
enum Origin {
    /// A file or folder; its files as they were read last.
    Files { path: PathBuf, texts: Vec<(String, String)> },
    /// The API server.
    Cluster,
}

impl Rulesets {
    /// Reads and compiles a file or folder. Any problem is an error: there is nothing to fall back to yet.
    pub fn load(path: &Path, catalogue: Catalogue) -> Result<Self, String> {
        let sources = sources::read(path).map_err(|error| error.to_string())?;
        let enforced = everything(&sources, &catalogue)?;
        if enforced.present().is_empty() {
            return Err(format!("{}: no ruleset in it (*.yaml, *.yml): nothing would be enforced", path.display()));
        }
        let origin = Origin::Files { path: path.to_owned(), texts: texts(&sources) };
        Ok(Self::new(Compiled::new(enforced, &catalogue)?, catalogue, origin))
    }

    /// Takes what the cluster enforces.
    pub fn of_cluster(in_force: Compiled, catalogue: Catalogue) -> Self {
        Self::new(in_force, catalogue, Origin::Cluster)
    }

    fn new(in_force: Compiled, catalogue: Catalogue, origin: Origin) -> Self {
        Self { catalogue, origin, in_force, loaded_at: Timestamp::now(), rejected: None }
    }

    /// The rules of the rulesets that the policy names, compiled.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.in_force.tables
    }

    /// Looks for changes of the files. True: others are in force now. A change that has a problem is refused whole, once.
    pub fn reload(&mut self) -> bool {
        let Origin::Files { path, texts: before } = &self.origin else { return false };
        let sources = match sources::read(path) {
            Ok(sources) => sources,
            Err(error) => {
                self.reject(error.to_string());
                return false;
            }
        };
        let texts = texts(&sources);
        if texts == *before {
            self.rejected = None;
            return false;
        }
        let origin = Origin::Files { path: path.clone(), texts };
        let compiled =
            everything(&sources, &self.catalogue).and_then(|enforced| Compiled::new(enforced, &self.catalogue));
        match compiled {
            Ok(compiled) => {
                self.origin = origin;
                self.replace(compiled);
                true
            }
            Err(problem) => {
                self.reject(problem);
                false
            }
        }
    }

    /// Takes what the cluster enforces now. True: others are in force.
    pub fn change(&mut self, compiled: Compiled) -> bool {
        let differs = compiled.enforced != self.in_force.enforced;
        if differs {
            self.replace(compiled);
        } else {
            self.rejected = None;
        }
        differs
    }

    fn replace(&mut self, compiled: Compiled) {
        tracing::info!(rulesets = compiled.enforced.rulesets().count(), "rulesets changed");
        self.in_force = compiled;
        (self.loaded_at, self.rejected) = (Timestamp::now(), None);
    }

    /// Others are asked for, and can't be put in force.
    pub fn reject(&mut self, problem: String) {
        if self.rejected.as_ref() != Some(&problem) {
            tracing::error!("the rulesets in force stay, the change is refused: {problem}");
            self.rejected = Some(problem);
        }
    }

    /// The policy in force; of files the one that is nowhere written: everything.
    pub fn policy(&self) -> Option<&Policy> {
        self.in_force.enforced.policy()
    }

    /// What the cluster, or the files, ask for.
    pub fn enforced(&self) -> &Enforced {
        &self.in_force.enforced
    }

    /// Why the last change was refused.
    pub fn rejected(&self) -> Option<&str> {
        self.rejected.as_deref()
    }

    /// What governs a container or pod, as things stand with its workload. Nothing, if the policy exempts it.
    pub fn resolve(&self, container: &Container, standing: Option<Standing>) -> ResolvedRuleset {
        let labels = namespace_labels(container);
        let pod = container.pod.as_ref();
        let facts = PodFacts {
            namespace: pod.map(|pod| pod.namespace.as_str()).unwrap_or_default(),
            name: pod.map(|pod| pod.name.as_str()).unwrap_or_default(),
            labels: container.selector_labels(),
            namespace_labels: &labels,
            is_static: pod.is_some_and(|pod| pod.is_static),
            standing,
        };
        self.in_force.enforced.resolve(facts).unwrap_or_default()
    }

    /// The same, with the reasons.
    pub fn explain(&self, container: &Container) -> Explanation {
        let namespace_labels = namespace_labels(container);
        let subject = Subject { labels: container.selector_labels(), namespace_labels: &namespace_labels };
        let rulesets: Vec<Ruleset> = self.in_force.enforced.rulesets().cloned().collect();
        Explanation::new(Some(&container.key.id), subject, &rulesets, &self.catalogue)
    }

    /// Rules that some ruleset in force names.
    pub fn rules(&self) -> BTreeSet<RuleId> {
        rules(&self.in_force.enforced)
    }

    /// The same, with all that is known of them.
    pub fn named(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let ids = self.rules();
        self.catalogue.rules().filter(move |rule| ids.contains(&rule.id))
    }

    /// What rulesets choose from.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// For status.
    pub fn status(&self) -> RulesetsStatus {
        let (directory, files) = match &self.origin {
            Origin::Files { path, texts } => {
                let files = texts.iter().map(|(name, _)| Escaped::from(name.as_str())).collect();
                (Some(Escaped::from(path.to_string_lossy().as_ref())), files)
            }
            Origin::Cluster => (None, Vec::new()),
        };
        RulesetsStatus {
            directory,
            policy: self.policy().map(|policy| policy.name.clone()).filter(|name| !name.is_empty()),
            names: self.in_force.enforced.rulesets().map(|ruleset| ruleset.name.clone()).collect(),
            files,
            hash: self.hash(),
            loaded_at: Some(self.loaded_at),
            rejected: self.rejected.as_deref().map(Escaped::from),
        }
    }

    /// Of everything that is in force, whatever a container's labels.
    fn hash(&self) -> String {
        let resolved = resolve(self.in_force.enforced.rulesets(), Subject::without_namespace(&Labels::new()));
        format!("{}-{}", resolved.hash(), self.in_force.enforced.rulesets().count())
    }
}

/// A node that asks no API server knows one label of a namespace: its name.
fn namespace_labels(container: &Container) -> Labels {
    let Some(pod) = &container.pod else { return Labels::new() };
    if pod.namespace_labels.is_empty() && !pod.namespace.is_empty() {
        return Labels::from([(NAMESPACE_NAME.to_owned(), pod.namespace.clone())]);
    }
    pod.namespace_labels.clone()
}

fn texts(sources: &[Source]) -> Vec<(String, String)> {
    sources.iter().map(|source| (source.name.clone(), source.text.clone())).collect()
}

/// Files know no policy: all of their rulesets are enforced.
fn everything(sources: &[Source], catalogue: &Catalogue) -> Result<Enforced, String> {
    let rulesets = read(sources, catalogue).map_err(|problems| problems.to_string())?;
    Ok(Enforced::new("", Some(Policy::everything(&rulesets)), rulesets))
}

fn rules(enforced: &Enforced) -> BTreeSet<RuleId> {
    enforced.rulesets().flat_map(|ruleset| ruleset.rules.keys().copied()).collect()
}

/// The rules of a folder; of none: the managed ones.
pub fn catalogue(folder: Option<&Path>) -> Result<Catalogue, String> {
    let Some(folder) = folder else { return Ok(Catalogue::builtin().clone()) };
    let files = sources::read(folder).map_err(|error| error.to_string())?;
    let files = files.iter().map(|file| (file.name.as_str(), file.text.as_str()));
    let catalogue = Catalogue::read(files).map_err(|error| error.to_string())?;
    if catalogue.rules().len() == 0 {
        return Err(format!("{}: no rule in it (RF-nnn.yaml): rulesets could name none", folder.display()));
    }
    Ok(catalogue)
}

/// Operations that have to be observed for these tables.
pub fn ops(tables: &Tables) -> BTreeSet<Op> {
    let mut ops = tables.ops();
    // Whether an image's file was rewritten is only known to who sees it opened for writing.
    let drift = ringfence_abi::Class::ALL.into_iter().any(|class| {
        tables.lines(class).iter().any(|line| line.rule.lines[line.index].flags.required & flag::DRIFTED != 0)
    });
    if drift {
        ops.insert(Op::Open);
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn rules_of_a_folder_replace_the_managed_ones() {
        let folder = tempfile::tempdir().unwrap();
        let error = catalogue(Some(folder.path())).unwrap_err();
        assert!(error.contains("no rule in it"), "{error}");

        let (_, text) = Catalogue::builtin_files().iter().find(|(name, _)| *name == "RF-501.yaml").unwrap();
        let file = folder.path().join("RF-599.yaml");
        fs::write(&file, text.replace("id: RF-501", "id: RF-599")).unwrap();
        let own = catalogue(Some(folder.path())).unwrap();
        assert_eq!(own.rules().map(|rule| rule.id.to_string()).collect::<Vec<_>>(), ["RF-599"]);

        let header =
            "apiVersion: ringfence.dev/v1alpha1\nkind: RuntimeRuleset\nmetadata: {name: own}\nspec:\n  rules:\n";
        let rulesets = folder.path().join("rulesets");
        fs::create_dir(&rulesets).unwrap();
        fs::write(rulesets.join("own.yaml"), format!("{header}    - {{rule: RF-599, mitigation: log}}\n")).unwrap();
        let named = Rulesets::load(&rulesets, own.clone()).unwrap();
        assert_eq!(named.named().count(), 1);
        fs::write(rulesets.join("own.yaml"), format!("{header}    - {{rule: RF-501, mitigation: log}}\n")).unwrap();
        let error = Rulesets::load(&rulesets, own).err().unwrap();
        assert!(error.contains("own.yaml:6:") && error.contains("did you mean 'RF-599'"), "{error}");

        fs::write(&file, text.replace("severity: high", "severity: heigh")).unwrap();
        let error = catalogue(Some(folder.path())).unwrap_err();
        assert!(error.starts_with(&format!("{}:9:11: ", file.display())), "{error}");
        let error = catalogue(Some(&folder.path().join("missing"))).unwrap_err();
        assert!(error.starts_with("cannot read ") && error.contains("missing"), "{error}");
    }
}
