//! Where violations are written.

use crate::args;
use nix::sys::statvfs::fstatvfs;
use ringfence_control::{Violation, render};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// Bytes that are not kept any longer.
const PORTION: usize = 64 * 1024;

/// A stream of violations.
///
/// A disk may fill up while the enforcer runs. Nothing depends on what is written here: violations are mitigated, and
/// clients get them, all the same. What could not be written is counted, and said when it begins and when it ends.
pub struct Output {
    sink: File,
    /// Lines that are to be written together.
    pending: Vec<u8>,
    /// The file is ours to append to: what is left of a line that did not fit can be cut off.
    appends: bool,
    form: args::Output,
    paint: render::Paint,
    place: PathBuf,
    /// A part of a line stands at the end.
    torn: bool,
    /// Violations that could not be written since the last that could.
    missing: u64,
    /// Since the start.
    missing_ever: u64,
}

impl Output {
    /// Standard output, or a file that is appended to.
    pub fn open(form: args::Output, file: Option<&Path>) -> Result<Self, String> {
        let wrong = |error: io::Error| match file {
            Some(path) => format!(
                "--log-file {}: {error}; name a file in a folder that exists and can be written",
                path.display()
            ),
            None => format!("standard output: {error}"),
        };
        let (sink, paint) = match file {
            // Whatever it is, not by way of the standard library's buffer.
            None => {
                let sink: File = io::stdout().as_fd().try_clone_to_owned().map_err(wrong)?.into();
                (sink, render::Paint::auto(&io::stdout()))
            }
            Some(path) => {
                let sink = OpenOptions::new().create(true).append(true).open(path).map_err(wrong)?;
                let paint = render::Paint::auto(&sink);
                (sink, paint)
            }
        };
        let place = file.unwrap_or(Path::new("standard output")).to_owned();
        let appends = file.is_some() && sink.metadata().map_err(wrong)?.is_file();
        if appends && is_full(&sink) {
            return Err(format!(
                "--log-file {}: no space left on its file system; make room, or name a file elsewhere",
                place.display()
            ));
        }
        Ok(Self { sink, pending: Vec::new(), appends, form, paint, place, torn: false, missing: 0, missing_ever: 0 })
    }

    /// Takes one, to be written by [`Self::flush`] at the latest.
    pub fn write(&mut self, violation: &Violation) {
        match self.form {
            args::Output::Json => violation.write_json(&mut self.pending),
            args::Output::Text => self.pending.extend_from_slice(render::violation(violation, self.paint).as_bytes()),
        }
        self.pending.push(b'\n');
        if self.pending.len() >= PORTION {
            self.flush();
        }
    }

    /// Writes what was taken. What can't be written is lost here alone: it was mitigated, and goes to `ringfence events`.
    pub fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut lines = std::mem::take(&mut self.pending);
        match self.put(&lines) {
            Ok(()) if self.missing > 0 => {
                tracing::info!(
                    "violations can be written to {} again; {} are missing there",
                    self.place.display(),
                    self.missing
                );
                self.missing = 0;
            }
            Ok(()) => {}
            Err((written, error)) => {
                let whole = lines[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                if written > whole {
                    self.torn = !self.appends || self.take_back(written - whole).is_err();
                }
                self.lost(lines[whole..].split_inclusive(|byte| *byte == b'\n').count() as u64, &error);
            }
        }
        lines.clear();
        self.pending = lines;
    }

    fn lost(&mut self, lines: u64, error: &io::Error) {
        if self.missing == 0 {
            tracing::error!(
                "violations can't be written to {}: {error}; they are mitigated all the same and go to `ringfence \
                 events`, make room or name another --log-file",
                self.place.display()
            );
        }
        self.missing += lines;
        self.missing_ever += lines;
    }

    /// What the operator should know.
    pub fn warning(&self) -> Option<String> {
        let place = self.place.display();
        (self.missing_ever > 0).then(|| {
            let still = if self.missing > 0 { ", and still can't" } else { "" };
            format!("{} violations could not be written to {place}{still}", self.missing_ever)
        })
    }

    /// All of it; else how many bytes were written, and why not more.
    fn put(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.torn {
            self.sink.write_all(b"\n").map_err(|error| (0, error))?;
            self.torn = false;
        }
        let mut written = 0;
        while written < lines.len() {
            match self.sink.write(&lines[written..]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }

    fn take_back(&self, written: usize) -> io::Result<()> {
        let length = self.sink.metadata()?.len();
        self.sink.set_len(length.saturating_sub(written as u64))
    }
}

/// Whether there is not a single block left. A file system without blocks has no such limit.
fn is_full(file: &File) -> bool {
    fstatvfs(file).is_ok_and(|state| state.blocks() > 0 && state.blocks_free() == 0)
}
