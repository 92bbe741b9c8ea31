//! The programs of a cluster: built from Go modules when this machine does not have them, and kept for later runs.
//!
//! The source is what the Go module proxy has under the version; Go checks it against the checksum database. Each
//! release has a folder `NAME-VERSION-KEY` in the cache; the key says how it was built, so another way of building is
//! another folder. A program appears there in one step, when it is complete.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::Interrupt;
use crate::cache;

/// Programs that are released together.
#[derive(Debug)]
pub struct Release {
    /// Its name in the cache and in messages.
    name: &'static str,
    /// The Go module.
    module: &'static str,
    /// Its version, without the `v`.
    version: &'static str,
    /// Names of the programs and their packages.
    programs: &'static [(&'static str, &'static str)],
    /// String variables that the programs are linked with: what an official build would say of itself.
    variables: fn(&str) -> Vec<(String, String)>,
}

/// Kubernetes.
pub const KUBERNETES: Release = Release {
    name: "kubernetes",
    module: "k8s.io/kubernetes",
    version: "1.37.2",
    // The first one costs the most: all share most of their packages.
    programs: &[
        ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
    variables: |version| {
        let packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
        let variables = packages.map(|package| {
            let (major, minor) = major_minor(version);
            [
                ("gitVersion", format!("v{version}")),
                ("gitMajor", major),
                ("gitMinor", minor),
                ("gitTreeState", "clean".to_owned()),
            ]
            .map(|(name, value)| (format!("{package}.{name}"), value))
        });
        variables.into_iter().flatten().collect()
    },
};

/// containerd.
pub const CONTAINERD: Release = Release {
    name: "containerd",
    module: "github.com/containerd/containerd/v2",
    version: "2.4.2",
    programs: &[
        ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
        ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
        ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    ],
    variables: |version| vec![("github.com/containerd/containerd/v2/version.Version".into(), format!("v{version}"))],
};

/// etcd.
pub const ETCD: Release = Release {
    name: "etcd",
    module: "go.etcd.io/etcd/server/v3",
    version: "3.7.3",
    programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
    variables: |_| Vec::new(),
};

/// Helm 3.
pub const HELM_3: Release = Release {
    name: "helm3",
    module: "helm.sh/helm/v3",
    version: "3.22.0",
    programs: &[("helm3", "helm.sh/helm/v3/cmd/helm")],
    variables: |version| {
        // Built in any other way, it takes every cluster that it cannot ask for Kubernetes 1.20.
        let (major, minor) = major_minor(KUBERNETES.version);
        let packages = ["helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules"];
        let kubernetes = packages.into_iter().flat_map(|package| {
            [
                (format!("{package}.k8sVersionMajor"), major.clone()),
                (format!("{package}.k8sVersionMinor"), minor.clone()),
            ]
        });
        kubernetes.chain([("helm.sh/helm/v3/internal/version.version".to_owned(), format!("v{version}"))]).collect()
    },
};

/// Helm 4.
pub const HELM_4: Release = Release {
    name: "helm4",
    module: "helm.sh/helm/v4",
    version: "4.3.1",
    programs: &[("helm4", "helm.sh/helm/v4/cmd/helm")],
    variables: |version| vec![("helm.sh/helm/v4/internal/version.version".into(), format!("v{version}"))],
};

/// How long to sleep between two looks at a program that is running.
const PAUSE: Duration = Duration::from_millis(50);

/// Lines of a build's output that an error shows.
const TAIL: usize = 12;

impl Release {
    /// Its version, such as `1.37.2`.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// The folder with its programs. What is missing is built, which takes minutes; progress goes to standard error.
    pub fn ensure(&self, interrupt: &Interrupt) -> Result<PathBuf> {
        let folder = cache::folder(&format!("go/{}-{}-{}", self.name, self.version, self.key()))?;
        if self.missing(&folder).is_empty() {
            return Ok(folder);
        }
        // Whoever else builds the same is waited for.
        let lock = File::create(folder.join(".lock")).with_context(|| format!("lock {}", folder.display()))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).context("lock the cache")?;
        let missing = self.missing(&folder);
        if !missing.is_empty() {
            self.build(&folder, &missing, interrupt)
                .with_context(|| format!("build {} {}", self.name, self.version))?;
        }
        Ok(folder)
    }

    fn missing(&self, folder: &Path) -> Vec<(&'static str, &'static str)> {
        self.programs.iter().filter(|(name, _)| !folder.join(name).is_file()).copied().collect()
    }

    /// Of everything that makes a build differ from another one of the same version.
    fn key(&self) -> String {
        let digest = Sha256::digest(format!("{} {:?}", self.module, self.linker_flags()));
        digest.iter().take(4).fold(String::new(), |mut key, byte| {
            let _ = write!(key, "{byte:02x}");
            key
        })
    }

    fn linker_flags(&self) -> String {
        let variables = (self.variables)(self.version);
        variables.iter().fold("-s -w".to_owned(), |flags, (name, value)| format!("{flags} -X {name}={value}"))
    }

    fn build(&self, folder: &Path, missing: &[(&str, &str)], interrupt: &Interrupt) -> Result<()> {
        let module = folder.join("module");
        fs::create_dir_all(&module)?;
        self.write_module(&module, interrupt)?;
        for (number, (name, package)) in missing.iter().enumerate() {
            let started = Instant::now();
            progress(&format!(
                "building {name} {} ({} of {}), once: {}",
                self.version,
                number + 1,
                missing.len(),
                folder.display()
            ));
            let unfinished = folder.join(format!(".{name}.{}", std::process::id()));
            let mut go = go(&module);
            go.args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &self.linker_flags()]);
            let built = run(go.arg("-o").arg(&unfinished).arg(package), interrupt);
            // One step: whoever finds the program finds all of it.
            let kept = built.and_then(|_| Ok(fs::rename(&unfinished, folder.join(name))?));
            if kept.is_err() {
                let _ = fs::remove_file(&unfinished);
            }
            kept.with_context(|| format!("build {name}"))?;
            progress(&format!("built {name} in {} s", started.elapsed().as_secs()));
        }
        Ok(())
    }

    /// A Go module that depends on the release and nothing else.
    fn write_module(&self, folder: &Path, interrupt: &Interrupt) -> Result<()> {
        progress(&format!("fetching {} {}", self.module, self.version));
        let of_module = format!("{}@v{}", self.module, self.version);
        let _ = fs::remove_file(folder.join("go.mod"));
        let answer = run(go(folder).args(["mod", "download", "-json", &of_module]), interrupt)?;
        let answer: serde_json::Value = serde_json::from_str(&answer).context("what `go mod download` says")?;
        let path = answer["GoMod"].as_str().with_context(|| format!("`go mod download` of {of_module}: no GoMod"))?;
        let theirs = fs::read_to_string(path).context(path.to_owned())?;
        fs::write(folder.join("go.mod"), self.module_file(&theirs))?;
        let imports = self.programs.iter().fold(String::new(), |mut imports, (_, package)| {
            let _ = writeln!(imports, "import _ {package:?}");
            imports
        });
        fs::write(folder.join("tools.go"), format!("//go:build tools\n\npackage tools\n\n{imports}"))?;
        run(go(folder).args(["mod", "tidy"]), interrupt).map(drop)
    }

    /// Kubernetes' own module takes its libraries from folders beside it, and only the main module's replacements
    /// count: here they are taken in the versions that are published with it.
    fn module_file(&self, theirs: &str) -> String {
        let language = theirs.lines().filter(|line| line.starts_with("go ") || line.starts_with("godebug "));
        let mut file = language.fold("module build\n\n".to_owned(), |file, line| file + line + "\n");
        let _ = write!(file, "\nrequire {} v{}\n\n", self.module, self.version);
        let library = self.version.split_once('.').map_or(self.version, |(_, rest)| rest);
        for line in theirs.lines() {
            if let Some((name, _)) = line.trim().trim_start_matches("replace ").split_once(" => ./staging/") {
                let _ = writeln!(file, "replace {name} => {name} v0.{library}");
            }
        }
        file
    }
}

