//! `ringfence rules show`: everything about one rule.

use std::fmt;

use clap::{Args, ValueEnum};
use ringfence_control::render;
use ringfence_policy::{
    Catalogue, DecidedBy, Rule, RuleCoverage,
    coverage::{TIERS, misses_by_tier, on_tier},
};

use super::{find, view::RuleView};
use crate::{failure::Outcome, output};

/// `ringfence rules show`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ringfence rules show RF-901\n  ringfence rules show 'Terminal shell in container' -o yaml"
)]
pub struct Show {
    /// Id of the rule, or its name in another product
    #[arg(value_name = "ID|ALIAS")]
    rule: String,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For reading
    #[value(alias = "table")]
    Text,
    /// For scripts
    Json,
    /// For scripts
    Yaml,
}

impl Show {
    /// Shows the rule.
    pub fn run(self) -> Outcome {
        let rule = find(Catalogue::builtin(), &self.rule)?;
        match self.output {
            Format::Text => output::text(&Page(rule).to_string()),
            Format::Json => output::json(&RuleView::from(rule)),
            Format::Yaml => output::yaml(&RuleView::from(rule)),
        }
    }
}

struct Page<'a>(&'a Rule);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rule) = self;
        writeln!(f, "{} {}\n\n{}\n", rule.id, rule.name, rule.description.trim_end())?;
        let decided = match rule.decided_by {
            DecidedBy::Kernel => "in the kernel, in the same run as the mitigation",
            DecidedBy::User => "in user space, from candidates that the kernel finds",
        };
        for (title, value) in [
            ("severity", rule.severity.to_string()),
            ("ATT&CK", format!("{} ({})", rule.techniques.join(", "), rule.tactic)),
            ("aliases", rule.aliases.iter().collect::<Vec<_>>().join(", ")),
            ("recommended", rule.mitigation.to_string()),
            ("decided", decided.to_owned()),
        ] {
            writeln!(f, "{title:<12} {}", if value.is_empty() { "none" } else { &value })?;
        }
        writeln!(f, "\nviolated by an event that satisfies one of these lines:")?;
        rule.lines.iter().try_for_each(|line| writeln!(f, "- {line}"))?;
        let (everywhere, besides) = misses_by_tier(rule);
        let rows = TIERS.iter().zip(besides).map(|((name, tier), misses)| {
            [(*name).to_owned(), RuleCoverage::of(rule, &on_tier(*tier)).to_string(), misses.join(" ")]
        });
        writeln!(f, "\n{}", render::table(&["TIER", "COVERAGE", "NOTE"], rows))?;
        everywhere.iter().try_for_each(|miss| writeln!(f, "{miss}"))?;
        if !rule.benign.is_empty() {
            writeln!(f, "\nknown benign causes:")?;
        }
        rule.benign.iter().try_for_each(|cause| writeln!(f, "- {cause}"))
    }
}
