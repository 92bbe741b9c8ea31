//! What was to be reached, beside what was.

use std::fmt::Write as _;

/// Rows of a table.
#[derive(Default)]
pub struct Targets(String);

impl Targets {
    /// One number that is to be at most `limit`.
    pub fn at_most(&mut self, what: &str, limit: f64, measured: f64, unit: &str) {
        self.row(what, &format!("<= {limit} {unit}"), &format!("{measured:.1} {unit}"), measured <= limit);
    }

    /// One number that is to be at least `limit`.
    pub fn at_least(&mut self, what: &str, limit: f64, measured: f64, unit: &str) {
        self.row(what, &format!(">= {limit} {unit}"), &format!("{measured:.0} {unit}"), measured >= limit);
    }

    /// What could not be measured, and why. That is no success.
    pub fn not_measured(&mut self, what: &str, why: &str) {
        self.row(what, "", why, false);
    }

    fn row(&mut self, what: &str, target: &str, measured: &str, met: bool) {
        let verdict = if met { "met" } else { "**missed**" };
        writeln!(self.0, "| {what} | {target} | {measured} | {verdict} |").expect("a string takes all");
    }

    /// The table.
    pub fn table(&self) -> String {
        format!("\n## Against the targets\n\n| what | target | measured | |\n|---|---|---|---|\n{}", self.0)
    }
}
