//! Becomes another program, by every way to name one.

use std::convert::Infallible;
use std::env;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::fcntl::{AtFlags, FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::execveat;

use crate::read::parent;
use crate::scratch;

/// How the program is named.
#[derive(Clone, Copy, ValueEnum)]
pub enum How {
    /// By its path.
    Plain,
    /// As `./name`, from its directory.
    Relative,
    /// By a descriptor alone (execveat with `AT_EMPTY_PATH`).
    Descriptor,
    /// Through `/proc/self/fd`.
    ProcFd,
    /// By a descriptor of an anonymous memory file that holds a copy.
    Memfd,
    /// Through `/proc/self/fd`, from an anonymous memory file that holds a copy.
    MemfdProcFd,
    /// By a descriptor of a copy on disk that has no name any more.
    Unlinked,
    /// By a descriptor of a copy that never had a name (`O_TMPFILE`).
    Tmpfile,
}

/// What `actor exec` takes.
#[derive(Args)]
pub struct Arguments {
    how: How,
    path: PathBuf,
    /// `NAME=VALUE` in the program's environment.
    #[arg(long)]
    env: Option<String>,
    /// The program's name for itself.
    #[arg(long)]
    arg0: Option<String>,
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    args: Vec<String>,
}

impl Arguments {
    /// Replaces this process by the program.
    pub fn run(self) -> Result<()> {
        let problem = match self.exec() {
            Ok(never) => match never {},
            Err(problem) => problem,
        };
        Err(problem.context(format!("exec {}", self.path.display())))
    }

    fn exec(&self) -> Result<Infallible> {
        match self.how {
            How::Plain => self.by_path(&self.path),
            How::Relative => {
                env::set_current_dir(parent(&self.path)?)?;
                self.by_path(&Path::new(".").join(self.path.file_name().context("the path has no name")?))
            }
            How::Descriptor => self.by_descriptor(&File::open(&self.path)?.into()),
            How::ProcFd => self.by_proc_fd(&File::open(&self.path)?.into()),
            How::Memfd => self.by_descriptor(&self.memfd()?),
            How::MemfdProcFd => self.by_proc_fd(&self.memfd()?),
            How::Unlinked => {
                let copy = scratch::path()?;
                std::fs::copy(&self.path, &copy)?;
                let descriptor = File::open(&copy)?;
                std::fs::remove_file(&copy)?;
                self.by_descriptor(&descriptor.into())
            }
            How::Tmpfile => {
                let flags = OFlag::O_TMPFILE | OFlag::O_RDWR;
                let writable = nix::fcntl::open("/tmp", flags, Mode::from_bits_truncate(0o755))?;
                io::copy(&mut File::open(&self.path)?, &mut File::from(writable.try_clone()?))?;
                // A file that is open for writing cannot be executed.
                let readable = File::open(format!("/proc/self/fd/{}", writable.as_raw_fd()))?;
                drop(writable);
                self.by_descriptor(&readable.into())
            }
        }
    }

    fn memfd(&self) -> Result<OwnedFd> {
        let descriptor = memfd_create(c"payload", MFdFlags::empty())?;
        io::copy(&mut File::open(&self.path)?, &mut File::from(descriptor.try_clone()?))?;
        Ok(descriptor)
    }

    fn by_path(&self, path: &Path) -> Result<Infallible> {
        let mut command = Command::new(path);
        command.args(&self.args);
        if let Some(name) = &self.arg0 {
            command.arg0(name);
        }
        if let Some((name, value)) = self.env.as_deref().and_then(|pair| pair.split_once('=')) {
            command.env(name, value);
        }
        Err(command.exec().into())
    }

    fn by_proc_fd(&self, descriptor: &OwnedFd) -> Result<Infallible> {
        stay_open(descriptor)?;
        self.by_path(Path::new(&format!("/proc/self/fd/{}", descriptor.as_raw_fd())))
    }

    fn by_descriptor(&self, descriptor: &OwnedFd) -> Result<Infallible> {
        let name = self.arg0.clone().unwrap_or_else(|| self.path.display().to_string());
        let args =
            [name].iter().chain(&self.args).map(|arg| CString::new(arg.as_str())).collect::<Result<Vec<_>, _>>()?;
        let env = env::vars().map(|(name, value)| CString::new(format!("{name}={value}")));
        let env = env.collect::<Result<Vec<_>, _>>()?;
        Ok(execveat(descriptor, c"", &args, &env, AtFlags::AT_EMPTY_PATH)?)
    }
}

/// A script's interpreter opens the descriptor again, so it must survive the exec.
fn stay_open(descriptor: impl AsFd) -> Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}
