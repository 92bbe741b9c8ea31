//! `cluster up`, `cluster down` and `cluster shell`.

use std::convert::Infallible;
use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::component::before_path;
use super::version::Programs;
use super::{Boot, Cluster, Helm, Interrupt, Options, Version, environment, kubeconfig, node, state, sweep};
use crate::harness::Image;

/// What to do with the cluster of this machine.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Starts one, and leaves it running.
    Up {
        /// Which Kubernetes it has: 1.37 with containerd 2.4, the others with this machine's containerd.
        #[arg(long, value_enum, value_name = "VERSION", default_value = Version::default().name())]
        kubernetes: Version,
        /// With a second node, a VM that boots with the files `vmlinuz` and `initramfs` of this folder.
        #[arg(long, value_name = "FOLDER")]
        boot: Option<PathBuf>,
    },
    /// Ends it and removes every trace; safe when there is none.
    Down,
    /// A shell with the cluster's kubectl, helm (3 and 4) and ctr; `exit` leaves it. With a command: runs that instead.
    Shell {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// An image that pods can run in a cluster that somebody plays with.
const BUSYBOX: &str = "localhost/busybox:1";

impl Command {
    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        match self {
            Self::Up { kubernetes, boot } => up(*kubernetes, boot.as_deref()),
            Self::Down => down(),
            Self::Shell { command } => match shell(command)? {},
        }
    }
}

fn up(version: Version, boot: Option<&Path>) -> Result<ExitCode> {
    let interrupt = Interrupt::by_signals()?;
    let boot = boot.map(Boot::of).transpose()?;
    // What takes minutes, when it has to be built, comes before the cluster.
    Programs::ensure(version, &interrupt)?;
    let (older, newer) = (Helm::V3.program(&interrupt)?, Helm::V4.program(&interrupt)?);
    let started = Instant::now();
    let mut cluster = Cluster::up(&Options { version, interrupt: interrupt.clone(), ..Options::default() })?;
    let busybox = Image::busybox(BUSYBOX);
    cluster.import(&busybox)?;
    if let Some(boot) = &boot {
        cluster.add_node(boot, &[&busybox])?;
    }
    let ctr = cluster.programs.containerd.join("ctr");
    // The one of its version: whoever plays with a cluster may want to see how the two get on.
    let programs = [("kubectl", cluster.programs.kubernetes.join("kubectl")), ("ctr", ctr)];
    link(&cluster, &programs)?;
    link(&cluster, &[("helm3", older), ("helm4", newer.clone()), ("helm", newer)])?;
    interrupt.check()?;
    let told = format!(
        "Kubernetes {} with containerd {} is up, in {:.1} s. State and logs: {}
Image for pods, beside those that you load: {BUSYBOX}

    export KUBECONFIG={}
    cargo xtask cluster shell                  # kubectl, helm3, helm4 and ctr of this cluster
    cargo xtask cluster shell kubectl get pods --all-namespaces
    cargo xtask cluster down
",
        version.kubernetes(),
        cluster.programs.containerd_version()?,
        started.elapsed().as_secs_f64(),
        cluster.state().display(),
        cluster.kubeconfig().display()
    );
    cluster.leave()?;
    io::stdout().write_all(told.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Puts programs where the user's shell finds them.
fn link(cluster: &Cluster, named: &[(&str, PathBuf)]) -> Result<()> {
    let folder = programs(cluster.state());
    fs::create_dir_all(&folder)?;
    for (name, program) in named {
        symlink(program, folder.join(name)).with_context(|| folder.join(name).display().to_string())?;
    }
    Ok(())
}

fn programs(state: &Path) -> PathBuf {
    state.join("bin")
}

fn down() -> Result<ExitCode> {
    if !sweep::is_there()? {
        println!("There is no cluster.");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(owner) = state::living_owner() {
        bail!("process {owner} runs the cluster for itself, such as for a test; it ends it. End that process instead");
    }
    sweep::everything()?;
    println!("The cluster is down. Nothing is left of it: no process, cgroup, mount, interface or file.");
    Ok(ExitCode::SUCCESS)
}

fn shell(command: &[String]) -> Result<Infallible> {
    let state = Path::new(state::FOLDER);
    if !kubeconfig(state).is_file() || !node::socket(state).exists() {
        bail!("there is no cluster: `cargo xtask cluster up` starts one");
    }
    let usual = || env::var("SHELL").ok().filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".to_owned());
    let path = before_path(&programs(state))?;
    let (program, arguments) = match command {
        [] => (PathBuf::from(usual()), command),
        [program, arguments @ ..] => (find(program, &path), arguments),
    };
    let mut shell = process::Command::new(&program);
    // The shell takes the place of this program: the terminal's keys are its own.
    let error = shell.args(arguments).envs(environment(state)).env("PATH", path).exec();
    Err(error).with_context(|| format!("start {}", program.display()))
}

/// A program is looked for where the shell would, not where this one would.
fn find(program: &str, path: &std::ffi::OsStr) -> PathBuf {
    let candidates = env::split_paths(path).map(|folder| folder.join(program));
    if program.contains('/') { None } else { candidates.into_iter().find(|file| file.is_file()) }
        .unwrap_or_else(|| program.into())
}
