//! The process that is measured: does one thing many times and says how long it took.

use std::fs;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::IntoRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::close;
use ringfence_actor::Stamp;

/// A static program that ends at once.
const PROGRAM: [&std::ffi::CStr; 2] = [c"/bin/busybox", c"true"];
/// A small file that no rule minds.
const FILE: &std::ffi::CStr = c"/etc/hostname";
/// A file that RF-501 minds.
const SECRET: &std::ffi::CStr = c"/etc/shadow";
/// How long packets are sent before the violation, and after it.
const SENDING: Duration = Duration::from_millis(2);
/// Looks at the clock a second, when the pace is given.
const LOOKS: u32 = 1_000;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The start of a child that sleeps.
    Sleeper,
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
            Self::Sleeper => "sleeper",
        }
    }

    /// What it is, in a table.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Open => "open + close of a small file",
            Self::Exec => "fork + exec + exit of a static program",
            Self::Connect => "connect + accept + close on loopback",
            Self::Violate | Self::ViolateInChild => "open of /etc/shadow",
            Self::Sleeper => "start of a process that sleeps",
        }
    }

    /// The class of the event that it is.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Open | Self::Violate | Self::ViolateInChild => "open",
            Self::Exec | Self::Sleeper => "exec",
            Self::Connect => "network",
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
    /// Starts one in the cgroup whose directory is given. To be called while no enforcer runs: it is an ordinary process
    /// of its cgroup when one comes. The terminal's interrupt key does not reach it: it ends when this process does, and
    /// takes with it what it has started.
    pub fn start(cgroup: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("bench-worker")
            .arg(cgroup)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a worker")?;
        let (questions, answers) = (child.stdin.take(), child.stdout.take());
        let mut worker = Self {
            questions: questions.context("no input")?,
            answers: BufReader::new(answers.context("no output")?),
            child,
        };
        // From its first answer on it is where it belongs.
        worker.run(Task::Open, 1)?;
        Ok(worker)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Nanoseconds per repetition.
    pub fn run(&mut self, task: Task, repetitions: u32) -> Result<f64> {
        Ok(self.ask(&format!("{} {repetitions}", task.word()))? / f64::from(repetitions))
    }

    /// The same, but no faster than so many a second.
    pub fn run_at(&mut self, task: Task, repetitions: u32, per_second: u32) -> Result<f64> {
        Ok(self.ask(&format!("{} {repetitions} {per_second}", task.word()))? / f64::from(repetitions))
    }

    /// Nanoseconds that a command takes, from its start to its good end.
    pub fn command(&mut self, command: &[impl AsRef<str>]) -> Result<f64> {
        let quoted = shlex::try_join(command.iter().map(AsRef::as_ref)).context("a command without zero bytes")?;
        self.ask(&format!("command 1 0 {quoted}"))
    }

    /// One violation, after which it may not live to answer.
    pub fn violate(&mut self) -> Result<()> {
        Ok(writeln!(self.questions, "{} 1", Task::Violate.word())?)
    }

    /// One violation while another thread sends stamped packets to a port of the loopback interface, before and after it,
    /// as fast as it can.
    pub fn violate_while_sending(&mut self, port: u16) -> Result<()> {
        self.ask(&format!("send 1 0 {port}")).map(drop)
    }

    /// Nanoseconds of one request to a web server on the loopback interface, each on a connection of its own.
    pub fn requests(&mut self, port: u16, repetitions: u32) -> Result<f64> {
        Ok(self.ask(&format!("request {repetitions} 0 {port}"))? / f64::from(repetitions))
    }

    fn ask(&mut self, question: &str) -> Result<f64> {
        writeln!(self.questions, "{question}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().with_context(|| format!("the worker was asked {question:?} and said {line:?}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The worker's own life, in its cgroup.
pub fn serve(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| cgroup.display().to_string())?;
    let served = answer();
    // Nobody asks any more. Servers that were started for a workload are of this cgroup, and so are we.
    let killed = fs::write(cgroup.join("cgroup.kill"), "1").with_context(|| cgroup.display().to_string());
    served.and(killed)
}

/// Lines `TASK REPETITIONS [PER_SECOND [COMMAND | PORT]]` in, nanoseconds out.
fn answer() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let to = listener.local_addr()?;
    for line in io::stdin().lines() {
        let line = line?;
        let mut parts = line.splitn(4, ' ');
        let word = parts.next().context("a task")?;
        let repetitions: u32 = parts.next().context("a number of repetitions")?.parse()?;
        let per_second: u32 = parts.next().map_or(Ok(0), str::parse)?;
        let command = shlex::split(parts.next().unwrap_or_default()).context("a command, quoted for a shell")?;
        let once: &dyn Fn() -> Result<()> = match word {
            "open" => &|| open_and_close(FILE),
            "violate" => &|| open_and_close(SECRET),
            "exec" => &spawn,
            "violate-in-child" => &violate_in_child,
            "connect" => &|| connect(&listener, to),
            "sleeper" => &sleeper,
            "send" => &|| violate_while_sending(&command),
            "command" => &|| succeed(&command),
            "request" => &|| request(&command),
            _ => bail!("no task is called {word}"),
        };
        let from = Instant::now();
        for done in 0..repetitions {
            if per_second != 0 && done % (per_second / LOOKS).max(1) == 0 {
                let due = Duration::from_secs_f64(f64::from(done) / f64::from(per_second));
                thread::sleep(due.saturating_sub(from.elapsed()));
            }
            once()?;
        }
        println!("{}", from.elapsed().as_nanos());
    }
    Ok(())
}

/// Two system calls. `File` would make three of them: musl's open(3) sets close-on-exec once more.
fn open_and_close(path: &std::ffi::CStr) -> Result<()> {
    let file = open(path, OFlag::O_RDONLY, Mode::empty())?;
    Ok(close(file.into_raw_fd())?)
}

/// No more than has to be: `Command` would also make descriptors for the child.
fn spawn() -> Result<()> {
    let (actions, attributes) = (PosixSpawnFileActions::init()?, PosixSpawnAttr::init()?);
    let none: [&std::ffi::CStr; 0] = [];
    let child = posix_spawn(PROGRAM[0], &actions, &attributes, &PROGRAM, &none)?;
    let status = waitpid(child, None)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 0)), "{PROGRAM:?}: {status:?}");
    Ok(())
}

