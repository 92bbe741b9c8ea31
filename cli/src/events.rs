//! `ringfence events`: what was violated?

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use ringfence_control::{
    Client, EventFilter, Next,
    render::{self, Paint},
};
use ringfence_policy::{Catalogue, Severity};

use crate::{failure::Outcome, rules, status::Format};

/// `ringfence events`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ringfence events --follow\n  ringfence events --severity high --container web -o json"
)]
pub struct Events {
    /// Go on with violations as they happen
    #[arg(short, long)]
    follow: bool,
    /// Of one rule: its id, or its name in another product
    #[arg(long, value_name = "ID|ALIAS")]
    rule: Option<String>,
    /// At least this bad
    #[arg(long, value_parser = severity())]
    severity: Option<Severity>,
    /// Of one container: its id, the beginning of it, its name, or its pod's name
    #[arg(long)]
    container: Option<String>,
    /// Form of the output; json is one object a line
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

impl Events {
    /// Prints what the enforcer still holds, then what comes.
    pub async fn run(self, socket: &Path) -> Outcome {
        let rule = self.rule.map(|rule| rules::find(Catalogue::builtin(), &rule).map(|rule| rule.id)).transpose()?;
        let filter = EventFilter { rule, severity: self.severity, container: self.container };
        let mut events = Client::connect(socket).await?.events(self.follow, filter).await?;
        let paint = Paint::auto(&io::stdout());
        while let Some(next) = events.next().await? {
            let line = match (next, self.output) {
                (Next::Event(violation), Format::Text) => render::violation(&violation, paint),
                (Next::Event(violation), Format::Json) => {
                    serde_json::to_string(&violation).context("writing an event as JSON")?
                }
                (Next::Lost(lost), _) => {
                    eprintln!("ringfence: {lost} events are missing here: the output was not read fast enough");
                    continue;
                }
            };
            writeln!(io::stdout().lock(), "{line}")?;
        }
        Ok(())
    }
}

const SEVERITIES: [Severity; 4] = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

fn severity() -> impl TypedValueParser<Value = Severity> {
    PossibleValuesParser::new(SEVERITIES.map(Severity::name)).map(|word| {
        SEVERITIES.into_iter().find(|severity| severity.name() == word).expect("clap lets only these words pass")
    })
}
