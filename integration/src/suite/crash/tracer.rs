//! An enforcer whose steps are seen, and that is killed at one of them: every system call of its threads stops it
//! (ptrace), so that the program under test needs no code for it.

use std::collections::HashMap;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::step::{self, Names};
use crate::journal::Journal;
use crate::messages::Messages;

/// A guard against hanging.
const LIMIT: Duration = Duration::from_mins(1);

/// When it is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// While this is being done.
    pub phase: &'static str,
    /// At a step of this kind.
    pub kind: String,
    /// Which one, from 1.
    pub nth: usize,
    /// Of as many.
    pub of: usize,
    /// The call has been made; else it is about to be.
    pub after: bool,
}

/// Phases and kinds, in order.
pub type Steps = Vec<(&'static str, String)>;

#[derive(Default)]
struct State {
    phase: &'static str,
    steps: Steps,
    /// Of each kind in each phase.
    counts: HashMap<(&'static str, String), usize>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a step; how many of its kind there were in this phase.
    fn note(&self, kind: &str) -> (&'static str, usize) {
        let mut state = self.lock();
        let phase = state.phase;
        state.steps.push((phase, kind.to_owned()));
        let count = state.counts.entry((phase, kind.to_owned())).or_default();
        *count += 1;
        (phase, *count)
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the point.
    Killed,
    /// By itself, or by somebody else.
    Other(WaitStatus),
}

impl End {
    /// As it was asked to.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Other(WaitStatus::Exited(_, 0)))
    }
}

/// A program under trace. Dropped, it is killed.
pub struct Traced {
    pid: Pid,
    shared: Shared,
    messages: Messages,
    tracer: Option<JoinHandle<Result<End>>>,
}

impl Traced {
    /// Starts the command; it is killed at the point.
    pub fn start(command: &Command, phase: &'static str, point: Option<Point>, journal: &Journal) -> Result<Self> {
        // It waits until it is traced.
        let mut waiting = Command::new("sh");
        waiting.args(["-c", "read -r go; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
        waiting.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shared = Shared::default();
        shared.lock().phase = phase;
        let (send, receive) = std::sync::mpsc::channel();
        let (of_tracer, journal) = (shared.clone(), journal.clone());
        // The thread that starts it traces it: others can't.
        let tracer = thread::spawn(move || {
            let mut child = waiting.spawn()?;
            let pid = Pid::from_raw(i32::try_from(child.id())?);
            journal.follow(child.stdout.take().context("no output")?);
            send.send((pid, Messages::follow(&mut child, |_| ())?))?;
            let traced = trace(&mut child, pid, &of_tracer, point.as_ref());
            if traced.is_err() {
                // It is not to outlive this.
                let _ = child.kill();
            }
            traced
        });
        let Ok((pid, messages)) = receive.recv() else {
            bail!("{:?}", tracer.join().map_err(|_| anyhow!("the tracer panicked"))?)
        };
        Ok(Self { pid, shared, messages, tracer: Some(tracer) })
    }

    /// What follows belongs to another phase.
    pub fn enter(&self, phase: &'static str) {
        self.shared.lock().phase = phase;
    }

    /// The steps so far: phase and kind.
    pub fn steps(&self) -> Steps {
        self.shared.lock().steps.clone()
    }

    /// What it said on its error output.
    pub fn messages(&self) -> String {
        self.messages.text()
    }

    /// Whether it is gone.
    pub fn has_ended(&self) -> bool {
        self.tracer.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Whether it ends soon enough.
    pub fn ends_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while !self.has_ended() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        self.has_ended()
    }

    /// Waits for its end, and kills it where that does not come.
    pub fn wait(&mut self) -> Result<End> {
        if !self.ends_within(LIMIT) {
            self.kill()?;
            bail!("it did not end within {LIMIT:?}: {}", self.messages());
        }
        let tracer = self.tracer.take().context("it was waited for before")?;
        tracer.join().map_err(|_| anyhow!("the tracer panicked"))?
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid, signal)?)
    }

    fn kill(&self) -> Result<()> {
        if !self.has_ended() {
            kill(self.pid, Signal::SIGKILL)?;
        }
        Ok(())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if self.tracer.is_some()
            && let Err(error) = self.kill().and_then(|()| self.wait())
        {
            eprintln!("{error:#}");
        }
    }
}

fn trace(child: &mut Child, pid: Pid, shared: &Shared, point: Option<&Point>) -> Result<End> {
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).context("trace it")?;
    ptrace::interrupt(pid)?;
    child.stdin.take().context("no input")?.write_all(b"go\n")?;
    let mut names = Names::default();
    // Threads that are in a system call, with the step that it is.
    let mut inside: HashMap<Pid, Option<bool>> = HashMap::new();
    let mut killed = false;
    loop {
        // Only of this thread: the suite has other children.
        let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::EINTR) => continue,
            status => status?,
        };
        let resumed = match status {
            WaitStatus::Exited(of, _) | WaitStatus::Signaled(of, ..) if of == pid => {
                return Ok(if killed { End::Killed } else { End::Other(status) });
            }
            WaitStatus::PtraceSyscall(thread) => {
                if let Some(hit) = inside.remove(&thread) {
                    // It returns.
                    killed |= hit == Some(true) && kill(pid, Signal::SIGKILL).is_ok();
                } else {
                    let hit = step::of(thread, &mut names)
                        .map(|kind| (shared.note(&kind), kind))
                        .zip(point)
                        .filter(|(((phase, nth), kind), point)| {
                            (*phase, *nth, kind) == (point.phase, point.nth, &point.kind)
                        })
                        .map(|(_, point)| point.after);
                    killed |= hit == Some(false) && kill(pid, Signal::SIGKILL).is_ok();
                    inside.insert(thread, hit);
                }
                ptrace::syscall(thread, None)
            }
            WaitStatus::PtraceEvent(thread, _, event) => {
                if event == libc::PTRACE_EVENT_EXEC {
                    // The call that it was in returns as another program's.
                    inside.insert(thread, None);
                }
                ptrace::syscall(thread, None)
            }
            WaitStatus::Stopped(thread, signal) => ptrace::syscall(thread, signal),
            _ => Ok(()),
        };
        match resumed {
            // It was killed meanwhile.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The kinds of steps of a phase, with how often each was seen.
fn counted(steps: &Steps, phase: &str) -> Vec<(String, usize)> {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for (_, kind) in steps.iter().filter(|(of, _)| *of == phase) {
        match kinds.iter_mut().find(|(other, _)| other == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind.clone(), 1)),
        }
    }
    kinds
}

