//! What a child says on its error output.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What it has said so far. A thread reads it as it comes, so that the child never waits; whoever asks reads what has
/// come first, so that nothing is missing that the child had said before it did something else.
#[derive(Clone)]
pub struct Messages(Arc<Mutex<Heard>>);

struct Heard {
    pipe: ChildStderr,
    bytes: Vec<u8>,
    /// So many of them were lines that have been looked at.
    looked_at: usize,
    look_at: Box<dyn FnMut(&str) + Send>,
}

impl Messages {
    /// Reads the child's error output to its end, on a thread of its own. `look_at` gets each line.
    pub fn follow(child: &mut Child, look_at: impl FnMut(&str) + Send + 'static) -> Result<Self> {
        let pipe = child.stderr.take().context("no error output")?;
        let flags = OFlag::from_bits_retain(fcntl(&pipe, FcntlArg::F_GETFL)?);
        fcntl(&pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let readable = pipe.as_fd().try_clone_to_owned()?;
        let messages =
            Self(Arc::new(Mutex::new(Heard { pipe, bytes: Vec::new(), looked_at: 0, look_at: Box::new(look_at) })));
        let heard = messages.clone();
        thread::spawn(move || {
            let mut there = [PollFd::new(readable.as_fd(), PollFlags::POLLIN)];
            while matches!(poll(&mut there, PollTimeout::NONE), Ok(_) | Err(Errno::EINTR)) {
                if !heard.lock().read() {
                    break;
                }
            }
        });
        Ok(messages)
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it, until now.
    pub fn text(&self) -> String {
        let mut heard = self.lock();
        heard.read();
        String::from_utf8_lossy(&heard.bytes).into_owned()
    }
}

impl Heard {
    /// Reads what there is. Whether more may come.
    fn read(&mut self) -> bool {
        // What was read before an error is kept.
        let read = self.pipe.read_to_end(&mut self.bytes);
        while let Some(length) = self.bytes[self.looked_at..].iter().position(|byte| *byte == b'\n') {
            let end = self.looked_at + length;
            (self.look_at)(&String::from_utf8_lossy(&self.bytes[self.looked_at..end]));
            self.looked_at = end + 1;
        }
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn nothing_is_missing_that_was_said_before() {
        let mut child = Command::new("sh")
            .args(["-c", "for i in $(seq 200); do echo said $i >&2; echo done $i; read -r go; done"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let looked_at = Arc::new(Mutex::new(0));
        let counted = looked_at.clone();
        let messages = Messages::follow(&mut child, move |_| *counted.lock().unwrap() += 1).unwrap();
        let mut input = child.stdin.take().unwrap();
        for (index, line) in BufReader::new(child.stdout.take().unwrap()).lines().enumerate() {
            assert_eq!(line.unwrap(), format!("done {}", index + 1));
            assert!(messages.text().ends_with(&format!("said {}\n", index + 1)));
            assert_eq!(*looked_at.lock().unwrap(), index + 1);
            std::io::Write::write_all(&mut input, b"go\n").unwrap();
        }
        assert!(child.wait().unwrap().success());
    }
}
