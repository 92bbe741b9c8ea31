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
mod uring;
mod write;
mod xdp;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{io, thread};

use clap::{Parser, Subcommand};
use nix::errno::Errno;

/// The system refused what was tried.
const REFUSED: u8 = 3;

/// Does one thing for real and says what it did.
#[derive(Parser)]
#[command(name = "actor", version)]
struct Arguments {
    #[command(subcommand)]
    behaviour: Behaviour,
}

#[derive(Subcommand)]
enum Behaviour {
    /// Says that it ran: what copies of this program are executed with.
    Nothing {
        /// Ignored: for programs whose arguments are the point.
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        ignored: Vec<String>,
    },
    /// Sleeps.
    Sleep {
        /// Milliseconds.
        milliseconds: u64,
    },
    /// Opens a file and reads it.
    Read(read::Arguments),
    /// Opens a file for writing, or puts another one in its place.
    Write(write::Arguments),
    /// Takes away what a file holds.
    Clear(clear::Arguments),
    /// Changes the mode of a file.
    Mode(mode::Arguments),
    /// Puts a copy of a program somewhere and may run it.
    Drop(drop::Arguments),
    /// Becomes another program.
    Exec(exec::Arguments),
    /// Maps a file into memory.
    Map(map::Arguments),
    /// Puts a connected socket, or a file, on a standard stream.
    Stdio(stdio::Arguments),
    /// Connects a socket, or makes one.
    Connect(connect::Arguments),
    /// Talks to a Unix socket.
    Unix(unix::Arguments),
    /// Enters a namespace, mounts.
    #[command(subcommand)]
    Namespace(namespace::Act),
    /// Makes an interface upon one of another network namespace.
    Link(link::Arguments),
    /// Traces a process.
    Trace(trace::Arguments),
    /// Sends stamped packets without pause, may violate a rule in between and goes on sending.
    Flood(flood::Arguments),
    /// Starts a program in another cgroup from its birth on, and waits for it.
    Born(born::Arguments),
    /// Receives stamped packets and says which was the last.
    Receive(receive::Arguments),
    /// Makes a UDP socket and hands it to every process that connects to a Unix socket; does not end.
    Hand {
        /// The Unix socket.
        path: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().behaviour) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("actor: {error:#}");
            ExitCode::from(if refused(&error) { REFUSED } else { 1 })
        }
    }
}

fn run(behaviour: Behaviour) -> anyhow::Result<()> {
    match behaviour {
        Behaviour::Nothing { ignored } => {
            println!("nothing, with {} arguments", ignored.len());
            Ok(())
        }
        Behaviour::Sleep { milliseconds } => {
            thread::sleep(Duration::from_millis(milliseconds));
            Ok(())
        }
        Behaviour::Read(arguments) => arguments.run(),
        Behaviour::Write(arguments) => arguments.run(),
        Behaviour::Clear(arguments) => arguments.run(),
        Behaviour::Mode(arguments) => arguments.run(),
        Behaviour::Drop(arguments) => arguments.run(),
        Behaviour::Exec(arguments) => arguments.run(),
        Behaviour::Map(arguments) => arguments.run(),
        Behaviour::Stdio(arguments) => arguments.run(),
        Behaviour::Connect(arguments) => arguments.run(),
        Behaviour::Unix(arguments) => arguments.run(),
        Behaviour::Namespace(act) => act.run(),
        Behaviour::Link(arguments) => arguments.run(),
        Behaviour::Trace(arguments) => arguments.run(),
        Behaviour::Flood(arguments) => arguments.run(),
        Behaviour::Born(arguments) => arguments.run(),
        Behaviour::Receive(arguments) => arguments.run(),
        Behaviour::Hand { path } => passed::hand(&path),
    }
}

fn refused(error: &anyhow::Error) -> bool {
    let number = error.chain().find_map(|cause| {
        let io = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        io.map(Errno::from_raw).or_else(|| cause.downcast_ref::<Errno>().copied())
    });
    matches!(number, Some(Errno::EPERM | Errno::EACCES | Errno::EROFS))
}
