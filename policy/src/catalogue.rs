//! The managed rule catalogue: one file per rule, compiled into the program. Others can be read from files as well.

mod markdown;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use crate::nearest::nearest;
use crate::rule::{Rule, RuleId, TACTICS};
use crate::yaml::{self, Place};

pub use markdown::markdown;

// `FILES: [(&str, &str); n]`, name and content of every file under catalogue/; written by build.rs.
include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// A file that is not a rule, or one that contradicts another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct CatalogueError {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
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

    /// Name and text of the managed catalogue's files: what a catalogue of one's own may begin with.
    pub fn builtin_files() -> &'static [(&'static str, &'static str)] {
        &FILES
    }

    /// Reads rules from files: path and content of each. A file is named after its rule, `RF-nnn.yaml`.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::default();
        for (file, text) in files {
            let wrong = |place: Place, message| {
                let Place { line, column } = place;
                CatalogueError { file: file.into(), line, column, message }
            };
            let rule: Rule = serde_saphyr::from_str(text).map_err(|error| {
                let refusal = yaml::refusal(&error);
                wrong(refusal.place, refusal.message)
            })?;
            let id = rule.id.to_string();
            if Path::new(file).file_name().is_none_or(|name| name != format!("{id}.yaml").as_str()) {
                return Err(wrong(place_of(text, &id), format!("the file of {id} is named {id}.yaml")));
            }
            catalogue.add(rule).map_err(|(what, message)| wrong(place_of(text, &what), message))?;
        }
        Ok(catalogue)
    }

    /// Adds a rule; the error says which of its words contradicts another rule, and how.
    fn add(&mut self, rule: Rule) -> Result<(), (String, String)> {
        if self.rules.contains_key(&rule.id) {
            return Err((rule.id.to_string(), format!("{} is there twice", rule.id)));
        }
        for alias in rule.aliases.iter() {
            if let Some(other) = self.aliases.insert(alias.into(), rule.id) {
                return Err((alias.into(), format!("alias '{alias}' belongs to {other} already")));
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
        self.rules().filter(move |rule| *rule.tactic == *tactic)
    }

    /// The rules of a technique (`T1059`, which includes its sub-techniques, or `T1059.004`).
    pub fn by_technique<'a>(&'a self, technique: &'a str) -> impl Iterator<Item = &'a Arc<Rule>> {
        let of =
            move |id: &String| id.strip_prefix(technique).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.rules().filter(move |rule| rule.techniques.iter().any(of))
    }

    /// The id, alias or tactic that is nearest to a misspelt one.
    pub fn nearest(&self, id_or_alias: &str) -> Option<String> {
        let ids: Vec<_> = self.rules.keys().map(RuleId::to_string).collect();
        let names = ids.iter().map(String::as_str).chain(self.aliases.keys().map(String::as_str));
        nearest(id_or_alias, names.chain(TACTICS)).map(Into::into)
    }
}

/// Where a word of a file stands first.
fn place_of(text: &str, word: &str) -> Place {
    let found = text.lines().zip(1..).find_map(|(line, number)| {
        let before = &line[..line.find(word)?];
        Some(Place { line: number, column: before.chars().count() as u64 + 1 })
    });
    found.unwrap_or(Place { line: 1, column: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(files: &[(&str, &str)]) -> String {
        Catalogue::read(files.iter().copied()).expect_err("refused").to_string()
    }

    fn rule(id: &str) -> &'static str {
        let name = format!("{id}.yaml");
        FILES.iter().find(|(file, _)| *file == name).expect("a rule of the catalogue").1
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let text = rule("RF-901");
        let severity = text.lines().position(|line| line.starts_with("severity:")).expect("a severity") + 1;
        let misspelt = text.replace("severity: ", "severity: very-");
        let error = refused(&[("/etc/rules/RF-901.yaml", &misspelt)]);
        assert!(error.starts_with(&format!("/etc/rules/RF-901.yaml:{severity}:11: ")), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");

        let error = refused(&[("/etc/rules/RF-999.yaml", text)]);
        assert_eq!(error, "/etc/rules/RF-999.yaml:1:5: the file of RF-901 is named RF-901.yaml");
        let error = refused(&[("a/RF-901.yaml", text), ("b/RF-901.yaml", text)]);
        assert_eq!(error, "b/RF-901.yaml:1:5: RF-901 is there twice");
        let alias =
            Catalogue::builtin().get("RF-501".parse().expect("an id")).expect("a rule").aliases.falco[0].clone();
        let thief = rule("RF-501").replace("id: RF-501", "id: RF-599");
        let error = refused(&[("RF-501.yaml", rule("RF-501")), ("RF-599.yaml", &thief)]);
        let line = thief.lines().position(|line| line.contains(&alias)).expect("the alias") + 1;
        assert!(error.starts_with(&format!("RF-599.yaml:{line}:")), "{error}");
        assert!(error.ends_with(&format!("alias '{alias}' belongs to RF-501 already")), "{error}");
    }

    #[test]
    fn a_line_that_cannot_work_is_named_with_its_place() {
        let text = rule("RF-501").replace("flags: [read, regular]", "flags: [raed, regular]");
        let error = refused(&[("RF-501.yaml", &text)]);
        let line = text.lines().position(|line| line == "  - on: open").expect("its line") + 1;
        assert_eq!(error, format!("RF-501.yaml:{line}:5: 'raed' is not a flag, did you mean 'read'?"));
    }
}
