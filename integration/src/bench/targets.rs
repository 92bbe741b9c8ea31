//! What was to be reached, beside what was.

use std::fmt::Write as _;

/// Rows of a table.
#[derive(Default)]
pub struct Targets(String);

impl Targets {
    /// One number that is to be at most `limit`.
    pub fn at_most(&mut self, what: &str, limit: f64, measured: f64, unit: &str) {
        let verdict = if measured <= limit { "met" } else { "**missed**" };
        writeln!(self.0, "| {what} | <= {limit} {unit} | {measured:.1} {unit} | {verdict} |")
            .expect("a string takes all");
    }

    /// The table.
    pub fn table(&self) -> String {
        format!("\n## Against the targets\n\n| what | target | measured | |\n|---|---|---|---|\n{}", self.0)
    }
}
