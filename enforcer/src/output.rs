//! Where violations are written.

use crate::args;
use ringfence_control::{Violation, render};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A stream of violations.
pub struct Output {
    sink: Box<dyn Write + Send>,
    form: args::Output,
    paint: render::Paint,
    place: PathBuf,
    /// Lines that are to be written together.
    pending: Vec<u8>,
    failing: bool,
}

/// Bytes that are not kept any longer.
const PORTION: usize = 64 * 1024;

impl Output {
    /// Standard output, or a file that is appended to.
    pub fn open(form: args::Output, file: Option<&Path>) -> Result<Self, String> {
        let place = file.unwrap_or(Path::new("standard output")).to_owned();
        let (sink, paint): (Box<dyn Write + Send>, _) = match file {
            None => (Box::new(io::stdout()), render::Paint::auto(&io::stdout())),
            Some(path) => {
                let file: File = OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
                    format!(
                        "--log-file {}: {error}; name a file in a folder that exists and can be written",
                        path.display()
                    )
                })?;
                let paint = render::Paint::auto(&file);
                (Box::new(file), paint)
            }
        };
        Ok(Self { sink, form, paint, place, pending: Vec::new(), failing: false })
    }

    /// Takes one, to be written by [`Self::flush`] at the latest.
    pub fn write(&mut self, violation: &Violation) {
        let text = match self.form {
            args::Output::Json => serde_json::to_string(violation).unwrap_or_else(|error| {
                tracing::error!(%error, "a violation could not be put into JSON");
                String::new()
            }),
            args::Output::Text => render::violation(violation, self.paint),
        };
        self.pending.extend_from_slice(text.as_bytes());
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
        let written = self.sink.write_all(&self.pending).and_then(|()| self.sink.flush());
        self.pending.clear();
        match written {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("violations can be written to {} again", self.place.display());
            }
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(
                    "violations can't be written to {}: {error}; they are mitigated all the same and go to `ringfence \
                     events`, make room or name another --log-file",
                    self.place.display()
                );
            }
            _ => {}
        }
    }
}
