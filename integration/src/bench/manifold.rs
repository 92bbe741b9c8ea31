//! The catalogue many times over, for an enforcer that takes its rules from a folder: what matching costs must not
//! depend on how many there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ringfence_policy::{Catalogue, RuleId, compile};
use serde_json::Value;

use super::{HUNDRED, write_some};
use crate::rulesets;

/// How many times the catalogue is wanted.
const WANTED: usize = 10;

/// Keys of a line whose values are paths, names or arguments.
const TEXTS: [&str; 15] = [
    "path",
    "not_path",
    "name",
    "not_name",
    "exe",
    "not_exe",
    "exe_name",
    "not_exe_name",
    "parent",
    "not_parent",
    "parent_name",
    "not_parent_name",
    "ancestor",
    "not_ancestor",
    "arg",
];

/// A catalogue of which every rule has variants with other paths, names and arguments.
pub struct Manifold {
    /// Folder of the rules.
    pub catalogue: PathBuf,
    /// Folder of rulesets that name them.
    pub rulesets: PathBuf,
    /// How many times the built-in catalogue it is.
    pub times: usize,
    /// Rules in all.
    pub rules: usize,
    /// How it was made, for readers.
    pub note: String,
}

impl Manifold {
    /// Writes it below `directory`: ten times the catalogue, or as often as the fullest class takes.
    pub fn write(directory: &Path) -> Result<Self> {
        let tables = compile(Catalogue::builtin().rules())?;
        let classes = ringfence_abi::Class::ALL.map(|class| (tables.lines(class).len(), class));
        let (lines, fullest) = classes.into_iter().max_by_key(|(lines, _)| *lines).context("no class")?;
        let times = WANTED.min(ringfence_abi::LINES / lines.max(1));
        ensure!(times > 1, "class {fullest:?} has {lines} lines already: no second set fits");

        let catalogue = directory.join("catalogue");
        fs::create_dir_all(&catalogue)?;
        let files = variants(times)?;
        for (name, text) in &files {
            fs::write(catalogue.join(name), text)?;
        }
        let read = Catalogue::read(files.iter().map(|(name, text)| (name.as_str(), text.as_str())))?;
        compile(read.rules())?;
        let rulesets = directory.join("manifold-rulesets");
        rulesets::write(&rulesets, &read)?;
        write_some(&rulesets, HUNDRED, 100, &read)?;
        let more = if times == WANTED { "" } else { ": more would not fit" };
        let note = format!(
            "{times} times the rules: each with {} variants whose paths, names and arguments are others; class {} has \
             {} of {} lines then{more}.",
            times - 1,
            format!("{fullest:?}").to_lowercase(),
            lines * times,
            ringfence_abi::LINES
        );
        Ok(Self { catalogue, rulesets, times, rules: read.rules().len(), note })
    }
}

/// The built-in files, and `times - 1` variants of each under ids that are free.
fn variants(times: usize) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    let taken: BTreeSet<RuleId> = Catalogue::builtin().rules().map(|rule| rule.id).collect();
    let mut free = (0..).map_while(RuleId::new).filter(|id| !taken.contains(id));
    for (name, text) in Catalogue::builtin_files() {
        files.push(((*name).to_owned(), (*text).to_owned()));
        let original: Value = serde_saphyr::from_str(text).with_context(|| (*name).to_owned())?;
        for number in 1..times {
            let id = free.next().context("all ids are taken")?;
            let mut rule = original.clone();
            rule["id"] = id.to_string().into();
            rule["aliases"] = serde_json::json!({});
            for line in rule["lines"].as_array_mut().context("lines are a list")? {
                vary_line(line, number);
            }
            // JSON is YAML.
            files.push((format!("{id}.yaml"), rule.to_string()));
        }
    }
    Ok(files)
}

fn vary_line(line: &mut Value, number: usize) {
    for key in TEXTS {
        match line.get_mut(key) {
            Some(Value::Array(values)) => values.iter_mut().for_each(|value| vary(value, number)),
            Some(value) => vary(value, number),
            None => {}
        }
    }
}

/// `/etc/shadow` becomes `/etc/shadow-3`, `/etc/pam.d/*` becomes `/etc/pam.d-3/*`.
fn vary(value: &mut Value, number: usize) {
    // What looks like a number is one here; as an argument it is text.
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (text, star) = text.strip_suffix('*').map_or((text.as_str(), ""), |text| (text, "*"));
    let (text, slash) = text.strip_suffix('/').map_or((text, ""), |text| (text, "/"));
    let root = if text.is_empty() && !slash.is_empty() { "/" } else { "" };
    *value = format!("{root}{text}-{number}{slash}{star}").into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_valid_and_ask_for_something_else() {
        let varied = |text: &str| {
            let mut value = Value::from(text);
            vary(&mut value, 3);
            value.as_str().unwrap().to_owned()
        };
        assert_eq!(varied("/etc/shadow"), "/etc/shadow-3");
        assert_eq!(varied("/etc/pam.d/*"), "/etc/pam.d-3/*");
        assert_eq!(varied("apt*"), "apt-3*");
        assert_eq!(varied("/*"), "/-3/*");

        let folder = tempfile::tempdir().unwrap();
        let manifold = Manifold::write(folder.path()).unwrap();
        assert_eq!(manifold.rules, manifold.times * Catalogue::builtin().rules().len());
        assert_eq!(fs::read_dir(&manifold.catalogue).unwrap().count(), manifold.rules);
    }
}
