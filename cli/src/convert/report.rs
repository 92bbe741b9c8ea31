//! What became of everything in a file, and what is wrong with it.

use std::fmt::Display;

use ringfence_control::printable;
use ringfence_policy::{Diagnostic, yaml::Place};

use crate::failure::Failure;

/// Remarks and problems about one file.
#[derive(Debug)]
pub struct Report {
    file: String,
    remarks: Vec<Diagnostic>,
    problems: Vec<Diagnostic>,
}

impl Report {
    /// Of a file, as messages name it.
    pub fn new(file: &str) -> Self {
        Self { file: file.to_owned(), remarks: Vec::new(), problems: Vec::new() }
    }

    /// What became of something.
    pub fn remark(&mut self, place: Place, field: &str, message: impl Display) {
        self.remarks.push(self.diagnostic(place, field, &message));
    }

    /// What is wrong with something.
    pub fn problem(&mut self, place: Place, field: &str, message: impl Display) {
        self.problems.push(self.diagnostic(place, field, &message));
    }

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn diagnostic(&self, Place { line, column }: Place, field: &str, message: &dyn Display) -> Diagnostic {
        let message = if field.is_empty() { message.to_string() } else { format!("{field}: {message}") };
        Diagnostic { file: self.file.clone(), line, column, field: field.to_owned(), message }
    }

    /// Tells everything, by place. A failure if something is wrong: what is converted by halves helps nobody.
    pub fn tell(self) -> Result<(), Failure> {
        let sound = self.is_sound();
        let mut told = if sound { self.remarks } else { self.problems };
        told.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        for diagnostic in told {
            eprintln!("{}", printable(&diagnostic.to_string()));
        }
        if sound { Ok(()) } else { Err(Failure::Reported) }
    }
}
