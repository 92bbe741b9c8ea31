//! Containers without a runtime, for a VM: a cgroup, an overlay, namespaces by unshare.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};

use crate::enforcer::finish;
use crate::image::{Entry, entries};

/// The cgroup v2 hierarchy.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What the shell does inside of the new namespaces before the program: `$0` is the root, `$@` the program.
const INSIDE: &str = r#"mount -t proc proc "$0/proc" && mount -t tmpfs -o mode=1777 shm "$0/dev/shm" &&
mount -o bind /dev/null "$0/dev/null" && exec chroot "$0" "$@""#;

/// A root file system below an overlay, and a cgroup.
pub struct Bare {
    root: PathBuf,
    cgroup: PathBuf,
}

/// The lower layer, made once.
pub struct Layer(PathBuf);

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
        Ok(Self(path))
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
        let options = format!("lowerdir={},upperdir={},workdir={}", layer.0.display(), upper.display(), work.display());
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .context("mount the overlay")?;
        let cgroup = Path::new(CGROUPS).join(name);
        fs::create_dir(&cgroup).with_context(|| format!("create {}", cgroup.display()))?;
        Ok(Self { root, cgroup })
    }

    /// Runs a program in new namespaces, in the cgroup and on the overlay, to its end.
    pub fn run(&self, command: &[String]) -> Result<Output> {
        ensure!(!command.is_empty(), "nothing to run");
        let mut shell = Command::new("sh");
        let enter = format!(
            "echo $$ >{}/cgroup.procs && exec unshare -m -p -f -n -i -u sh -c \"$0\" \"$@\"",
            self.cgroup.display()
        );
        shell.arg("-c").arg(enter).arg(INSIDE).arg(&self.root).args(command).stdin(Stdio::null());
        finish(&mut shell)
    }
}
