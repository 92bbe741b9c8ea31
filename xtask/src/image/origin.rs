//! Which commit an image is made of.

use std::process::Command;

use anyhow::Result;
use ringfence_image::shipped::Origin;

use crate::{places, process};

/// What git says about the checkout. Files that git does not know count for nothing; changes that are not committed show.
pub fn find() -> Result<Origin> {
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    let revision = if changed { format!("{commit}-dirty") } else { commit };
    let created = git(&["show", "--no-patch", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "--format=%cd", "HEAD"])?;
    Ok(Origin { version: env!("CARGO_PKG_VERSION").to_owned(), revision: Some(revision), created: Some(created) })
}

/// When the commit was made, in seconds since 1970.
pub fn epoch() -> Result<String> {
    git(&["show", "--no-patch", "--format=%ct", "HEAD"])
}

fn git(words: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(places::workspace()).env("TZ", "UTC0").args(words);
    Ok(process::output(&mut git)?.trim().to_owned())
}
