//! The real enforcer, as a child.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence_control::{Client, ClientError, ContainerStatus, Status};

use crate::harness::Node;
use crate::journal::Journal;
use crate::messages::Messages;

/// A guard against hanging.
const LIMIT: Duration = Duration::from_mins(2);

/// What the enforcer says, with `--check`, when an answer of the kernel is not what the rules' declarations say.
const DISAGREEMENT: &str = "the kernel and the reference disagree";

/// How an enforcer is started on a node.
#[derive(Clone)]
pub struct Start {
    /// The program.
    pub program: PathBuf,
    /// The folder with the rulesets.
    pub rulesets: PathBuf,
    /// Where it is to listen for clients.
    pub control: PathBuf,
    /// Folder for what must outlive it.
    pub state: PathBuf,
    /// Where a bpf file system is mounted.
    pub bpffs: PathBuf,
    /// Further options.
    pub options: Vec<String>,
}

impl Start {
    /// The program on a node, without arguments. It ends when this program is killed, and not when the terminal's
    /// interrupt key ends this one: whoever started it ends it.
    pub fn program(&self, node: &Node) -> Command {
        self.program_as(node, &[])
    }

    /// The same, with options of setpriv(1).
    pub fn program_as(&self, node: &Node, privileges: &[&str]) -> Command {
        let mut command = node.command("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(privileges).arg(&self.program);
        command.process_group(0);
        command
    }

    /// The command, with nothing changed yet.
    pub fn command(&self, node: &Node) -> Command {
        let mut command = self.program(node);
        self.standalone(&mut command);
        command.arg("--containerd").arg(node.socket()).arg("--containerd-namespace").arg(node.namespace());
        command
    }

    /// All options but those that name the container runtime.
    pub fn standalone(&self, command: &mut Command) {
        command.arg("--standalone").arg("--rulesets").arg(&self.rulesets).args(["--output", "json"]);
        command.arg("--socket").arg(&self.control).arg("--state").arg(&self.state).arg("--bpffs").arg(&self.bpffs);
        command.args(&self.options);
    }

    /// Starts it and waits until it answers.
    pub fn start(&self, node: &Node, journal: &Journal) -> Result<Enforcer> {
        Enforcer::launch(self.command(node), &self.control, journal)
    }

    /// Removes every trace. To be called when no enforcer runs.
    pub fn uninstall(&self, node: &Node) -> Result<Output> {
        self.uninstall_with(node, &[])
    }

    /// The same, with further arguments.
    pub fn uninstall_with(&self, node: &Node, arguments: &[&str]) -> Result<Output> {
        let mut command = self.program(node);
        command.arg("uninstall").arg("--bpffs").arg(&self.bpffs).arg("--state").arg(&self.state);
        finish(command.args(arguments))
    }
}

/// Runs a command to its end, or ends it when it takes too long.
pub fn finish(command: &mut Command) -> Result<Output> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    end(command, child, || Ok(()))
}

/// The same for a command that waits for its input: `first` is done with it before. `last` ends what it has left
/// behind, which may hold its output open.
pub fn finish_between(
    command: &mut Command,
    first: impl FnOnce(&mut Child) -> Result<()>,
    last: impl FnOnce() -> Result<()>,
) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Err(error) = first(&mut child) {
        child.kill()?;
        child.wait()?;
        return Err(error);
    }
    end(command, child, last)
}

fn end(command: &Command, mut child: Child, last: impl FnOnce() -> Result<()>) -> Result<Output> {
    let until = Instant::now() + LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            child.kill()?;
            last()?;
            let output = child.wait_with_output()?;
            bail!("{command:?} did not end within {LIMIT:?}; it said: {}", String::from_utf8_lossy(&output.stderr));
        }
        thread::sleep(Duration::from_millis(10));
    }
    last()?;
    Ok(child.wait_with_output()?)
}

/// A running enforcer. Dropped, it is ended by SIGTERM; what it pinned stays.
pub struct Enforcer {
    child: Child,
    control: PathBuf,
    messages: Messages,
}

/// An enforcer that does nothing. Dropped, it goes on.
pub struct Paused(Pid);

impl Drop for Paused {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

impl Enforcer {
    /// Starts the command and waits until what it started answers at `control`.
    pub fn launch(mut command: Command, control: &Path, journal: &Journal) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        journal.follow(child.stdout.take().context("no output")?);
        let journal = journal.clone();
        let messages = Messages::follow(&mut child, move |line| {
            if line.contains(DISAGREEMENT) {
                journal.complain(line);
            }
        })?;
        let mut enforcer = Self { child, control: control.into(), messages };
        enforcer.wait_until_ready()?;
        Ok(enforcer)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let until = Instant::now() + LIMIT;
        loop {
            match self.status() {
                Ok(_) => return Ok(()),
                Err(error) => {
                    if let Some(status) = self.child.try_wait()? {
                        bail!("the enforcer ended with {status}: {}", self.messages());
                    }
                    if Instant::now() > until {
                        bail!("the enforcer did not answer within {LIMIT:?} ({error:#}): {}", self.messages());
                    }
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it said on its error output so far.
    pub fn messages(&self) -> String {
        self.messages.text()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It does nothing until what is returned is dropped.
    pub fn pause(&self) -> Result<Paused> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, Signal::SIGSTOP).context("stop the enforcer")?;
        Ok(Paused(pid))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// SIGKILL.
    pub fn crash(mut self) -> Result<()> {
        self.kill()
    }

    /// The same; what it has said is still there.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                self.child.kill()?;
                self.child.wait()?;
                bail!("the enforcer did not end within {LIMIT:?} of SIGTERM: {}", self.messages());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks the enforcer something.
    fn ask<T>(&self, question: impl AsyncFnOnce(&mut Client) -> Result<T, ClientError>) -> Result<T> {
        ask(&self.control, question)
    }

    /// Its state.
    pub fn status(&self) -> Result<Status> {
        status(&self.control)
    }

    /// A container's state, once the enforcer knows it.
    pub fn container(&self, id: &str) -> Result<ContainerStatus> {
        let until = Instant::now() + LIMIT;
        loop {
            let containers = self.ask(async |client| client.containers().await)?;
            if let Some(found) = containers.into_iter().find(|container| container.id.as_str() == id) {
                return Ok(found);
            }
            if Instant::now() > until {
                bail!("the enforcer does not know container {id}: {}", self.messages());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Isolates a container by hand.
    pub fn isolate(&self, id: &str) -> Result<String> {
        self.ask(async |client| client.isolate(id, Some("by the suite")).await)
    }

    /// Lifts a container's isolation.
    pub fn release(&self, id: &str) -> Result<String> {
        self.ask(async |client| client.release(id).await)
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Asks whoever listens there something.
pub fn ask<T>(control: &Path, question: impl AsyncFnOnce(&mut Client) -> Result<T, ClientError>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::connect(control).await?;
        Ok(question(&mut client).await?)
    })
}

/// The state of who listens there.
pub fn status(control: &Path) -> Result<Status> {
    ask(control, async |client| client.status().await)
}

/// The enforcer beside this program, unless another is named.
pub fn beside_this_program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let directory = own.parent().unwrap_or(Path::new("/"));
    let path = directory.join(name);
    if !path.is_file() {
        bail!("{} is missing: build it, or name another", path.display());
    }
    Ok(path)
}