fn major_minor(version: &str) -> (String, String) {
    let mut parts = version.split('.').map(str::to_owned);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Progress is worth a time stamp only where nobody watches it come.
fn progress(what: &str) {
    eprintln!("{}{what}", if io::stderr().is_terminal() { "" } else { "cluster: " });
}

fn go(folder: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(folder).env("CGO_ENABLED", "0").env("GOWORK", "off").env_remove("GOFLAGS");
    go
}

/// Runs a program to its end and returns what it wrote; an interrupt ends it.
fn run(command: &mut Command, interrupt: &Interrupt) -> Result<String> {
    let line = || format!("{command:?}").replace('"', "");
    let line = line();
    let folder = command.get_current_dir().unwrap_or_else(|| Path::new(".")).to_path_buf();
    let (said, wrong) = (folder.join("output"), folder.join("errors"));
    command.stdin(Stdio::null()).stdout(File::create(&said)?).stderr(File::create(&wrong)?);
    let mut child = command.spawn().with_context(|| format!("{line}: is Go installed?"))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Err(error) = interrupt.check() {
            let _ = child.kill();
            child.wait()?;
            return Err(error);
        }
        thread::sleep(PAUSE);
    };
    if !status.success() {
        let wrong = fs::read_to_string(&wrong)?;
        let lines: Vec<_> = wrong.lines().filter(|line| !line.starts_with("go: downloading")).collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n    ");
        bail!("`{line}` ended with {status}:\n    {tail}");
    }
    let said = fs::read_to_string(&said)?;
    ensure!(!line.contains("-json") || !said.is_empty(), "`{line}` said nothing");
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_beside_kubernetes_are_taken_as_published() {
        let theirs = "module k8s.io/kubernetes\n\ngo 1.26.0\n\ngodebug default=go1.26\n\nrequire (\n\tx.y/z v1.0.0\n)\n\n\
                      replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\tother => ./there\n)\n";
        assert_eq!(
            KUBERNETES.module_file(theirs),
            format!(
                "module build\n\ngo 1.26.0\ngodebug default=go1.26\n\nrequire k8s.io/kubernetes v{0}\n\n\
                 replace k8s.io/api => k8s.io/api v0.{1}\n",
                KUBERNETES.version,
                KUBERNETES.version.split_once('.').expect("a dot").1
            )
        );
    }

    #[test]
    fn another_way_of_building_is_another_folder() {
        let other = Release { variables: |_| Vec::new(), ..HELM_4 };
        assert_ne!(other.key(), HELM_4.key());
    }

    #[test]
    fn helm_3_knows_the_kubernetes_that_it_is_used_with() {
        let (_, minor) = major_minor(KUBERNETES.version);
        assert!(HELM_3.linker_flags().contains(&format!("pkg/chartutil.k8sVersionMinor={minor}")));
    }
}
