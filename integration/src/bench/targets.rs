//! What was to be reached, beside what was.

use std::fmt::Write as _;

use serde::Serialize;

/// Rows of a table.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub struct Targets(Vec<Row>);

/// What was to be reached, and what was.
#[derive(Serialize)]
struct Row {
    what: String,
    target: String,
    measured: String,
    met: bool,
}

impl Targets {
    /// One number that is to be at most `limit`.
    pub fn at_most(&mut self, what: &str, limit: f64, measured: f64, unit: &str) {
        self.row(what, format!("<= {limit} {unit}"), format!("{measured:.1} {unit}"), measured <= limit);
    }

    /// One number that is to be at least `limit`.
    pub fn at_least(&mut self, what: &str, limit: f64, measured: f64, unit: &str) {
        self.row(what, format!(">= {limit} {unit}"), format!("{measured:.0} {unit}"), measured >= limit);
    }

    /// What could not be measured, and why. That is no success.
    pub fn not_measured(&mut self, what: &str, why: &str) {
        self.row(what, String::new(), why.to_owned(), false);
    }

    fn row(&mut self, what: &str, target: String, measured: String, met: bool) {
        self.0.push(Row { what: what.to_owned(), target, measured, met });
    }

    /// The table, and what is known of why rows are missed.
    pub fn table(&self) -> String {
        let mut table = "\n## Against the targets\n\n| what | target | measured | |\n|---|---|---|---|\n".to_owned();
        for Row { what, target, measured, met } in &self.0 {
            let verdict = if *met { "met" } else { "**missed**" };
            writeln!(table, "| {what} | {target} | {measured} | {verdict} |").expect("a string takes all");
        }
        let missed = |key: &str| self.0.iter().any(|row| row.what.contains(key) && !row.met);
        for (key, why) in REASONS.iter().filter(|(key, _)| missed(key)) {
            write!(table, "\nMissed, {key}: {why}\n").expect("a string takes all");
        }
        table
    }
}

/// What makes rows whose name holds the first text miss their target, where they do.
const REASONS: [(&str, &str); 7] = [
    (
        "not governed, over empty programs",
        "whose cgroup it is has to be found out: the cgroup's id by four loads, and a look-up in a hash map, for each of \
         the two hierarchies of a hybrid node. The profile has what that is of an open, and of a connect.",
    ),
    (
        "small file, governed, all rules",
        "what `exit_open` takes (see run times): the walk up the path, whose hash is the key of what is known of the file, \
         and the look-up by it.",
    ),
    (
        "violations a second, none lost",
        "one thread makes a line of each, in some 6 us on a fast machine: see the profile. (ADR 0021 says what another \
         allocator than musl's would take.) The ring buffer holds some 50 ms of such a flood; whatever stops the thread for \
         longer costs records.",
    ),
    ("resident memory", "the ring buffers' 7 MiB and the last violations, kept for those who ask later, are in it."),
    (
        "all rules against 1 rule",
        "one rule is out sooner. The flags of a file are enough to know that it is not new, and so end RF-901; all rules \
         have to know its path and name (and for a program its arguments) as well: the profile of `sched_process_exec` \
         has the parts. More rules than that add nothing: see ten times.",
    ),
    (
        "web server requests",
        "a request takes the server little more than a new connection. For each there are an open and some twenty hooks \
         and packets at both ends, of which the client's, not governed, count as well. The profile has what all programs \
         take together; the kernel's price of empty programs comes on top.",
    ),
    (
        "start to first enforced violation",
        "most of its work is the kernel's verifier, which walks forty programs, each with the functions that it shares with \
         the others: see the profile. They are loaded by as many CPUs as there are, up to four.",
    ),
];
