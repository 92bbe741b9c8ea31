//! Output that a script reads.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

use crate::failure::Outcome;

/// Prints as indented JSON.
pub fn json(value: &impl Serialize) -> Outcome {
    let json = serde_json::to_string_pretty(value).context("writing JSON")?;
    Ok(writeln!(io::stdout().lock(), "{json}")?)
}

/// Prints as YAML.
pub fn yaml(value: &impl Serialize) -> Outcome {
    text(&to_yaml(value)?)
}

/// As YAML.
pub fn to_yaml(value: &impl Serialize) -> anyhow::Result<String> {
    serde_saphyr::to_string(value).context("writing YAML")
}

/// Prints text that ends with its own line feed.
pub fn text(text: &str) -> Outcome {
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}
