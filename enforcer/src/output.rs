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

/// A stream of violations.
///
/// A disk may fill up while the enforcer runs. Nothing depends on what is written here: violations are mitigated, and
/// clients get them, all the same. What could not be written is counted, and said when it begins and when it ends.
pub struct Output {
    /// Without a buffer: a line is written at once or not at all.
    sink: File,
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
        Ok(Self { sink, appends, form, paint, place, torn: false, missing: 0, missing_ever: 0 })
    }

    /// Writes one. What can't be written is lost here alone: it was mitigated, and goes to `ringfence events`.
    pub fn write(&mut self, violation: &Violation) {
        let mut text = match self.form {
            args::Output::Json => serde_json::to_string(violation).unwrap_or_else(|error| {
                tracing::error!(%error, "a violation could not be put into JSON");
                String::new()
            }),
            args::Output::Text => render::violation(violation, self.paint),
        };
        text.push('\n');
        match self.line(text.as_bytes()) {
            Ok(()) if self.missing > 0 => {
                tracing::info!(
                    "violations can be written to {} again; {} are missing there",
                    self.place.display(),
                    self.missing
                );
                self.missing = 0;
            }
            Ok(()) => {}
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&mut self, error: &io::Error) {
        if self.missing == 0 {
            tracing::error!(
                "violations can't be written to {}: {error}; they are mitigated all the same and go to `ringfence \
                 events`, make room or name another --log-file",
                self.place.display()
            );
        }
        self.missing += 1;
        self.missing_ever += 1;
    }

    /// What the operator should know.
    pub fn warning(&self) -> Option<String> {
        let place = self.place.display();
        (self.missing_ever > 0).then(|| {
            let still = if self.missing > 0 { ", and still can't" } else { "" };
            format!("{} violations could not be written to {place}{still}", self.missing_ever)
        })
    }

    /// The whole line, or as far as that can be helped nothing of it.
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.sink.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(0) => return self.tear(line.len() - rest.len(), io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.tear(line.len() - rest.len(), error),
            }
        }
        Ok(())
    }

    /// The first `written` bytes of a line that did not fit are taken back, or else ended before the next line.
    fn tear(&mut self, written: usize, error: io::Error) -> io::Result<()> {
        if written > 0 {
            self.torn = !self.appends || self.take_back(written).is_err();
        }
        Err(error)
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
