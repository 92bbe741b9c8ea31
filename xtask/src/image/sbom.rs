//! What programs are made of, as `CycloneDX`: cargo-cyclonedx asks cargo, so it is what was compiled.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use ringfence_image::Architecture;
use serde_json::Value;
use tempfile::TempDir;

use super::origin;
use crate::{places, process};

/// As OCI artifacts have it.
pub const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";

/// An SBOM for each crate of the workspace.
pub type Sboms = BTreeMap<String, Vec<u8>>;

/// cargo-cyclonedx writes beside every manifest.
const FILE: &str = "sbom.cdx";

/// The SBOMs of the workspace's crates for an architecture.
pub fn of_crates(architecture: Architecture) -> Result<Sboms> {
    let checkout = copy()?;
    let mut cargo = places::cargo();
    cargo.current_dir(checkout.path());
    cargo.args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5", "--override-filename", FILE]);
    cargo.args(["--target", architecture.target()]);
    // Without it there would be a random number and the time.
    cargo.env("SOURCE_DATE_EPOCH", origin::epoch()?);
    println!("==> {}", process::line(&cargo));
    process::succeed(&mut cargo)?;
    let mut sboms = Sboms::new();
    for (name, folder) in members(checkout.path())? {
        let path = folder.join(FILE).with_added_extension("json");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        sboms.insert(name, relocate(&text, checkout.path())?);
    }
    Ok(sboms)
}

/// A copy of what git knows of the checkout: new files among the sources would have everything built anew.
fn copy() -> Result<TempDir> {
    let copy = tempfile::Builder::new().prefix("ringfence-sbom-").tempdir()?;
    let workspace = places::workspace();
    let files = process::output(Command::new("git").current_dir(&workspace).args(["ls-files", "-z"]))?;
    // One that was removed and is not committed yet is not there.
    for file in files.split_terminator('\0').filter(|file| workspace.join(file).is_file()) {
        let to = copy.path().join(file);
        fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
        fs::copy(workspace.join(file), &to).with_context(|| file.to_owned())?;
    }
    Ok(copy)
}

/// Names and folders of a workspace's crates.
fn members(workspace: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = places::cargo();
    cargo.current_dir(workspace).args(["metadata", "--no-deps", "--format-version", "1", "--locked"]);
    let metadata: Value = serde_json::from_str(&process::output(&mut cargo)?).context("what `cargo metadata` says")?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` names no packages")?;
    let member = |package: &Value| {
        let manifest = Path::new(package["manifest_path"].as_str()?);
        Some((package["name"].as_str()?.to_owned(), manifest.parent()?.to_path_buf()))
    };
    Ok(packages.iter().filter_map(member).collect())
}

/// Where the checkout lies is in the references of our own crates, and concerns nobody.
fn relocate(text: &str, workspace: &Path) -> Result<Vec<u8>> {
    let text = text.replace(&format!("file://{}", workspace.display()), "file:///ringfence");
    let sbom: Value = serde_json::from_str(&text).context("what cargo-cyclonedx has written")?;
    let mut bytes = serde_json::to_vec_pretty(&sbom)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sbom_does_not_tell_where_it_was_made() {
        let found = r#"{"bom-ref": "path+file:///home/me/work/cli#0.1.0", "name": "x"}"#;
        let bytes = relocate(found, Path::new("/home/me/work")).expect("an SBOM");
        let sbom: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(sbom["bom-ref"], "path+file:///ringfence/cli#0.1.0");
        relocate("nonsense", Path::new("/")).expect_err("it is no JSON");
    }
}
