//! The table of values in docs/install.md and the chart's README: made of the comments in values.yaml.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

const BEGIN: &str = "<!-- values -->\n";
const END: &str = "<!-- end of values -->\n";

/// An error when the table in the document is not that of the values; `bless` writes it anew.
pub fn compare(values: &Path, document: &Path, bless: bool) -> Result<()> {
    let table = table(&fs::read_to_string(values)?)?;
    let text = fs::read_to_string(document).with_context(|| document.display().to_string())?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{BEGIN:?} is missing"))?;
    let (found, after) = rest.split_once(END).with_context(|| format!("{END:?} is missing"))?;
    if bless {
        fs::write(document, format!("{before}{BEGIN}{table}{END}{after}"))?;
        return Ok(());
    }
    let name = document.display();
    ensure!(found == table, "{name} is not what values.yaml says: run this with RINGFENCE_BLESS=1");
    Ok(())
}

/// One row for each value with a comment. One without is an error, unless one above it has a comment.
fn table(values: &str) -> Result<String> {
    let mut table = "| value | default | |\n|---|---|---|\n".to_owned();
    // Keys from the outside in: indentation, name, whether it is described.
    let mut above: Vec<(usize, &str, bool)> = Vec::new();
    let mut comment = String::new();
    // The first paragraph is about the file.
    let (_, values) = values.split_once("\n\n").context("no introduction")?;
    for line in values.lines() {
        let text = line.trim_start();
        let indentation = line.len() - text.len();
        if let Some(more) = text.strip_prefix("# ") {
            let space = if comment.is_empty() { "" } else { " " };
            comment = format!("{comment}{space}{more}");
            continue;
        }
        // Entries of a list are part of its default.
        let Some((key, default)) = text.split_once(':').filter(|(key, _)| !key.starts_with('-')) else { continue };
        above.retain(|(outer, ..)| *outer < indentation);
        let described = !comment.is_empty();
        let is_part = above.iter().any(|(.., described)| *described);
        above.push((indentation, key, described));
        let path = above.iter().map(|(_, key, _)| *key).collect::<Vec<_>>().join(".");
        let default = default.trim();
        if described {
            let default = if default.is_empty() { "in `values.yaml`".to_owned() } else { format!("`{default}`") };
            writeln!(table, "| `{path}` | {default} | {} |", comment.replace('|', "\\|"))?;
            comment.clear();
        } else if !default.is_empty() && !is_part {
            bail!("{path} has no comment");
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_a_row() {
        let values = "# About.\n\n# One.\na: 1\nb:\n  # Two,\n  # three.\n  c: {}\n  # List.\n  d:\n  - e: f\n";
        let rows = "| `a` | `1` | One. |\n| `b.c` | `{}` | Two, three. |\n| `b.d` | in `values.yaml` | List. |\n";
        assert_eq!(table(values).unwrap(), format!("| value | default | |\n|---|---|---|\n{rows}"));
    }

    #[test]
    fn a_value_without_a_comment_is_named() {
        assert_eq!(table("# About.\n\nb:\n  c: 1\n").unwrap_err().to_string(), "b.c has no comment");
    }
}
