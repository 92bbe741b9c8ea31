//! The catalogue as a document.

use std::fmt::{self, Write};

use crate::catalogue::Catalogue;
use crate::coverage::{RuleCoverage, TIERS, misses_by_tier, on_tier};
use crate::rule::{ATTACK_VERSION, Rule};

const INTRODUCTION: &str = "\
A rule is one managed detection. Rulesets name rules by id, by an alias, or by tactic, and say what is done on a
violation. Each rule has one or more lines; an event that satisfies one of them is a violation. Within a line, the
values of one key are alternatives, `key` and `not_key` and different keys are conjoined, and a trailing `*` makes a
value a prefix.
";

/// docs/rules.md.
pub fn markdown(catalogue: &Catalogue) -> String {
    let mut document = String::new();
    write(&mut document, catalogue).expect("writing to a string does not fail");
    document
}

fn write(out: &mut String, catalogue: &Catalogue) -> fmt::Result {
    writeln!(out, "# The managed rules\n")?;
    writeln!(out, "<!-- Generated: `cargo run -p ringfence-policy --example rules > docs/rules.md`. -->\n")?;
    writeln!(out, "{INTRODUCTION}")?;
    writeln!(out, "Tactics and techniques are those of MITRE ATT&CK version {ATTACK_VERSION}.\n")?;
    writeln!(out, "| rule | name | tactic | techniques | severity | recommended |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for rule in catalogue.rules() {
        let (id, name, tactic, severity) = (rule.id, &rule.name, &rule.tactic, rule.severity);
        let (anchor, techniques) = (anchor(rule), rule.techniques.join(", "));
        let mitigation = rule.mitigation;
        writeln!(out, "| [{id}](#{anchor}) | {name} | {tactic} | {techniques} | {severity} | {mitigation} |")?;
    }
    catalogue.rules().try_for_each(|rule| write_rule(out, rule))
}

fn write_rule(out: &mut String, rule: &Rule) -> fmt::Result {
    writeln!(out, "\n## {}\n\n{}\n", title(rule), rule.description)?;
    writeln!(
        out,
        "{}, {}, decided in {}.",
        rule.tactic,
        rule.severity,
        match rule.decided_by {
            crate::DecidedBy::Kernel => "the kernel",
            crate::DecidedBy::User => "user space",
        }
    )?;
    let matrix = if rule.containers_matrix { "" } else { " (none of ATT&CK's platform Containers)" };
    writeln!(out, "Techniques: {}{matrix}.", rule.techniques.join(", "))?;
    let aliases: Vec<_> = rule.aliases.iter().map(|alias| format!("\"{alias}\"")).collect();
    if !aliases.is_empty() {
        writeln!(out, "Also known as {}.", aliases.join(", "))?;
    }
    writeln!(out, "\nLines:\n")?;
    for line in &rule.lines {
        writeln!(out, "- `{line}`")?;
    }
    writeln!(out, "\nKnown benign causes:\n")?;
    for cause in &rule.benign {
        writeln!(out, "- {cause}")?;
    }
    let (everywhere, besides) = misses_by_tier(rule);
    writeln!(out, "\n| tier | [what can be done](coverage.md) | |\n|---|---|---|")?;
    for ((name, tier), misses) in TIERS.iter().zip(besides) {
        writeln!(out, "| {name} | {} | {} |", RuleCoverage::of(rule, &on_tier(*tier)), misses.join(" "))?;
    }
    if !everywhere.is_empty() {
        writeln!(out, "\n{}", everywhere.join("\n"))?;
    }
    Ok(())
}

fn title(rule: &Rule) -> String {
    format!("{} {}", rule.id, rule.name)
}

/// The anchor that renderers give to a heading.
fn anchor(rule: &Rule) -> String {
    let kept = title(rule).to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ')).collect::<String>().replace(' ', "-")
}
