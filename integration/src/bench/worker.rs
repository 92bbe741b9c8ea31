//! The process that is measured: does one thing many times and says how long it took.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};

/// A static program that ends at once.
const PROGRAM: [&str; 2] = ["/bin/busybox", "true"];
/// A small file that no rule minds.
const FILE: &str = "/etc/hostname";
/// A file that RF-501 minds.
const SECRET: &str = "/etc/shadow";

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// open(2) and close(2).
    Open,
    /// A child that executes a static program, to its end.
    Exec,
    /// connect(2) to a listener on the loopback interface, accepted, and closed.
    Connect,
    /// One open of a file that RF-501 minds.
    Violate,
    /// The same by a child, which may be killed for it.
    ViolateInChild,
}

impl Task {
    /// What is measured, with repetitions per round: some 50 ms each.
    pub const MEASURED: [(Self, u32); 3] = [(Self::Open, 20_000), (Self::Exec, 150), (Self::Connect, 1_500)];

    /// The word between the two processes.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Exec => "exec",
            Self::Connect => "connect",
            Self::Violate => "violate",
            Self::ViolateInChild => "violate-in-child",
        }
    }

    /// What it is, in a table.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Open => "open + close of a small file",
            Self::Exec => "fork + exec + exit of a static program",
            Self::Connect => "connect + accept + close on loopback",
            Self::Violate | Self::ViolateInChild => "open of /etc/shadow",
        }
    }
}

/// A worker, from outside. Dropped, it is ended.
pub struct Worker {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one in the cgroup of this process or in another, whose directory is given. To be called while no
    /// enforcer runs: it is an ordinary process of its cgroup when one comes.
    pub fn start(cgroup: Option<&Path>) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("bench-worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a worker")?;
        let (questions, answers) = (child.stdin.take(), child.stdout.take());
        let worker = Self {
            questions: questions.context("no input")?,
            answers: BufReader::new(answers.context("no output")?),
            child,
        };
        if let Some(cgroup) = cgroup {
            std::fs::write(cgroup.join("cgroup.procs"), worker.child.id().to_string()).context("move the worker")?;
        }
        Ok(worker)
    }

    /// Nanoseconds per repetition.
    pub fn run(&mut self, task: Task, repetitions: u32) -> Result<f64> {
        writeln!(self.questions, "{} {repetitions}", task.word())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let total: f64 = line.trim().parse().with_context(|| format!("the worker said {line:?}"))?;
        Ok(total / f64::from(repetitions))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The worker's own life: lines `TASK REPETITIONS` in, nanoseconds out.
pub fn serve() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let to = listener.local_addr()?;
    for line in io::stdin().lines() {
        let line = line?;
        let (word, repetitions) = line.split_once(' ').context("TASK REPETITIONS")?;
        let repetitions: u32 = repetitions.parse()?;
        let once: &dyn Fn() -> Result<()> = match word {
            "open" => &|| Ok(File::open(FILE).map(drop)?),
            "violate" => &|| Ok(File::open(SECRET).map(drop)?),
            "exec" => &|| spawn(&PROGRAM),
            "violate-in-child" => &|| spawn(&["/bin/busybox", "cat", SECRET]),
            "connect" => &|| connect(&listener, to),
            _ => bail!("no task is called {word}"),
        };
        let from = Instant::now();
        for _ in 0..repetitions {
            once()?;
        }
        println!("{}", from.elapsed().as_nanos());
    }
    Ok(())
}

fn spawn(command: &[&str]) -> Result<()> {
    // How it ends is not asked here: it may have been killed, which is the point.
    Command::new(command[0]).args(&command[1..]).stdout(Stdio::null()).status()?;
    Ok(())
}

/// In one thread: a second one that accepts would be a matter of scheduling, and of the length of the queue.
fn connect(listener: &TcpListener, to: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(to)?;
    let accepted = listener.accept()?;
    // Closed by a reset: ports that wait would run out.
    setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    drop((stream, accepted));
    Ok(())
}