/// A first, a middle and a last step of each kind, about to be made and made, of those that came each time.
pub fn points(seen: &[Steps], phase: &'static str) -> Result<Vec<Point>> {
    let counts: Vec<_> = seen.iter().map(|steps| counted(steps, phase)).collect();
    let first = counts.first().context("nothing was looked at")?;
    ensure!(!first.is_empty(), "no step of {phase} was seen");
    let mut points = Vec::new();
    for (kind, _) in first {
        let each = counts.iter().map(|of| of.iter().find(|(other, _)| other == kind).map_or(0, |(_, count)| *count));
        let count = each.min().unwrap_or_default();
        let mut nths = vec![1, count.div_ceil(2), count];
        nths.dedup();
        nths.retain(|nth| *nth > 0 && *nth <= count);
        for nth in nths {
            points.extend([false, true].map(|after| Point { phase, kind: kind.clone(), nth, of: count, after }));
        }
    }
    Ok(points)
}

impl Point {
    /// Whether the enforcer is killed at it: a first one of its kind that is about to be made, a last one that has been
    /// made, and one in between where there are many.
    pub fn is_essential(&self) -> bool {
        const MANY: usize = 20;
        match (self.nth, self.after) {
            (1, false) => true,
            (nth, true) if nth == self.of => true,
            (nth, _) => nth != 1 && nth != self.of && self.of > MANY,
        }
    }

    /// Whether user space makes the step only if the kernel was not faster.
    pub fn is_a_race(&self) -> bool {
        ["-members", "-cgroups"].iter().any(|map| self.kind.ends_with(map))
    }

    /// Whether what is told there is a violation: the looping container's, which may have none just then.
    pub fn is_told_at(&self, phase: &str) -> bool {
        self.phase == phase && self.kind == "tell"
    }

    /// The test's name.
    pub fn name(&self) -> String {
        format!("crash/{}/{}-{}/{}", self.phase, self.kind, self.nth, if self.after { "after" } else { "before" })
    }
}
