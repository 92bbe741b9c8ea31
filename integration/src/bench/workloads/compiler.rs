//! A compiler run: rustc, its threads and the linker that it starts.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Found, Workers, Workload};

/// Functions of the file that is compiled: about a second's work.
const FUNCTIONS: usize = 300;

struct Compiler {
    source: PathBuf,
    program: PathBuf,
}

/// Writes what is compiled.
pub(super) fn find(directory: &Path) -> Result<Found> {
    if !super::web::is_installed("rustc") {
        return Ok(Found::Missing("compiler run", "rustc"));
    }
    let mut text = String::new();
    for number in 0..FUNCTIONS {
        writeln!(
            text,
            "fn f{number}(x: u64) -> String {{ format!(\"{{:?}}\", (0..x).map(|y| y ^ {number}).collect::<Vec<_>>()) }}"
        )?;
    }
    text += "fn main() {\n    let mut sum = 0;\n";
    for number in 0..FUNCTIONS {
        writeln!(text, "    sum += f{number}({number}).len();")?;
    }
    text += "    println!(\"{sum}\");\n}\n";
    let source = directory.join("compiled.rs");
    fs::write(&source, text)?;
    Ok(Found::Here(Box::new(Compiler { source, program: directory.join("compiled") })))
}

impl Workload for Compiler {
    fn title(&self) -> String {
        "compiler run (rustc and linker)".to_owned()
    }

    fn sample(&self, workers: &mut Workers) -> Result<f64> {
        let (source, program) = (self.source.to_string_lossy(), self.program.to_string_lossy());
        workers.inside.command(&["rustc", "--edition=2021", &source, "-o", &program])
    }
}
