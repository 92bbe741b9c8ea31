//! `ringfence explain`: what governs a container, and why?

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use ringfence_control::{
    Client, Explanation,
    render::{self, Paint},
    sources,
};
use ringfence_policy::{Catalogue, Labels, Subject, read};

use crate::{
    failure::{Failure, Outcome},
    output,
    status::Format,
};

/// `ringfence explain`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("subject").required(true))]
#[command(after_help = "Examples:\n  ringfence explain web\n  \
                        ringfence explain --rulesets /etc/ringfence/rulesets --label app=web --label tier=front")]
pub struct Explain {
    /// A container that the enforcer knows: its id, the beginning of it, or its name
    #[arg(group = "subject")]
    container: Option<String>,
    /// Work it out from these rulesets, for a container with the labels that are given; no enforcer is asked
    #[arg(long, value_name = "DIR", group = "subject")]
    rulesets: Option<PathBuf>,
    /// A label of the container; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", conflicts_with = "container", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

impl Explain {
    /// Asks the enforcer, or works it out.
    pub async fn run(self, socket: &Path) -> Outcome {
        let explanation = match (self.rulesets, self.container) {
            (Some(folder), _) => from_files(&folder, self.labels)?,
            (None, Some(container)) => Client::connect(socket).await?.explain(&container).await?,
            (None, None) => unreachable!("clap requires one of the two"),
        };
        match self.output {
            Format::Json => output::json(&explanation),
            Format::Text => output::text(&render::explanation(&explanation, Paint::auto(&std::io::stdout()))),
        }
    }
}

fn from_files(folder: &Path, labels: Vec<(String, String)>) -> Result<Explanation, Failure> {
    let files = sources::read(folder).map_err(Failure::input)?;
    let rulesets = read(&files, Catalogue::builtin()).map_err(Failure::input)?;
    if rulesets.is_empty() {
        return Err(Failure::input(format_args!("{}: no ruleset in it (*.yaml, *.yml)", folder.display())));
    }
    let mut unique = Labels::new();
    for (key, value) in labels {
        if let Some(other) = unique.insert(key.clone(), value.clone()) {
            return Err(Failure::input(format_args!("--label {key} is given twice, as '{other}' and as '{value}'")));
        }
    }
    Ok(Explanation::new(None, Subject::without_namespace(&unique), &rulesets, Catalogue::builtin()))
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE, such as app=web".to_owned()),
    }
}
