//! `actor`: runs inside a container and does one thing for real, as an attacker would or almost as one would.
//!
//! It knows no rule. Which behaviour violates which rule, and which comes close without doing so, is said by the
//! suite's cases. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the system refused it (EPERM, EACCES, EROFS).

mod born;
mod clear;
#[cfg(target_arch = "x86_64")]
mod compat;
mod connect;
mod drop;
mod enter;
mod exec;
mod flood;
mod forge;
mod link;
mod map;
mod mode;
mod namespace;
mod passed;
mod read;
mod receive;
mod scratch;
mod stdio;
mod trace;
mod tunnel;
mod unix;
mod unread;
mod uring;
mod write;
mod xdp;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{io, thread};

use anyhow::Context as _;
use clap::{ArgMatches, Args, Command, FromArgMatches as _, Subcommand as _};
use nix::errno::Errno;

/// The system refused what was tried.
const REFUSED: u8 = 3;

/// One thing that can be done.
struct Behaviour {
    name: &'static str,
    about: &'static str,
    arguments: fn(Command) -> Command,
    run: fn(&ArgMatches) -> anyhow::Result<()>,
}

macro_rules! behaviour {
    ($name:literal, $about:literal, $arguments:ty) => {
        behaviour!($name, $about, $arguments, augment_args)
    };
    ($name:literal, $about:literal, $arguments:ty, $augment:ident) => {
        Behaviour {
            name: $name,
            about: $about,
            arguments: <$arguments>::$augment,
            run: |matches| <$arguments>::from_arg_matches(matches)?.run(),
        }
    };
}

const BEHAVIOURS: [Behaviour; 20] = [
    behaviour!("nothing", "Says that it ran: what copies of this program are executed with", Nothing),
    behaviour!("sleep", "Sleeps", Sleep),
    behaviour!("enter", "Becomes the first program of a container, as a runtime's own init would", enter::Arguments),
    behaviour!("read", "Opens a file and reads it", read::Arguments),
    behaviour!("write", "Opens a file for writing, or puts another one in its place", write::Arguments),
    behaviour!("clear", "Takes away what a file holds", clear::Arguments),
    behaviour!("mode", "Changes the mode of a file", mode::Arguments),
    behaviour!("drop", "Puts a copy of a program somewhere and may run it", drop::Arguments),
    behaviour!("exec", "Becomes another program", exec::Arguments),
    behaviour!("map", "Maps a file into memory", map::Arguments),
    behaviour!("stdio", "Puts a connected socket, or a file, on a standard stream", stdio::Arguments),
    behaviour!("connect", "Connects a socket, or makes one", connect::Arguments),
    behaviour!("unix", "Talks to a Unix socket", unix::Arguments),
    behaviour!("namespace", "Enters a namespace, mounts", namespace::Act, augment_subcommands),
    behaviour!("link", "Makes an interface upon one of another network namespace", link::Arguments),
    behaviour!("trace", "Traces a process", trace::Arguments),
    behaviour!(
        "flood",
        "Sends stamped packets without pause, may violate a rule in between and goes on sending",
        flood::Arguments
    ),
    behaviour!("born", "Starts a program in another cgroup from its birth on, and waits for it", born::Arguments),
    behaviour!("receive", "Receives stamped packets and says which was the last", receive::Arguments),
    behaviour!(
        "hand",
        "Makes a UDP socket and hands it to every process that connects to a Unix socket; does not end",
        Hand
    ),
];

#[derive(Args)]
struct Nothing {
    /// Ignored: for programs whose arguments are the point.
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    ignored: Vec<String>,
}

impl Nothing {
    #[expect(clippy::unnecessary_wraps, reason = "as the other behaviours do")]
    fn run(&self) -> anyhow::Result<()> {
        println!("nothing, with {} arguments", self.ignored.len());
        Ok(())
    }
}

#[derive(Args)]
struct Sleep {
    /// Milliseconds.
    milliseconds: u64,
}

impl Sleep {
    #[expect(clippy::unnecessary_wraps, reason = "as the other behaviours do")]
    fn run(&self) -> anyhow::Result<()> {
        thread::sleep(Duration::from_millis(self.milliseconds));
        Ok(())
    }
}

#[derive(Args)]
struct Hand {
    /// The Unix socket.
    path: PathBuf,
}

impl Hand {
    fn run(&self) -> anyhow::Result<()> {
        passed::hand(&self.path)
    }
}

/// The arguments of a behaviour are made when it is asked for: this program is started thousands of times, also where the
/// processor is emulated.
fn command() -> Command {
    let behaviours = BEHAVIOURS
        .iter()
        .map(|behaviour| Command::new(behaviour.name).about(behaviour.about).defer(behaviour.arguments));
    Command::new("actor")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Does one thing for real and says what it did")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(behaviours)
}

fn main() -> ExitCode {
    match run(&command().get_matches()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("actor: {error:#}");
            ExitCode::from(if refused(&error) { REFUSED } else { 1 })
        }
    }
}

fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let (name, matches) = matches.subcommand().context("clap asks for a behaviour")?;
    let behaviour = BEHAVIOURS.iter().find(|behaviour| behaviour.name == name).context("clap knows these alone")?;
    (behaviour.run)(matches)
}

fn refused(error: &anyhow::Error) -> bool {
    let number = error.chain().find_map(|cause| {
        let io = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        io.map(Errno::from_raw).or_else(|| cause.downcast_ref::<Errno>().copied())
    });
    matches!(number, Some(Errno::EPERM | Errno::EACCES | Errno::EROFS))
}
