//! `ringfence rules`: the managed catalogue.

mod select;
mod show;
mod view;

use clap::{Args, Subcommand, ValueEnum};
use ringfence_control::render;
use ringfence_policy::{Catalogue, Rule};

use select::Filters;
pub use select::find;
use show::Show;
use view::RuleView;

use crate::{failure::Outcome, output};

/// `ringfence rules`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  ringfence rules\n  ringfence rules --tactic Execution -o json\n  \
                  ringfence rules --technique T1059\n  ringfence rules show TM-00000006"
)]
pub struct Rules {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Action {
    #[command(about = "List the rules (the default)")]
    List(List),
    #[command(about = "Show everything about one rule")]
    Show(Show),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ringfence rules list --alias netcat")]
struct List {
    #[command(flatten)]
    filters: Filters,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For reading
    Table,
    /// For scripts
    Json,
    /// For scripts
    Yaml,
}

impl Rules {
    /// Lists or shows.
    pub fn run(self) -> Outcome {
        match self.action {
            None => self.list.run(),
            Some(Action::List(list)) => list.run(),
            Some(Action::Show(show)) => show.run(),
        }
    }
}

impl List {
    fn run(self) -> Outcome {
        let rules = self.filters.select(Catalogue::builtin())?;
        let views = || rules.iter().map(|rule| RuleView::from(*rule)).collect::<Vec<_>>();
        match self.output {
            Format::Json => output::json(&views()),
            Format::Yaml => output::yaml(&views()),
            Format::Table => output::text(&format!("{}\n", render::table(&HEADER, rules.iter().map(|rule| row(rule))))),
        }
    }
}

const HEADER: [&str; 6] = ["ID", "SEVERITY", "TACTIC", "TECHNIQUES", "NAME", "TREND ID"];

fn row(rule: &Rule) -> [String; 6] {
    [
        rule.id.to_string(),
        rule.severity.to_string(),
        rule.tactic.to_string(),
        rule.techniques.join(","),
        rule.name.to_string(),
        rule.aliases.trend.join(","),
    ]
}
