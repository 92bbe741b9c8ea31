//! Catalogues that are larger than the built-in one, for an enforcer that takes its rules from a folder: what matching
//! costs must not depend on how many there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use anyhow::{Context, Result, ensure};
use ringfence_abi::{Class, LINES};
use ringfence_policy::{Catalogue, RuleId, compile};
use serde_json::Value;

use super::{HUNDRED, THOUSAND, write_some};
use crate::rulesets;

/// How many times the catalogue is wanted.
const WANTED: usize = 10;

/// As many rules as there are ids.
pub const MOST: usize = 1000;

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

/// A catalogue, and rulesets that name its rules.
pub struct Folders {
    /// Folder of the rules.
    pub catalogue: PathBuf,
    /// Folder of the rulesets.
    pub rulesets: PathBuf,
}

impl Folders {
    /// Writes the rules; what was read of them, besides.
    fn write(directory: &Path, files: &[(String, String)]) -> Result<(Self, Catalogue)> {
        let folders = Self { catalogue: directory.join("catalogue"), rulesets: directory.join("rulesets") };
        fs::create_dir_all(&folders.catalogue)?;
        fs::create_dir_all(&folders.rulesets)?;
        for (name, text) in files {
            fs::write(folders.catalogue.join(name), text)?;
        }
        let read = Catalogue::read(files.iter().map(|(name, text)| (name.as_str(), text.as_str())))?;
        compile(read.rules())?;
        Ok((folders, read))
    }
}

/// A catalogue of which every rule has variants with other paths, names and arguments.
pub struct Manifold {
    /// Of the whole built-in catalogue, several times.
    pub whole: Folders,
    /// Of a thousand rules.
    pub thousand: Folders,
    /// How many times the built-in catalogue the first one is.
    pub times: usize,
    /// Rules in it.
    pub rules: usize,
    /// How both were made, for readers.
    pub note: String,
}

impl Manifold {
    /// Writes both below `directory`: ten times the catalogue, or as often as the fullest class takes; and a thousand rules.
    pub fn write(directory: &Path) -> Result<Self> {
        let lines = builtin_lines()?;
        let (fullest, most) = lines.into_iter().max_by_key(|(_, lines)| *lines).context("no class")?;
        let times = WANTED.min(LINES / most.max(1));
        ensure!(times > 1, "class {fullest:?} has {most} lines already: no second set fits");

        let (whole, read) = Folders::write(&directory.join("manifold"), &variants(times)?)?;
        rulesets::write(&whole.rulesets, &read)?;
        write_some(&whole.rulesets, HUNDRED, 100, &read)?;
        let rules = read.rules().len();
        let (thousand, read) = Folders::write(&directory.join(THOUSAND), &single_lines()?)?;
        write_some(&thousand.rulesets, THOUSAND, MOST, &read)?;

        let more = if times == WANTED { "" } else { ": more would not fit" };
        let note = format!(
            "{times} times the rules: each with {} variants whose paths, names and arguments are others; class {} has \
             {} of {LINES} lines then{more}. {MOST} rules: the catalogue, and of its lines one by one such variants, of \
             each class as many as fit.",
            times - 1,
            format!("{fullest:?}").to_lowercase(),
            most * times,
        );
        Ok(Self { whole, thousand, times, rules, note })
    }
}

/// Lines of the built-in catalogue by class.
fn builtin_lines() -> Result<[(Class, usize); Class::ALL.len()]> {
    let tables = compile(Catalogue::builtin().rules())?;
    Ok(Class::ALL.map(|class| (class, tables.lines(class).len())))
}

/// The built-in rules, as files and as documents.
fn builtin() -> Result<Vec<(&'static str, &'static str, Value)>> {
    let read = |(name, text): &(&'static str, &'static str)| {
        Ok((*name, *text, serde_saphyr::from_str(text).with_context(|| (*name).to_owned())?))
    };
    Catalogue::builtin_files().iter().map(read).collect()
}

/// Ids that no built-in rule has.
fn free_ids() -> impl Iterator<Item = RuleId> {
    let taken: BTreeSet<RuleId> = Catalogue::builtin().rules().map(|rule| rule.id).collect();
    (0..).map_while(RuleId::new).filter(move |id| !taken.contains(id))
}

/// A rule like that one, by another id and with lines whose paths, names and arguments are others.
fn variant(rule: &Value, id: RuleId, lines: &[Value], number: usize) -> (String, String) {
    let mut rule = rule.clone();
    rule["id"] = id.to_string().into();
    rule["aliases"] = serde_json::json!({});
    let mut lines = lines.to_vec();
    for line in &mut lines {
        vary_line(line, number);
    }
    rule["lines"] = lines.into();
    // JSON is YAML.
    (format!("{id}.yaml"), rule.to_string())
}

fn lines_of(rule: &Value) -> Result<&[Value]> {
    Ok(rule["lines"].as_array().context("lines are a list")?)
}

/// The built-in files, and `times - 1` variants of each under ids that are free.
fn variants(times: usize) -> Result<Vec<(String, String)>> {
    let (mut files, mut free) = (Vec::new(), free_ids());
    for (name, text, rule) in builtin()? {
        files.push((name.to_owned(), text.to_owned()));
        for number in 1..times {
            let id = free.next().context("all ids are taken")?;
            files.push(variant(&rule, id, lines_of(&rule)?, number));
        }
    }
    Ok(files)
}

/// The built-in files, and as many variants of single lines as make [`MOST`] rules.
fn single_lines() -> Result<Vec<(String, String)>> {
    let (mut files, mut lines) = (Vec::new(), Vec::new());
    for (name, text, document) in builtin()? {
        files.push((name.to_owned(), text.to_owned()));
        let id = document["id"].as_str().context("a rule has an id")?.parse()?;
        let rule = Catalogue::builtin().get(id).context("built-in rules are in the catalogue")?;
        for (line, text) in rule.lines.iter().zip(lines_of(&document)?) {
            lines.push((document.clone(), text.clone(), line.class()));
        }
    }
    let mut room = builtin_lines()?.map(|(_, lines)| LINES - lines);
    let mut free = free_ids();
    for number in 1.. {
        let before = files.len();
        for (document, line, class) in &lines {
            let room = &mut room[*class as usize];
            if *room > 0 && files.len() < MOST {
                *room -= 1;
                let id = free.next().context("all ids are taken")?;
                files.push(variant(document, id, slice::from_ref(line), number));
            }
        }
        if files.len() == MOST {
            break;
        }
        ensure!(files.len() > before, "no class has room for more than {before} rules");
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
        assert_eq!(fs::read_dir(&manifold.whole.catalogue).unwrap().count(), manifold.rules);
        assert_eq!(fs::read_dir(&manifold.thousand.catalogue).unwrap().count(), MOST);
    }
}
