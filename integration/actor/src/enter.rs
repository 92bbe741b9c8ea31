//! A container runtime's part inside of a container, for containers that have no runtime.

use std::convert::Infallible;
use std::env;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::Args;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{pivot_root, setsid};

/// What `actor enter` takes.
#[derive(Args)]
pub struct Arguments {
    /// A terminal that becomes the controlling one.
    #[arg(long)]
    terminal: Option<PathBuf>,
    /// The container's root.
    root: PathBuf,
    /// Its first program.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Arguments {
    /// Does not return but with an error.
    pub fn run(&self) -> Result<()> {
        match enter(self.terminal.as_deref(), &self.root, &self.command)? {}
    }
}

/// Waits until it was moved into the cgroup, makes `root` the root of new namespaces and
/// becomes the container's first program. Returns only with an error.
fn enter(terminal: Option<&Path>, root: &Path, command: &[String]) -> Result<Infallible> {
    io::stdin().read_to_end(&mut Vec::new()).context("wait for the start")?;
    // The first that such a process opens controls it, as long as somebody has it open.
    let input = match terminal {
        Some(terminal) => {
            setsid().context("begin a session")?;
            File::options().read(true).write(true).open(terminal).context("open the terminal")?.into()
        }
        None => Stdio::null(),
    };
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("proc"), &root.join("proc"), Some("proc"), MsFlags::empty(), none).context("mount proc")?;
    mount(Some("shm"), &root.join("dev/shm"), Some("tmpfs"), MsFlags::empty(), Some("mode=1777"))
        .context("mount shm")?;
    mount(Some("/dev/null"), &root.join("dev/null"), none, MsFlags::MS_BIND, none).context("mount /dev/null")?;
    env::set_current_dir(root)?;
    pivot_root(".", ".").context("make it the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leave the old root")?;
    env::set_current_dir("/")?;
    let (program, arguments) = command.split_first().context("nothing to run")?;
    let mut first = Command::new(program);
    Err(first.args(arguments).stdin(input).env("PATH", "/usr/bin:/bin").exec()).context(program.clone())
}
