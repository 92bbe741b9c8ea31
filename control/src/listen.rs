//! The enforcer's socket: made once, for root alone.

use std::{
    fs::{DirBuilder, File, Permissions, TryLockError},
    io::{self, ErrorKind},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
};

use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};

/// `sun_path` of unix(7), without the zero at its end.
const MAX_PATH: usize = 107;

/// A listening socket of mode 0600; removed from the file system when dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Who owns the socket: the user the enforcer runs as.
    owner: u32,
    inode: u64,
}

/// Why no socket could be made.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody answers there.
    #[error("another enforcer already listens on {0}; only one may run on a node (--socket to choose another path)")]
    InUse(PathBuf),
    /// There is something else, which is not ours to remove.
    #[error("{0} exists and is not a socket; remove it, or choose another path with --socket")]
    NotASocket(PathBuf),
    /// The kernel's limit.
    #[error("cannot listen on {0}: a socket's path has at most {MAX_PATH} bytes; choose a shorter one with --socket")]
    TooLong(PathBuf),
    /// The socket's folder can't be made.
    #[error("cannot listen on {path}: its folder can't be made: {source}; choose another path with --socket")]
    Folder {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Whatever else went wrong.
    #[error("cannot listen on {path}: {source}; choose another path with --socket")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Listener {
    /// Listens on a path. Makes its folder (mode 0755) if need be, and replaces a socket on which nobody listens.
    /// Must be called within a Tokio runtime.
    pub fn bind(path: impl Into<PathBuf>) -> Result<Self, ListenError> {
        let path = path.into();
        if path.as_os_str().len() > MAX_PATH {
            return Err(ListenError::TooLong(path));
        }
        let fail = |source| ListenError::Io { path: path.clone(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(|source| ListenError::Folder { path: path.clone(), source })?;
        // Two enforcers that start at once must not both find the stale socket: the folder is locked meanwhile.
        let folder = File::open(folder).map_err(fail)?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ListenError::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        remove_stale(&path)?;
        let socket = UnixListener::bind(&path).map_err(fail)?;
        // Between these two calls others may connect; `serve` asks the kernel who each peer is.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(fail)?;
        let metadata = std::fs::symlink_metadata(&path).map_err(fail)?;
        Ok(Self { socket, owner: metadata.uid(), inode: metadata.ino(), path })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection, and whether its peer may be answered: root, or whom the enforcer runs as.
    pub(crate) async fn accept(&self) -> io::Result<(UnixStream, bool)> {
        let (stream, _) = self.socket.accept().await?;
        let uid = stream.peer_cred()?.uid();
        Ok((stream, uid == 0 || uid == self.owner))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another enforcer may have put its own socket there.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let fail = |source| ListenError::Io { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(fail),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fail(error)),
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
    }
}
