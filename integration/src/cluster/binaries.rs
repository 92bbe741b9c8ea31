//! The programs of a cluster: built by Go when this machine does not have them, and kept for later runs.
//!
//! Each release has a folder `NAME-VERSION-KEY` in the cache; the key says how it was built, so another way of building
//! is another folder. A program appears there in one step, when it is complete.

mod debian;
mod module;
pub mod releases;

use std::ffi::OsString;
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
    /// Where its source comes from.
    source: Source,
    /// Its version, without the `v`.
    version: &'static str,
    /// Names of the programs and their packages.
    programs: &'static [(&'static str, &'static str)],
    /// String variables that the programs are linked with: what an official build would say of itself.
    variables: fn(&str) -> Vec<(String, String)>,
}

/// Where a release's source comes from.
#[derive(Debug)]
enum Source {
    /// A Go module of this name. Go checks what the module proxy has against the checksum database.
    Module(&'static str),
    /// Debian's source package of this name, which apt checks by its signature.
    Debian(&'static str),
}

/// How Go is started where a release's source lies.
struct Workshop {
    folder: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

impl Workshop {
    fn go(&self) -> Command {
        let mut go = Command::new("go");
        go.current_dir(&self.folder).env("CGO_ENABLED", "0").env("GOWORK", "off").env_remove("GOFLAGS");
        go.envs(self.environment.iter().map(|(name, value)| (name, value)));
        go
    }
}

/// How long to sleep between two looks at a program that is running.
const PAUSE: Duration = Duration::from_millis(50);

/// Lines of a build's output that an error shows.
const TAIL: usize = 12;

impl Release {
    /// Its version, such as `1.37.2`.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// Whether all of its programs are there, so that [`Self::ensure`] builds nothing.
    pub fn is_built(&self) -> Result<bool> {
        Ok(self.missing(&self.folder()?, |_| true).is_empty())
    }

    /// The folder with its programs. What is missing is built, which takes minutes; progress goes to standard error.
    pub fn ensure(&self, interrupt: &Interrupt) -> Result<PathBuf> {
        self.ensure_those(interrupt, |_| true)
    }

    /// One of its programs. The others need not be there.
    pub fn ensure_program(&self, name: &str, interrupt: &Interrupt) -> Result<PathBuf> {
        Ok(self.ensure_those(interrupt, |other| other == name)?.join(name))
    }

    /// The folder of its source in Go's cache.
    pub fn module(&self, interrupt: &Interrupt) -> Result<PathBuf> {
        let Source::Module(module) = self.source else { bail!("{} is no Go module", self.name) };
        let workshop = Workshop { folder: std::env::temp_dir(), environment: Vec::new() };
        Ok(module::download(&workshop, module, &format!("v{}", self.version), interrupt)?.folder.into())
    }

    fn ensure_those(&self, interrupt: &Interrupt, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
        let folder = self.folder()?;
        if self.missing(&folder, &wanted).is_empty() {
            return Ok(folder);
        }
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        // Whoever else builds the same is waited for.
        let lock = File::create(folder.join(".lock")).with_context(|| format!("lock {}", folder.display()))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).context("lock the cache")?;
        let missing = self.missing(&folder, &wanted);
        if !missing.is_empty() {
            self.build(&folder, &missing, interrupt)
                .with_context(|| format!("build {} {}", self.name, self.version))?;
        }
        Ok(folder)
    }

    fn folder(&self) -> Result<PathBuf> {
        Ok(cache::folder("go")?.join(format!("{}-{}-{}", self.name, self.version, self.key())))
    }

    fn missing(&self, folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
        let missing = |&&(name, _): &&(&str, &str)| wanted(name) && !folder.join(name).is_file();
        self.programs.iter().filter(missing).copied().collect()
    }

    /// Of everything that makes a build differ from another one of the same version.
    fn key(&self) -> String {
        let source = match self.source {
            Source::Module(module) => module.to_owned(),
            Source::Debian(package) => format!("debian:{package} {:?}", debian::RENEWED),
        };
        let digest = Sha256::digest(format!("{source} {:?}", self.linker_flags()));
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
        let workshop = match self.source {
            Source::Module(module) => module::prepare(self, module, &folder.join("module"), interrupt)?,
            Source::Debian(package) => debian::prepare(self, package, &folder.join("source"), interrupt)?,
        };
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
            let mut go = workshop.go();
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
        if matches!(self.source, Source::Debian(_)) {
            // Hundreds of megabytes, of no use to anything but the build.
            fs::remove_dir_all(folder.join("source"))?;
        }
        Ok(())
    }
}

/// Progress is worth a time stamp only where nobody watches it come.
fn progress(what: &str) {
    eprintln!("{}{what}", if io::stderr().is_terminal() { "" } else { "cluster: " });
}

/// Runs a program to its end and returns what it wrote; an interrupt ends it.
fn run(command: &mut Command, interrupt: &Interrupt) -> Result<String> {
    let line = || format!("{command:?}").replace('"', "");
    let line = line();
    let folder = command.get_current_dir().unwrap_or_else(|| Path::new(".")).to_path_buf();
    let (said, wrong) = (folder.join("output"), folder.join("errors"));
    command.stdin(Stdio::null()).stdout(File::create(&said)?).stderr(File::create(&wrong)?);
    let mut child =
        command.spawn().with_context(|| format!("{line}: is {} installed?", command.get_program().display()))?;
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
    use super::releases::{HELM_4, KUBERNETES_1_20};
    use super::*;

    #[test]
    fn another_way_of_building_is_another_folder() {
        let other = Release { variables: |_| Vec::new(), ..HELM_4 };
        assert_ne!(other.key(), HELM_4.key());
        let other = Release { source: Source::Module("kubernetes"), ..KUBERNETES_1_20 };
        assert_ne!(other.key(), KUBERNETES_1_20.key());
    }
}
