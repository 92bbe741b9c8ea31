//! Which rules are meant.

use clap::Args;
use ringfence_policy::{Catalogue, Rule, TACTICS};

use crate::failure::Failure;

/// Filters of `ringfence rules list`; all that are given must hold.
#[derive(Debug, Args)]
pub struct Filters {
    /// Of an ATT&CK technique; one without a dot includes its sub-techniques
    #[arg(long, value_name = "Tnnnn[.nnn]")]
    technique: Option<String>,
    /// Of an ATT&CK tactic, in any case
    #[arg(long, value_name = "NAME")]
    tactic: Option<String>,
    /// Whose name in another product (Trend id, Falco name, Tracee id) contains a text, in any case
    #[arg(long, value_name = "TEXT")]
    alias: Option<String>,
}

impl Filters {
    /// The rules for which all filters hold, by id.
    pub fn select<'a>(&'a self, catalogue: &'a Catalogue) -> Result<Vec<&'a Rule>, Failure> {
        let mut rules: Vec<&Rule> = match &self.technique {
            None => catalogue.rules().map(AsRef::as_ref).collect(),
            Some(technique) => {
                check_technique(technique)?;
                catalogue.by_technique(technique).map(AsRef::as_ref).collect()
            }
        };
        if let Some(tactic) = &self.tactic {
            let tactic = known_tactic(tactic)?;
            rules.retain(|rule| *rule.tactic == *tactic);
        }
        if let Some(alias) = &self.alias {
            let part = alias.to_lowercase();
            rules.retain(|rule| rule.aliases.iter().any(|alias| alias.to_lowercase().contains(&part)));
        }
        Ok(rules)
    }
}

/// The rule with an id or alias; the error names the nearest one.
pub fn find<'a>(catalogue: &'a Catalogue, id_or_alias: &str) -> Result<&'a Rule, Failure> {
    catalogue.find(id_or_alias).map(AsRef::as_ref).ok_or_else(|| {
        let hint = match catalogue.nearest(id_or_alias) {
            Some(nearest) => format!("did you mean '{nearest}'?"),
            None => "`ringfence rules` lists them".to_owned(),
        };
        Failure::input(format_args!("no rule has the id or alias '{}'; {hint}", id_or_alias.escape_debug()))
    })
}

fn known_tactic(given: &str) -> Result<&'static str, Failure> {
    TACTICS.into_iter().find(|tactic| tactic.eq_ignore_ascii_case(given)).ok_or_else(|| {
        let tactics = TACTICS.join(", ");
        Failure::input(format_args!("'{}' is no ATT&CK tactic; there are: {tactics}", given.escape_debug()))
    })
}

fn check_technique(given: &str) -> Result<(), Failure> {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let valid = given.strip_prefix('T').is_some_and(|number| match number.split_once('.') {
        None => digits(number, 4),
        Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
    });
    if valid {
        return Ok(());
    }
    let given = given.escape_debug();
    Err(Failure::input(format_args!("'{given}' is no ATT&CK technique; write T1059 or T1059.004")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(technique: Option<&str>, tactic: Option<&str>, alias: Option<&str>) -> Result<Vec<String>, Failure> {
        let [technique, tactic, alias] = [technique, tactic, alias].map(|text| text.map(str::to_owned));
        let filters = Filters { technique, tactic, alias };
        let rules = filters.select(Catalogue::builtin())?;
        Ok(rules.iter().map(|rule| rule.id.to_string()).collect())
    }

    #[test]
    fn filters_restrict_together() {
        let all = ids(None, None, None).unwrap();
        let execution = ids(None, Some("execution"), None).unwrap();
        let shells = ids(Some("T1059"), Some("Execution"), None).unwrap();
        assert!(shells.len() <= execution.len() && execution.len() < all.len());
        assert!(shells.contains(&"RF-101".to_owned()));
        assert_eq!(ids(None, None, Some("terminal SHELL")).unwrap(), ["RF-101"]);
        assert_eq!(ids(None, Some("Impact"), Some("terminal shell")).unwrap(), [""; 0]);
    }

    #[test]
    fn wrong_filters_say_what_is_right() {
        let sentence = |result| match result {
            Err(Failure::Input(error)) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(sentence(ids(None, Some("Evasion"), None)).contains("Stealth, Defense Impairment"));
        for technique in ["1059", "T59", "T1059.", "T1059.4", "T1059.004.1", "T10x9"] {
            assert!(sentence(ids(Some(technique), None, None)).contains("T1059.004"), "{technique}");
        }
        let missing = find(Catalogue::builtin(), "RF-8O1").map(|rule| vec![rule.name.to_string()]);
        assert!(sentence(missing).contains("did you mean 'RF-801'?"));
    }
}
