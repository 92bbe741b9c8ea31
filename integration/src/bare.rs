//! Containers without a runtime, for a VM: a cgroup, an overlay, namespaces by unshare.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::mount::{MsFlags, mount};

use crate::enforcer::finish_between;
use crate::harness::cgroup;
use crate::image::{Entry, entries};

/// How long a process may take to wait for its start. A guard against hanging.
const LIMIT: Duration = Duration::from_mins(1);

/// What a container's first program, its own shell, does before it becomes the program that is asked for.
const FIRST: &str = r#"ip addr add 169.254.0.1/16 dev lo && ip link set lo up && exec "$0" "$@""#;

/// A root file system below an overlay, and a cgroup.
pub struct Bare {
    root: PathBuf,
    /// Becomes its first program.
    actor: PathBuf,
    /// The cgroup's name, and its directory in each hierarchy.
    cgroup: (String, Vec<PathBuf>),
}

/// The lower layer, made once.
pub struct Layer {
    path: PathBuf,
    actor: PathBuf,
}

impl Layer {
    /// Writes busybox, the actor and the rest below `path`.
    pub fn write(path: PathBuf, busybox: &Path, actor: &Path) -> Result<Self> {
        for directory in ["bin", "dev/shm", "etc", "opt", "proc", "root", "run", "tmp", "usr/bin", "var/log"] {
            fs::create_dir_all(path.join(directory))?;
        }
        fs::copy(busybox, path.join("bin/busybox")).context("copy busybox")?;
        let applets = Command::new(busybox).arg("--list").output().context("list applets")?;
        for applet in String::from_utf8(applets.stdout)?.lines().filter(|applet| *applet != "busybox") {
            symlink("busybox", path.join("bin").join(applet))?;
        }
        for name in ["passwd", "group", "shadow"] {
            fs::write(path.join("etc").join(name), "root:x:0:0:root:/root:/bin/sh\n")?;
        }
        fs::write(path.join("dev/null"), "")?;
        let inside = |name: &str| path.join(name.trim_start_matches('/'));
        for entry in entries() {
            match entry {
                Entry::Actor(name) => copy(actor, &inside(name))?,
                Entry::File { path, content, mode } => {
                    let place = inside(&path);
                    fs::create_dir_all(place.parent().unwrap_or(&place))?;
                    fs::write(&place, content)?;
                    fs::set_permissions(&place, Permissions::from_mode(mode))?;
                }
                Entry::Link { target, path } => {
                    let place = inside(&path);
                    fs::create_dir_all(place.parent().unwrap_or(&place))?;
                    symlink(target, place)?;
                }
                Entry::Directory(name) => fs::create_dir_all(inside(name))?,
            }
        }
        Ok(Self { path, actor: actor.into() })
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, Permissions::from_mode(0o755))?;
    Ok(())
}

impl Bare {
    /// Mounts an overlay of the layer and makes a cgroup of this name.
    pub fn new(layer: &Layer, directory: &Path, name: &str) -> Result<Self> {
        let place = directory.join(name);
        let [root, upper, work] = ["root", "upper", "work"].map(|part| place.join(part));
        for part in [&root, &upper, &work] {
            fs::create_dir_all(part)?;
        }
        let options =
            format!("lowerdir={},upperdir={},workdir={}", layer.path.display(), upper.display(), work.display());
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .context("mount the overlay")?;
        Ok(Self { root, actor: layer.actor.clone(), cgroup: (name.to_owned(), cgroup::make(name)?) })
    }

    /// Its cgroup's name.
    pub fn cgroup(&self) -> &str {
        &self.cgroup.0
    }

    /// The directory that is its root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether no process is left in it. One that made cgroups of its own below may be in these.
    fn is_empty(&self) -> Result<bool> {
        let mut empty = true;
        for directory in &self.cgroup.1 {
            let entries = fs::read_dir(directory)?.flatten();
            empty &= fs::read(directory.join("cgroup.procs"))?.is_empty()
                && !entries.into_iter().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        }
        Ok(empty)
    }

    /// Runs a program in new namespaces, in the cgroup and on the overlay, to its end.
    pub fn run(&self, command: &[String]) -> Result<Output> {
        self.run_on(None, command)
    }

    /// The same, with a controlling terminal: a virtual one that nobody else has.
    pub fn run_on_terminal(&self, command: &[String]) -> Result<Output> {
        self.run_on(Some(Path::new("/dev/tty1")), command)
    }

    fn run_on(&self, terminal: Option<&Path>, command: &[String]) -> Result<Output> {
        ensure!(!command.is_empty(), "nothing to run");
        let mut entry = Command::new(&self.actor);
        entry.arg("enter");
        if let Some(terminal) = terminal {
            entry.arg("--terminal").arg(terminal);
        }
        entry.arg(&self.root).args(["sh", "-c", FIRST]).args(command);
        // Moved in by somebody outside, as a runtime does it: who moves itself is inside at once, and is judged.
        let first = |child: &mut Child| {
            // Whoever starts it goes on before its own execution has been judged: that is not to be the container's.
            let (waits, until) = (format!("{} 0x0 ", libc::SYS_read), Instant::now() + LIMIT);
            while !fs::read_to_string(format!("/proc/{}/syscall", child.id()))?.starts_with(&waits) {
                ensure!(Instant::now() < until, "it does not wait for its start");
                thread::sleep(Duration::from_millis(1));
            }
            for directory in &self.cgroup.1 {
                fs::write(directory.join("cgroup.procs"), child.id().to_string()).context("move it into its cgroup")?;
            }
            Ok(child.stdin.take().context("no input")?.write_all(b"go")?)
        };
        // As the end of a container's first process ends all others.
        let last = || {
            if self.is_empty()? {
                return Ok(());
            }
            cgroup::kill_all(&self.cgroup.0).context("end what is left in its cgroup")
        };
        finish_between(&mut entry, first, last)
    }
}
