//! Releases that only Debian still has as a whole, with everything that they depend on: its source packages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ringfence_apt::{Apt, Kind};

use super::{Release, Workshop, module, progress, run};
use crate::cluster::Interrupt;

/// The release of Debian whose packages are taken.
const SUITE: &str = "bookworm";

/// Where Kubernetes' source lies, below a folder: Go finds packages by their path there.
const TREE: &str = "src/k8s.io/kubernetes";

/// Packages that the source holds in versions which today's Go breaks, and ones that it does not. The old one takes maps
/// apart as the runtime had them before Go 1.18: the API server dies of its first custom resource.
pub const RENEWED: [(&str, &str); 1] = [("github.com/modern-go/reflect2", "v1.0.2")];

/// Fetches and unpacks a source package of Kubernetes in a folder, and generates what its own Makefile would.
pub fn prepare(release: &Release, package: &str, folder: &Path, interrupt: &Interrupt) -> Result<Workshop> {
    // What an earlier, broken-off build left.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    progress(&format!("fetching Debian's source package {package}"));
    let apt = Apt::new(folder, Kind::Sources, SUITE)?;
    let get =
        |words: &[&str]| run(apt.command("apt-get").args(["--quiet=2"]).args(words).current_dir(folder), interrupt);
    get(&["update"])?;
    get(&["--download-only", "source", package])?;
    let tree = folder.join(TREE);
    fs::create_dir_all(tree.parent().context("it has a parent")?)?;
    let description = description(folder)?;
    let mut unpack = Command::new("dpkg-source");
    unpack.args(["--no-check", "--extract"]).arg(&description).arg(&tree).current_dir(folder);
    run(&mut unpack, interrupt).context("unpack it, with dpkg-source of the package dpkg-dev")?;
    ensure!(
        description.to_string_lossy().contains(release.version),
        "Debian {SUITE} has {} instead of {}",
        description.display(),
        release.version
    );
    for (module, version) in RENEWED {
        renew(module, version, folder, &tree, interrupt).with_context(|| format!("renew {module}"))?;
    }
    // Its go.mod is older than Go's rules for folders of vendored packages. Without modules there are none.
    let environment = vec![("GO111MODULE", "off".into()), ("GOPATH", folder.into())];
    let workshop = Workshop { folder: tree.clone(), environment };
    generate_descriptions(&workshop, folder, &tree, interrupt).context("generate the API's description")?;
    Ok(workshop)
}

/// The one file that describes the package.
fn description(folder: &Path) -> Result<PathBuf> {
    let mut paths = folder.read_dir()?.filter_map(|entry| Some(entry.ok()?.path()));
    paths.find(|path| path.extension().is_some_and(|kind| kind == "dsc")).context("apt-get left no .dsc file")
}

/// Puts a module in the place of the vendored one of its name.
fn renew(module: &str, version: &str, folder: &Path, tree: &Path, interrupt: &Interrupt) -> Result<()> {
    let workshop = Workshop { folder: folder.to_path_buf(), environment: Vec::new() };
    let fetched = module::download(&workshop, module, version, interrupt)?;
    let place = tree.join("vendor").join(module);
    fs::remove_dir_all(&place)?;
    fs::create_dir(&place)?;
    for entry in Path::new(&fetched.folder).read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), place.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// `pkg/generated/openapi/zz_generated.openapi.go`: all other generated files are part of the source.
fn generate_descriptions(workshop: &Workshop, folder: &Path, tree: &Path, interrupt: &Interrupt) -> Result<()> {
    let generator = folder.join("openapi-gen");
    let package = "k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen";
    run(workshop.go().args(["build", "-o"]).arg(&generator).arg(package), interrupt)?;
    let packages: Vec<_> = described(tree)?.into_iter().collect();
    let mut generate = Command::new(&generator);
    generate.current_dir(tree).envs(workshop.environment.iter().map(|(name, value)| (name, value)));
    generate.args(["--logtostderr", "-i", &packages.join(","), "-p", "k8s.io/kubernetes/pkg/generated/openapi"]);
    generate.args(["-O", "zz_generated.openapi", "-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"]);
    generate.arg("-r").arg(folder.join("violations"));
    run(&mut generate, interrupt).map(drop)
}

/// Packages whose types the API's description holds.
fn described(tree: &Path) -> Result<BTreeSet<String>> {
    const OTHERS: [&str; 2] = ["code-generator", "sample-apiserver"];
    let mut packages = BTreeSet::new();
    for folder in ["cmd", "pkg", "plugin"] {
        tagged(&tree.join(folder), &format!("k8s.io/kubernetes/{folder}"), &mut packages)?;
    }
    for library in tree.join("staging/src/k8s.io").read_dir()? {
        let library = library?;
        let name = library.file_name().to_string_lossy().into_owned();
        if !OTHERS.contains(&name.as_str()) {
            tagged(&library.path(), &format!("k8s.io/kubernetes/vendor/k8s.io/{name}"), &mut packages)?;
        }
    }
    Ok(packages)
}

/// Adds the packages in and below a folder that ask for it by a comment; `package` is that folder's.
fn tagged(folder: &Path, package: &str, packages: &mut BTreeSet<String>) -> Result<()> {
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            tagged(&entry.path(), &format!("{package}/{name}"), packages)?;
        } else if is_source(&entry.path()) && asks(&fs::read_to_string(entry.path())?) {
            packages.insert(package.to_owned());
        }
    }
    Ok(())
}

/// Whether a file is part of a package, and no test.
fn is_source(file: &Path) -> bool {
    let is_test = file.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_test"));
    file.extension().is_some_and(|kind| kind == "go") && !is_test
}

fn asks(source: &str) -> bool {
    let comments = source.lines().filter_map(|line| line.trim_start().strip_prefix("//"));
    comments.map(str::trim_start).any(|comment| comment.starts_with("+k8s:openapi-gen="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_ask_by_a_comment() {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in [
            ("cmd/x/main.go", "package main\n"),
            ("pkg/a/doc.go", "// +k8s:openapi-gen=true\npackage a\n"),
            ("pkg/a/b/types.go", "package b\n\nvar x = \"+k8s:openapi-gen=true\"\n"),
            ("pkg/a/b/types_test.go", "//+k8s:openapi-gen=true\n"),
            ("plugin/none.txt", "// +k8s:openapi-gen=true\n"),
            ("staging/src/k8s.io/api/core/v1/types.go", "\t// +k8s:openapi-gen=false\n"),
            ("staging/src/k8s.io/code-generator/doc.go", "// +k8s:openapi-gen=true\n"),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("it is made");
            fs::write(path, text).expect("it is written");
        }
        let found: Vec<_> = described(folder.path()).expect("it is read").into_iter().collect();
        assert_eq!(found, ["k8s.io/kubernetes/pkg/a", "k8s.io/kubernetes/vendor/k8s.io/api/core/v1"]);
    }
}
