//! Network namespaces that live as long as somebody holds them: no name, no mount, nothing to clean up.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, held open.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// A new one. IPv6 addresses in it are usable at once: nobody else could have them.
    pub fn new() -> Result<Self> {
        let file = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare a network namespace")?;
            // /proc/sys/net is that of the reader.
            for name in ["default", "all"] {
                let path = format!("/proc/sys/net/ipv6/conf/{name}/accept_dad");
                std::fs::write(&path, "0").context(path)?;
            }
            let path = "/proc/thread-self/ns/net";
            File::open(path).context(path)
        });
        let file = file.join().map_err(|_| anyhow!("the thread panicked"))??;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into();
        Ok(Self { file, path })
    }

    /// A path by which other programs can open it, as long as this one holds it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` on a thread inside. Sockets and processes made there stay there.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace of its own");
            f()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}
