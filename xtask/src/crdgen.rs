//! The chart's custom resource definitions.

use std::process::ExitCode;

use anyhow::Result;

use crate::{places, process};

/// Where the chart has them.
const FOLDER: &str = "charts/ringfence/files/crds";

/// `cargo xtask crdgen`. Crate `api` writes them itself: this program stays quick to build.
pub fn run() -> Result<ExitCode> {
    process::succeed(
        places::cargo().args(["run", "--quiet", "--package", "ringfence-api", "--example", "crds"]).arg(FOLDER),
    )?;
    Ok(ExitCode::SUCCESS)
}
