//! The rulesets in force, compiled, by generation.

use jiff::Timestamp;
use ringfence_abi::{Op, flag};
use ringfence_containers::Container;
use ringfence_control::{Escaped, Explanation, RulesetsStatus, sources};
use ringfence_policy::{
    Catalogue, Labels, ResolvedRuleset, Rule, RuleId, Ruleset, Source, Subject, Tables, compile, read, resolve,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Rulesets from a file or folder, and their compiled rules.
pub struct Rulesets {
    path: PathBuf,
    catalogue: Catalogue,
    texts: Vec<(String, String)>,
    /// In force.
    pub all: Vec<Ruleset>,
    /// Their rules, compiled.
    pub tables: Arc<Tables>,
    loaded_at: Timestamp,
    rejected: Option<String>,
}

impl Rulesets {
    /// Reads and compiles. Any problem is an error: there is nothing to fall back to yet.
    pub fn load(path: &Path, catalogue: Catalogue) -> Result<Self, String> {
        let sources = sources::read(path).map_err(|error| error.to_string())?;
        let (all, tables) = compiled(&sources, &catalogue)?;
        if all.is_empty() {
            return Err(format!("{}: no ruleset in it (*.yaml, *.yml): nothing would be enforced", path.display()));
        }
        Ok(Self {
            path: path.to_owned(),
            catalogue,
            texts: texts(&sources),
            all,
            tables: Arc::new(tables),
            loaded_at: Timestamp::now(),
            rejected: None,
        })
    }

    /// Looks for changes. True: others are in force now. A change that has a problem is refused whole, once.
    pub fn reload(&mut self) -> bool {
        let sources = match sources::read(&self.path) {
            Ok(sources) => sources,
            Err(error) => {
                self.reject(error.to_string());
                return false;
            }
        };
        let texts = texts(&sources);
        if texts == self.texts {
            self.rejected = None;
            return false;
        }
        match compiled(&sources, &self.catalogue) {
            Ok((all, tables)) => {
                tracing::info!(rulesets = all.len(), "rulesets changed");
                (self.all, self.tables, self.texts) = (all, Arc::new(tables), texts);
                (self.loaded_at, self.rejected) = (Timestamp::now(), None);
                true
            }
            Err(problem) => {
                self.reject(problem);
                false
            }
        }
    }

    fn reject(&mut self, problem: String) {
        if self.rejected.as_ref() != Some(&problem) {
            tracing::error!("the rulesets in force stay, the change is refused: {problem}");
            self.rejected = Some(problem);
        }
    }

    /// What governs a container.
    pub fn resolve(&self, container: &Container) -> ResolvedRuleset {
        let namespace_labels = namespace_labels(container);
        let subject = Subject { labels: container.selector_labels(), namespace_labels: &namespace_labels };
        resolve(&self.all, subject)
    }

    /// The same, with the reasons.
    pub fn explain(&self, container: &Container) -> Explanation {
        let namespace_labels = namespace_labels(container);
        let subject = Subject { labels: container.selector_labels(), namespace_labels: &namespace_labels };
        Explanation::new(Some(&container.key.id), subject, &self.all, &self.catalogue)
    }

    /// Rules that some ruleset names.
    pub fn rules(&self) -> BTreeSet<RuleId> {
        self.all.iter().flat_map(|ruleset| ruleset.rules.keys().copied()).collect()
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
        RulesetsStatus {
            directory: Escaped::from(self.path.to_string_lossy().as_ref()),
            names: self.all.iter().map(|ruleset| ruleset.name.clone()).collect(),
            files: self.texts.iter().map(|(name, _)| Escaped::from(name.as_str())).collect(),
            hash: self.hash(),
            loaded_at: Some(self.loaded_at),
            rejected: self.rejected.as_deref().map(Escaped::from),
        }
    }

    /// Of everything that is in force, whatever a container's labels.
    fn hash(&self) -> String {
        let everything: BTreeMap<&str, _> = self.all.iter().map(|r| (r.name.as_str(), &r.rules)).collect();
        let resolved = resolve(&self.all, Subject::without_namespace(&Labels::new()));
        format!("{}-{}", resolved.hash(), everything.len())
    }
}

/// The one label that a node knows of a namespace without asking an API server.
fn namespace_labels(container: &Container) -> Labels {
    let name = container.pod.as_ref().map(|pod| pod.namespace.clone());
    name.map(|name| ("kubernetes.io/metadata.name".to_owned(), name)).into_iter().collect()
}

fn texts(sources: &[Source]) -> Vec<(String, String)> {
    sources.iter().map(|source| (source.name.clone(), source.text.clone())).collect()
}

fn compiled(sources: &[Source], catalogue: &Catalogue) -> Result<(Vec<Ruleset>, Tables), String> {
    let all = read(sources, catalogue).map_err(|problems| problems.to_string())?;
    let ids: BTreeSet<RuleId> = all.iter().flat_map(|ruleset| ruleset.rules.keys().copied()).collect();
    let rules = catalogue.rules().filter(|rule| ids.contains(&rule.id));
    let tables = compile(rules).map_err(|problem| problem.to_string())?;
    Ok((all, tables))
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
