//! A thread with a file system of its own, on which things are done at the start to see what the kernel makes of them.

use super::programs::SecurityHook;
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::Mode,
    unistd::{execv, getppid, gettid},
};
use std::{
    ffi::CString,
    fs, io,
    net::UdpSocket,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

/// Where the file system is mounted: a folder that is there in the emptiest of containers. The thread alone sees it.
pub const PLACE: &str = "/dev";

/// Gives the thread a mount namespace of its own, gone with it, and a new file system of this kind.
pub fn enter(kind: &str) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("trial"), PLACE, Some(kind), MsFlags::empty(), None::<&str>)
}

/// The thread, which does what security hooks are there for. It ends with this.
pub struct Stage {
    thread: u32,
    hooks: Sender<&'static str>,
    done: Receiver<io::Result<()>>,
}

impl Stage {
    /// Starts the thread.
    pub fn set() -> io::Result<Self> {
        let (hooks, asked) = channel::<&'static str>();
        let (answer, done) = channel();
        let (entered, thread) = channel();
        thread::Builder::new().name("stage".to_owned()).spawn(move || {
            let _ = entered.send(enter("tmpfs").map(|()| gettid()));
            for (number, hook) in asked.into_iter().enumerate() {
                // A folder for each: what one leaves is not in the next one's way.
                let folder = Path::new(PLACE).join(number.to_string());
                if answer.send(provoke(hook, &folder)).is_err() {
                    break;
                }
            }
        })?;
        let thread = thread.recv().map_err(io::Error::other)??;
        Ok(Self { thread: u32::try_from(thread.as_raw()).map_err(io::Error::other)?, hooks, done })
    }

    /// Its id.
    pub fn thread(&self) -> u32 {
        self.thread
    }

    /// Does what the hook is called for.
    pub fn provoke(&self, hook: &SecurityHook) -> io::Result<()> {
        self.hooks.send(hook.name).map_err(io::Error::other)?;
        self.done.recv().map_err(io::Error::other)?
    }
}

/// Nothing of it leaves the thread's own file system, or a socket.
fn provoke(hook: &str, folder: &Path) -> io::Result<()> {
    let (file, other) = (folder.join("file"), folder.join("other"));
    fs::create_dir(folder)?;
    fs::write(&file, "")?;
    match hook {
        // Not by File::open: musl's does not call openat(2), whose function may be meant.
        "file_open" => Ok(openat(AT_FDCWD, &file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map(drop)?),
        // Its stack is mapped.
        "mmap_file" => thread::Builder::new().spawn(|| ())?.join().map_err(|_| io::Error::other("it panicked")),
        "socket_connect" => UdpSocket::bind("127.0.0.1:0")?.connect("127.0.0.1:9"),
        "unix_stream_connect" => {
            let _listener = UnixListener::bind(&other)?;
            UnixStream::connect(other).map(drop)
        }
        "path_unlink" => fs::remove_file(file),
        "path_rename" => fs::rename(file, other),
        "path_link" => fs::hard_link(file, other),
        "path_symlink" => symlink(file, other),
        "path_mkdir" => fs::create_dir(other),
        "path_chmod" => fs::set_permissions(file, fs::Permissions::from_mode(0o600)),
        // Of a process other than this one.
        "ptrace_access_check" => fs::read_link(format!("/proc/{}/exe", getppid())).map(drop),
        "sb_mount" => Ok(mount(Some(folder), folder, None::<&str>, MsFlags::MS_BIND, None::<&str>)?),
        "bprm_check_security" => execute_nothing(&file),
        "socket_post_create" => UdpSocket::bind("127.0.0.1:0").map(drop),
        hook => Err(io::Error::new(io::ErrorKind::Unsupported, format!("there is no occasion for {hook} here"))),
    }
}

/// An empty file is a program of no known format, which the kernel only finds out once it has asked whether it may start.
fn execute_nothing(file: &Path) -> io::Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o700))?;
    let program = CString::new(file.as_os_str().as_bytes())?;
    match execv(&program, &[&program]) {
        Err(Errno::ENOEXEC) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::programs::{OPENAT, security_hooks};
    use super::*;

    /// Needs root, for the file system.
    #[test]
    fn every_hook_can_be_provoked() {
        let stage = match Stage::set() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return println!("skipped: {error}"),
            stage => stage.unwrap(),
        };
        for hook in security_hooks().chain([OPENAT]) {
            stage.provoke(hook).unwrap_or_else(|error| panic!("{}: {error}", hook.name));
        }
    }
}