/// How it ends is not asked here: it may have been killed, which is the point.
fn violate_in_child() -> Result<()> {
    Command::new("/bin/busybox").arg("cat").arg(SECRET.to_str()?).stdout(Stdio::null()).status()?;
    Ok(())
}

/// Nobody waits for its end.
fn sleeper() -> Result<()> {
    let (actions, attributes) = (PosixSpawnFileActions::init()?, PosixSpawnAttr::init()?);
    let none: [&std::ffi::CStr; 0] = [];
    posix_spawn(PROGRAM[0], &actions, &attributes, &[PROGRAM[0], c"sleep", c"1000000"], &none)?;
    Ok(())
}

fn violate_while_sending(port: &[String]) -> Result<()> {
    let port: u16 = port.first().context("a port")?.parse()?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, port))?;
    let (done, sending) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                // Refused once it is isolated, which is what is measured.
                let _ = socket.send(&Stamp::now(number).to_bytes());
                sending.store(true, Ordering::Relaxed);
            }
        });
        thread::sleep(SENDING);
        // On one processor, it may not have come that far.
        while !sending.load(Ordering::Relaxed) {
            thread::sleep(SENDING);
        }
        let violated = open_and_close(SECRET);
        thread::sleep(SENDING);
        done.store(true, Ordering::Relaxed);
        violated
    })
}

fn succeed(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("a command")?;
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().context(program.clone())?;
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// GET of the file at the root, whole.
fn request(port: &[String]) -> Result<()> {
    let port: u16 = port.first().context("a port")?.parse()?;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let status = answer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    ensure!(status == b"200", "the web server answers {:?}", String::from_utf8_lossy(&answer));
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
