//! One program of a cluster: started, watched, killed, started again.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use super::mounts;
use crate::harness::{Netns, cgroup};

/// Lines of its log that an error shows.
const TAIL: usize = 8;

/// How a program is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Its name, also of its log.
    pub name: &'static str,
    /// The file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Searched for other programs before what is searched anyway.
    pub path: Option<PathBuf>,
    /// Where.
    pub place: Place,
}

/// A mount namespace. The network namespace is the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The node's.
    Node,
    /// The node's, but for the machine's settings.
    Kubelet,
}

/// The namespaces of a node. They live as long as something is in them, or this value.
#[derive(Debug)]
pub struct Namespaces {
    netns: Netns,
    mounts: File,
    state: PathBuf,
}

impl Namespaces {
    /// New ones, for a cluster with this state folder.
    pub fn create(state: &Path) -> Result<Self> {
        let netns = super::network::create()?;
        let mounts = netns.within(|| -> Result<File> {
            mounts::unshare_node(state)?;
            Ok(File::open("/proc/thread-self/ns/mnt")?)
        })?;
        Ok(Self { netns, mounts, state: state.to_path_buf() })
    }

    /// Runs `f` on a thread in the node's network and mount namespaces. Processes made there stay there.
    pub fn within<T: Send>(&self, place: Place, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.netns.within(|| -> Result<T> {
            // A thread shares its root and working directory with others until it says otherwise.
            unshare(CloneFlags::CLONE_FS)?;
            setns(&self.mounts, CloneFlags::CLONE_NEWNS).context("enter the node's mount namespace")?;
            if place == Place::Kubelet {
                mounts::unshare_kubelet(&self.state)?;
            }
            f()
        })
    }
}

/// A program that was started.
#[derive(Debug)]
pub struct Component {
    launch: Launch,
    log: PathBuf,
    /// `None` after it was killed.
    child: Option<Child>,
}

impl Component {
    /// Starts it, in the cgroup of the cluster's programs.
    pub fn start(launch: Launch, namespaces: &Namespaces) -> Result<Self> {
        let log = namespaces.state.join("log").join(format!("{}.log", launch.name));
        let mut component = Self { launch, log, child: None };
        component.restart(namespaces)?;
        Ok(component)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.launch.name
    }

    /// Starts it again, after it was killed.
    pub fn restart(&mut self, namespaces: &Namespaces) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs", self.launch.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.launch.program);
        command.args(&self.launch.arguments).current_dir(&namespaces.state);
        command.env("TMPDIR", namespaces.state.join("tmp"));
        if let Some(first) = &self.launch.path {
            command.env("PATH", before_path(first)?);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // The terminal's interrupt key ends whoever uses the cluster, which then ends this.
        command.process_group(0);
        let child = namespaces.within(self.launch.place, || {
            command.spawn().with_context(|| format!("start {}", self.launch.program.display()))
        })?;
        let confined = cgroup::confine(super::CGROUP, child.id());
        self.child = Some(child);
        confined
    }

    /// Its process, unless it was killed.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while let Some(child) = &mut self.child {
            if child.try_wait()?.is_some() {
                self.child = None;
                break;
            }
            ensure!(Instant::now() < until, "{} still runs after {} s", self.launch.name, limit.as_secs());
            thread::sleep(super::PAUSE);
        }
        Ok(())
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// An error with the end of its log, if it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if let Some(status) = child.try_wait()? {
            bail!("{} ended with {status}; {}", self.launch.name, self.tail());
        }
        Ok(())
    }

    /// The end of its log, and where that is.
    pub fn tail(&self) -> String {
        // A console has what is no text, too.
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n    ");
        format!("the end of {}:\n    {tail}", self.log.display())
    }
}

/// `PATH` with a folder before all others.
pub fn before_path(first: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths([first.to_path_buf()].into_iter().chain(std::env::split_paths(&path)))?)
}
