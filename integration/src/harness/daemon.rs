//! containerd itself, as a child with nothing in common with the machine's own.

use std::fs::{self, File, OpenOptions};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::{cgroup, netns::Netns};

/// Where containerd keeps its shims' sockets and runc's state, whatever its configuration says.
const FIXED_STATE: &str = "/run/containerd";

/// A guard against hanging.
const LIMIT: Duration = Duration::from_mins(1);

/// A running containerd.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    directory: PathBuf,
    cgroup: String,
    /// Its mount namespace, for the next one if this one is killed.
    mounts: File,
    /// The mount point was not there before.
    made: bool,
    stopped: bool,
}

impl Daemon {
    /// Starts containerd with everything below `directory`, in the node's network namespace and the cgroup `cgroup`.
    pub fn start(directory: &Path, node: &Netns, cgroup: &str) -> Result<Self> {
        let state = directory.join("run");
        fs::create_dir_all(&state)?;
        fs::create_dir_all(directory.join("cni"))?;
        fs::write(directory.join("containerd.toml"), configuration(directory))?;
        let made = !Path::new(FIXED_STATE).exists();
        fs::create_dir_all(FIXED_STATE)?;
        let child = node.within(|| -> Result<Child> {
            private_mounts(&state)?;
            spawn(directory)
        })?;
        let mounts = format!("/proc/{}/ns/mnt", child.id());
        let mounts = File::open(&mounts).context(mounts)?;
        let daemon =
            Self { child, directory: directory.to_path_buf(), cgroup: cgroup.to_owned(), mounts, made, stopped: false };
        cgroup::confine(cgroup, daemon.child.id())?;
        daemon.wait_until_ready()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    fn wait_until_ready(mut self) -> Result<Self> {
        let until = Instant::now() + LIMIT;
        // The file is there a moment before anybody listens.
        while UnixStream::connect(self.socket()).is_err() {
            let log = self.directory.join("containerd.log");
            if let Some(status) = self.child.try_wait()? {
                bail!("containerd ended with {status}: {}", fs::read_to_string(log)?);
            }
            if Instant::now() > until {
                bail!("containerd is not ready after 60 s: {}", fs::read_to_string(log)?);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(self)
    }

    /// Kills containerd alone, as a crash would. Containers live on.
    pub fn crash(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(fs::remove_file(self.socket())?)
    }

    /// Starts it again after a crash.
    pub fn restart(mut self, node: &Netns) -> Result<Self> {
        self.child = node.within(|| -> Result<Child> {
            // A thread shares its root and working directory with others until it says otherwise.
            unshare(CloneFlags::CLONE_FS)?;
            setns(&self.mounts, CloneFlags::CLONE_NEWNS).context("enter the mount namespace")?;
            spawn(&self.directory)
        })?;
        cgroup::confine(&self.cgroup, self.child.id())?;
        self.wait_until_ready()
    }

    /// Kills it and everything that it started outside of containers.
    pub fn stop(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.stopped, true) {
            return Ok(());
        }
        let killed = cgroup::remove(&self.cgroup);
        let _ = self.child.kill();
        self.child.wait()?;
        if self.made {
            // Not empty if another containerd was started meanwhile.
            let _ = fs::remove_dir(FIXED_STATE);
        }
        killed
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}

fn spawn(directory: &Path) -> Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(directory.join("containerd.log"))?;
    let mut command = Command::new("containerd");
    command.arg("--config").arg(directory.join("containerd.toml"));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // The terminal's interrupt key ends whoever uses the node, which then still needs containerd for cleaning up.
    command.process_group(0);
    command.spawn().context("containerd: is it installed?")
}

/// A mount namespace for this thread and its children, whose mounts the machine never sees.
fn private_mounts(state: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare a mount namespace")?;
    let propagate = |flags| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | flags, None::<&str>);
    propagate(MsFlags::MS_PRIVATE).context("make mounts private")?;
    // Shared again, but only with what is made from here: containers may ask for propagation.
    propagate(MsFlags::MS_SHARED).context("make mounts shared")?;
    mount(Some(state), FIXED_STATE, None::<&str>, MsFlags::MS_BIND, None::<&str>).context(FIXED_STATE)
}

#[expect(clippy::uninlined_format_args, reason = "one argument is an expression")]
/// Configuration version 2, which containerd 1.4 to 2 read.
fn configuration(directory: &Path) -> String {
    let at = directory.display();
    format!(
        r#"version = 2
root = "{at}/root"
state = "{at}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{at}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{at}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{at}/cni"
"#,
        sandbox = SANDBOX_IMAGE,
    )
}

/// The image of pods' sandboxes; whoever wants pods imports it.
pub const SANDBOX_IMAGE: &str = "localhost/sandbox:1";
