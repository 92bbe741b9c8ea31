//! Standard streams of a container's process: FIFOs, as containerd's shim wants them.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// The streams of one process.
#[derive(Debug)]
pub struct Streams {
    directory: PathBuf,
    /// Standard output (of a terminal: everything).
    pub stdout: Stream,
    /// Standard error output.
    pub stderr: Option<Stream>,
    stdin: Option<(PathBuf, File)>,
}

impl Streams {
    /// Makes them in a new directory.
    pub fn new(directory: PathBuf, terminal: bool, stdin: bool) -> Result<Self> {
        std::fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        let stdout = Stream::new(directory.join("stdout"))?;
        // A terminal has one stream for both.
        let stderr = if terminal { None } else { Some(Stream::new(directory.join("stderr"))?) };
        let stdin = if stdin { Some(input(directory.join("stdin"))?) } else { None };
        Ok(Self { directory, stdout, stderr, stdin })
    }

    /// Paths as containerd takes them: standard input, output, error output; empty: none.
    pub fn paths(&self) -> [String; 3] {
        let text = |path: &Path| path.display().to_string();
        let stdin = self.stdin.as_ref().map(|(path, _)| text(path)).unwrap_or_default();
        let stderr = self.stderr.as_ref().map(|stream| text(&stream.path)).unwrap_or_default();
        [stdin, text(&self.stdout.path), stderr]
    }

    /// Writes to the process's standard input.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let (_, file) = self.stdin.as_mut().context("it has no standard input; ask for it with `stdin()`")?;
        Ok(file.write_all(bytes)?)
    }

    /// Our end of standard input; containerd has to be told as well.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for all that the process wrote.
    pub fn finish(&self) -> Result<()> {
        self.stdout.finish()?;
        self.stderr.as_ref().map_or(Ok(()), Stream::finish)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stdout.release();
        if let Some(stderr) = &self.stderr {
            stderr.release();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn input(path: PathBuf) -> Result<(PathBuf, File)> {
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Open for both, or this would wait for the shim.
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    Ok((path, file))
}

/// What a process writes, collected.
#[derive(Debug)]
pub struct Stream {
    path: PathBuf,
    written: Arc<(Mutex<Written>, Condvar)>,
}

#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    ended: bool,
}

/// A guard against hanging.
const LIMIT: Duration = Duration::from_secs(20);

impl Stream {
    fn new(path: PathBuf) -> Result<Self> {
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let written = Arc::new((Mutex::default(), Condvar::new()));
        let (shared, from) = (written.clone(), path.clone());
        thread::spawn(move || collect(&from, &shared));
        Ok(Self { path, written })
    }

    /// So far.
    pub fn text(&self) -> String {
        let written = self.written.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written.bytes).into_owned()
    }

    /// Waits until it holds `text`.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        self.wait(|written| String::from_utf8_lossy(&written.bytes).contains(text))
            .with_context(|| format!("waiting for `{text}`"))
    }

    fn finish(&self) -> Result<()> {
        self.wait(|written| written.ended).context("waiting for the end of the output")
    }

    fn wait(&self, done: impl Fn(&Written) -> bool) -> Result<()> {
        let until = Instant::now() + LIMIT;
        let mut written = self.written.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !done(&written) {
            let left = until.saturating_duration_since(Instant::now());
            if written.ended || left.is_zero() {
                let why = if written.ended { "the output ended" } else { "nothing came within 20 s" };
                bail!("{why}; so far: {}", String::from_utf8_lossy(&written.bytes));
            }
            written = self.written.1.wait_timeout(written, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Frees the thread if nobody ever opened the other end.
    fn release(&self) {
        drop(OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&self.path));
    }
}

fn collect(path: &Path, shared: &(Mutex<Written>, Condvar)) {
    let mut part = [0; 16384];
    let mut file = File::open(path);
    while let Ok(Ok(size @ 1..)) = file.as_mut().map(|file| file.read(&mut part)) {
        shared.0.lock().unwrap_or_else(PoisonError::into_inner).bytes.extend_from_slice(&part[..size]);
        shared.1.notify_all();
    }
    shared.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
    shared.1.notify_all();
}
