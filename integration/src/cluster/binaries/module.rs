//! Releases that are Go modules.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Release, Workshop, progress, run};
use crate::cluster::Interrupt;

/// A Go module in a folder that depends on the release, which is `module`, and nothing else.
pub fn prepare(release: &Release, module: &str, folder: &Path, interrupt: &Interrupt) -> Result<Workshop> {
    progress(&format!("fetching {module} {}", release.version));
    fs::create_dir_all(folder)?;
    let workshop = Workshop { folder: folder.to_path_buf(), environment: Vec::new() };
    let _ = fs::remove_file(folder.join("go.mod"));
    let path = download(&workshop, module, &format!("v{}", release.version), interrupt)?.description;
    let theirs = fs::read_to_string(&path).context(path)?;
    fs::write(folder.join("go.mod"), module_file(module, release.version, &theirs))?;
    let imports = release.programs.iter().fold(String::new(), |mut imports, (_, package)| {
        let _ = writeln!(imports, "import _ {package:?}");
        imports
    });
    fs::write(folder.join("tools.go"), format!("//go:build tools\n\npackage tools\n\n{imports}"))?;
    run(workshop.go().args(["mod", "tidy"]), interrupt)?;
    Ok(workshop)
}

/// A module in Go's cache.
pub struct Downloaded {
    /// Its `go.mod`.
    pub description: String,
    /// Its source.
    pub folder: String,
}

/// Fetches a module into Go's cache.
pub fn download(workshop: &Workshop, module: &str, version: &str, interrupt: &Interrupt) -> Result<Downloaded> {
    let module = format!("{module}@{version}");
    let answer = run(workshop.go().args(["mod", "download", "-json", &module]), interrupt)?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("what `go mod download` says")?;
    let path = |key: &str| {
        let path = answer[key].as_str().map(str::to_owned);
        path.with_context(|| format!("`go mod download` of {module}: no {key}"))
    };
    Ok(Downloaded { description: path("GoMod")?, folder: path("Dir")? })
}

/// Kubernetes' own module takes its libraries from folders beside it, and only the main module's replacements count:
/// here they are taken in the versions that are published with it.
fn module_file(module: &str, version: &str, theirs: &str) -> String {
    let language = theirs.lines().filter(|line| line.starts_with("go ") || line.starts_with("godebug "));
    let mut file = language.fold("module build\n\n".to_owned(), |file, line| file + line + "\n");
    let _ = write!(file, "\nrequire {module} v{version}\n\n");
    let library = version.split_once('.').map_or(version, |(_, rest)| rest);
    for line in theirs.lines() {
        if let Some((name, _)) = line.trim().trim_start_matches("replace ").split_once(" => ./staging/") {
            let _ = writeln!(file, "replace {name} => {name} v0.{library}");
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_beside_kubernetes_are_taken_as_published() {
        let theirs = "module k8s.io/kubernetes\n\ngo 1.26.0\n\ngodebug default=go1.26\n\nrequire (\n\tx.y/z v1.0.0\n)\n\n\
                      replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\tother => ./there\n)\n";
        assert_eq!(
            module_file("k8s.io/kubernetes", "1.37.2", theirs),
            "module build\n\ngo 1.26.0\ngodebug default=go1.26\n\nrequire k8s.io/kubernetes v1.37.2\n\n\
             replace k8s.io/api => k8s.io/api v0.37.2\n"
        );
    }
}
