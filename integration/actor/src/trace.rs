//! Traces a child of its own.

use std::fs;
use std::io::IoSlice;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// What the child does.
const SLEEP: &str = "sleep";

/// How it is traced.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// `PTRACE_ATTACH`.
    Attach,
    /// `PTRACE_SEIZE`.
    Seize,
    /// `PTRACE_TRACEME`: asks the parent to trace this process.
    TraceMe,
    /// Not traced: its memory is written by `process_vm_writev(2)`.
    Memory,
    /// Not traced: stopped and continued by signals.
    Stop,
}

/// What `actor trace` takes.
#[derive(Args)]
pub struct Arguments {
    how: How,
}

impl Arguments {
    /// Traces and lets go. The child is ended in any case.
    pub fn run(self) -> Result<()> {
        if matches!(self.how, How::TraceMe) {
            ptrace::traceme().context("ask to be traced")?;
            println!("asked to be traced");
            return Ok(());
        }
        let mut child = Command::new("/proc/self/exe").args([SLEEP, "60000"]).stdout(Stdio::null()).spawn()?;
        let result = self.trace(&child);
        child.kill()?;
        child.wait()?;
        result?;
        println!("traced {}", child.id());
        Ok(())
    }

    fn trace(&self, child: &Child) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        match self.how {
            How::Attach => {
                ptrace::attach(pid).context("attach")?;
                waitpid(pid, None)?;
                ptrace::detach(pid, None)?;
            }
            How::Seize => ptrace::seize(pid, ptrace::Options::empty()).context("seize")?,
            How::Stop => {
                kill(pid, Signal::SIGSTOP)?;
                kill(pid, Signal::SIGCONT)?;
            }
            How::Memory => {
                // Until it has memory of its own, this process's is meant, which may be written to.
                while !fs::read(format!("/proc/{pid}/cmdline"))?
                    .windows(SLEEP.len())
                    .any(|word| word == SLEEP.as_bytes())
                {}
                // Where nothing is mapped: whether it may is asked first.
                let nowhere = RemoteIoVec { base: 0x1000, len: 1 };
                match process_vm_writev(pid, &[IoSlice::new(&[0])], &[nowhere]) {
                    Err(Errno::EFAULT) => {}
                    other => bail!("a byte written to where nothing is mapped: {other:?}"),
                }
            }
            How::TraceMe => bail!("only this process itself can ask to be traced"),
        }
        Ok(())
    }
}
