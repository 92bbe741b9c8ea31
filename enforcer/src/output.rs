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
    failing: bool,
}

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
        Ok(Self { sink, form, paint, place, failing: false })
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
        let written = self.sink.write_all(text.as_bytes()).and_then(|()| self.sink.flush());
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
