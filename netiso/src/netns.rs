//! Network namespaces: naming one, comparing two, asking inside one.

use crate::Error;
use nix::sched::{CloneFlags, setns};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    future::Future,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

/// A network namespace, by a file that leads to it and its identity. Holds no descriptor: an open one would keep the
/// namespace, and so the pod's interfaces, alive after the pod's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Netns {
    /// The namespace of a process.
    pub fn of_pid(pid: u32) -> Result<Self, Error> {
        Self::at(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The namespace that a file stands for, such as `/proc/PID/ns/net` or `/run/netns/NAME`.
    pub fn at(path: &Path) -> Result<Self, Error> {
        let (_, device, inode) = open(path)?;
        Ok(Self { path: path.to_owned(), device, inode })
    }

    /// The calling thread's own.
    pub fn current() -> Result<Self, Error> {
        Self::at(Path::new("/proc/thread-self/ns/net"))
    }

    /// Whether both are the same namespace, by whatever files they are reached.
    pub fn is(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// The files, without those that lead to the same namespace as one before.
    pub fn distinct(files: impl IntoIterator<Item = PathBuf>) -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let mut distinct = Vec::new();
        for path in files {
            // A process that has ended is nowhere. It costs less to ask for the identity than to open.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let (device, inode) = (metadata.dev(), metadata.ino());
            if seen.insert((device, inode)) {
                distinct.push(Self { path, device, inode });
            }
        }
        distinct
    }

    /// Opens it, if it is still the same.
    pub(crate) fn open(&self) -> Result<File, Error> {
        match open(&self.path) {
            Ok((file, device, inode)) if (device, inode) == (self.device, self.inode) => Ok(file),
            Ok(_) => Err(Error::NetnsGone(self.path.clone())),
            Err(Error::Netns { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(Error::NetnsGone(self.path.clone()))
            }
            Err(error) => Err(error),
        }
    }

    /// Runs `task` inside, on a thread of its own with a runtime of its own: a runtime's worker must never change
    /// its namespace, and a netlink socket belongs for good to the one it was made in. `file` is this one, open.
    pub(crate) async fn run<T, F, Fut>(&self, file: File, task: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Error>>,
    {
        let path = self.path.clone();
        let (reply, answer) = tokio::sync::oneshot::channel();
        let failed = |path: &Path, source| Error::Netns { path: path.to_owned(), source };
        let name = "netns".to_owned();
        let in_thread = path.clone();
        thread::Builder::new()
            .name(name)
            .spawn(move || {
                let result = setns(&file, CloneFlags::CLONE_NEWNET)
                    .map_err(io::Error::from)
                    .and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build())
                    .map_err(|source| failed(&in_thread, source))
                    .and_then(|runtime| runtime.block_on(task()));
                drop(file);
                // Nobody waits any more: the caller was dropped.
                let _ = reply.send(result);
            })
            .map_err(|source| failed(&path, source))?;
        answer.await.unwrap_or_else(|_| Err(failed(&path, io::Error::other("its thread panicked"))))
    }
}

fn open(path: &Path) -> Result<(File, u64, u64), Error> {
    let failed = |source| Error::Netns { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    Ok((file, metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_itself_by_any_path() {
        let current = Netns::current().unwrap();
        assert!(current.is(&Netns::of_pid(std::process::id()).unwrap()));
        assert_ne!(current, Netns::of_pid(std::process::id()).unwrap(), "reached by another file");
    }

    #[test]
    fn processes_of_one_namespace_count_once_and_ended_ones_not_at_all() {
        let files = ["/proc/self/ns/net", "/proc/8388608/ns/net", "/proc/thread-self/ns/net"].map(PathBuf::from);
        let found = Netns::distinct(files);
        assert_eq!(found.len(), 1);
        assert!(found[0].is(&Netns::current().unwrap()));
    }

    #[test]
    fn a_missing_process_is_named() {
        // Above the largest pid that a kernel gives away (2^22).
        let error = Netns::of_pid(1 << 23).unwrap_err().to_string();
        assert!(error.starts_with("network namespace /proc/8388608/ns/net: "), "{error}");
    }

    #[test]
    fn another_namespace_at_the_same_path_is_refused() {
        let mut stale = Netns::current().unwrap();
        stale.inode += 1;
        assert!(matches!(stale.open(), Err(Error::NetnsGone(_))));
    }
}
