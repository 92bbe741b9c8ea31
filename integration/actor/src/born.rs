//! A process that is born in another cgroup: clone3(2) with `CLONE_INTO_CGROUP` (5.7). Nobody is moved.
#![expect(unsafe_code, reason = "no library makes this call")]

use std::ffi::OsString;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::read::directory;

/// `include/uapi/linux/sched.h`; libc's is cut to 32 bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What `actor born` takes.
#[derive(Args)]
pub struct Arguments {
    /// The cgroup's directory, of v2.
    cgroup: PathBuf,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl Arguments {
    /// Starts the program, and ends as it does.
    pub fn run(self) -> Result<()> {
        let cgroup = directory(&self.cgroup)?;
        let (program, arguments) = self.command.split_first().context("nothing to start")?;
        let ask = libc::clone_args {
            flags: CLONE_INTO_CGROUP,
            exit_signal: libc::SIGCHLD as u64,
            cgroup: u64::try_from(cgroup.as_raw_fd())?,
            // SAFETY: numbers, of which zero asks for nothing.
            ..unsafe { std::mem::zeroed() }
        };
        // SAFETY: as fork(2): this process has one thread, and the child has a copy of all its memory.
        let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw const ask, size_of::<libc::clone_args>()) };
        let child = Errno::result(answer).context("clone into the cgroup")?;
        if child == 0 {
            return Err(Command::new(program).args(arguments).exec()).context("start the program");
        }
        let ended = waitpid(Pid::from_raw(i32::try_from(child)?), None)?;
        ensure!(matches!(ended, WaitStatus::Exited(_, 0)), "it ended with {ended:?}");
        Ok(())
    }
}
