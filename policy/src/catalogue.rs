//! The managed rule catalogue: one file per rule, compiled into the program.

mod markdown;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::nearest::nearest;
use crate::rule::{Rule, RuleId};

pub use markdown::markdown;

// `FILES: [(&str, &str); n]`, name and content of every file under catalogue/; written by build.rs.
include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// A file that is not a rule, or one that contradicts another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {message}")]
pub struct CatalogueError {
    /// Name of the file.
    pub file: String,
    /// What is wrong.
    pub message: String,
}

/// A set of rules that is looked up by id and alias.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    rules: BTreeMap<RuleId, Arc<Rule>>,
    aliases: BTreeMap<String, RuleId>,
}

static BUILTIN: LazyLock<Catalogue> = LazyLock::new(|| {
    Catalogue::read(FILES.iter().copied()).unwrap_or_else(|error| panic!("the catalogue is tested at build: {error}"))
});

impl Catalogue {
    /// The managed catalogue.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// Reads rules from files: name and content of each. A file is named after its rule, `RF-nnn.yaml`.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::default();
        for (file, text) in files {
            let wrong = |message| CatalogueError { file: file.into(), message };
            let rule: Rule = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
            if file.strip_suffix(".yaml") != Some(rule.id.to_string().as_str()) {
                return Err(wrong(format!("the file of {0} is named {0}.yaml", rule.id)));
            }
            catalogue.add(rule).map_err(wrong)?;
        }
        Ok(catalogue)
    }

    /// Adds a rule; the error says what it contradicts.
    fn add(&mut self, rule: Rule) -> Result<(), String> {
        if self.rules.contains_key(&rule.id) {
            return Err(format!("{} is there twice", rule.id));
        }
        for alias in rule.aliases.iter() {
            if let Some(other) = self.aliases.insert(alias.into(), rule.id) {
                return Err(format!("alias '{alias}' belongs to {other} already"));
            }
        }
        self.rules.insert(rule.id, Arc::new(rule));
        Ok(())
    }

    /// All rules, by id.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Arc<Rule>> {
        self.rules.values()
    }

    /// The rule with an id.
    pub fn get(&self, id: RuleId) -> Option<&Arc<Rule>> {
        self.rules.get(&id)
    }

    /// The rule with an id or alias, as users write it.
    pub fn find(&self, id_or_alias: &str) -> Option<&Arc<Rule>> {
        let id = id_or_alias.parse().ok().or_else(|| self.aliases.get(id_or_alias).copied())?;
        self.get(id)
    }

    /// The rules of a tactic.
    pub fn by_tactic<'a>(&'a self, tactic: &'a str) -> impl Iterator<Item = &'a Arc<Rule>> {
        self.rules().filter(move |rule| rule.tactic == tactic)
    }

    /// The rules of a technique (`T1059`, which includes its sub-techniques, or `T1059.004`).
    pub fn by_technique<'a>(&'a self, technique: &'a str) -> impl Iterator<Item = &'a Arc<Rule>> {
        let of =
            move |id: &String| id.strip_prefix(technique).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.rules().filter(move |rule| rule.techniques.iter().any(of))
    }

    /// The id or alias that is nearest to a misspelt one.
    pub fn nearest(&self, id_or_alias: &str) -> Option<String> {
        let ids: Vec<_> = self.rules.keys().map(RuleId::to_string).collect();
        let names = ids.iter().map(String::as_str).chain(self.aliases.keys().map(String::as_str));
        nearest(id_or_alias, names).map(Into::into)
    }
}
