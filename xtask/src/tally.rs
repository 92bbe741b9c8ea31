//! Counting results.

use std::{fmt, ops::AddAssign};

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Tally {
    /// One failure: of something that could not even count.
    pub const FAILURE: Self = Self { passed: 0, failed: 1, skipped: 0 };

    /// Whether nothing ran at all.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// What cargo's test runner says at the end of each test program. Ignored tests are skipped ones.
    pub fn of_cargo_line(line: &str) -> Option<Self> {
        // test result: ok. 26 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.40s
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut tally = Self::default();
        for part in counts.split("; ") {
            match part.split_once(' ') {
                Some((number, "passed")) => tally.passed = number.parse().ok()?,
                Some((number, "failed")) => tally.failed = number.parse().ok()?,
                Some((number, "ignored")) => tally.skipped = number.parse().ok()?,
                _ => {}
            }
        }
        Some(tally)
    }

    /// One test of a suite of ours: `ok NAME`, `FAILED NAME: REASON` or `skipped NAME: REASON`.
    pub fn of_suite_line(line: &str) -> Option<Self> {
        let (verdict, name) = line.split_once(' ')?;
        if name.is_empty() {
            return None;
        }
        match verdict {
            "ok" => Some(Self { passed: 1, ..Self::default() }),
            "FAILED" => Some(Self::FAILURE),
            "skipped" => Some(Self { skipped: 1, ..Self::default() }),
            _ => None,
        }
    }

    /// The last line of a suite, in the form that [`fmt::Display`] writes.
    pub fn of_sum_line(line: &str) -> Option<Self> {
        let mut parts = line.split(", ");
        let mut number = |word: &str| parts.next()?.strip_suffix(word)?.trim_end().parse().ok();
        let (passed, failed) = (number("passed")?, number("failed")?);
        let skipped = number("skipped").unwrap_or(0);
        let tally = Self { passed, failed, skipped };
        (tally.to_string() == line || format!("{tally}, 0 skipped") == line).then_some(tally)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(f, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Reads a suite's output line by line and holds its own sum against what it printed.
#[derive(Debug, Default)]
pub struct Suite {
    counted: Tally,
    announced: Option<Tally>,
}

impl Suite {
    /// Takes the next line.
    pub fn line(&mut self, line: &str) {
        if let Some(tally) = Tally::of_suite_line(line) {
            self.counted += tally;
        } else if let Some(tally) = Tally::of_sum_line(line) {
            self.announced = Some(tally);
        }
    }

    /// The result, with a reason where it cannot be trusted; `exit` is how the suite ended, 0 for success.
    ///
    /// A suite that dies half-way, forgets its sum or exits with a failure it did not print is a failure.
    pub fn finish(self, exit: Option<i32>) -> (Tally, Option<String>) {
        let complaint = match (self.announced, exit) {
            (None, exit) => format!("it ended without a sum{}", describe(exit)),
            (Some(sum), _) if sum != self.counted => format!("it printed {} but said {sum}", self.counted),
            (Some(sum), exit) if sum.failed == 0 && exit != Some(0) => format!("no test failed, yet{}", describe(exit)),
            _ => return (self.counted, None),
        };
        let mut tally = self.counted;
        tally += Tally::FAILURE;
        (tally, Some(complaint))
    }
}

fn describe(exit: Option<i32>) -> String {
    exit.map_or_else(|| " it was killed".to_owned(), |code| format!(" it ended with exit code {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u32, failed: u32, skipped: u32) -> Tally {
        Tally { passed, failed, skipped }
    }

    #[test]
    fn cargo_results_are_read() {
        let line = "test result: FAILED. 19 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.40s";
        assert_eq!(Tally::of_cargo_line(line), Some(tally(19, 2, 1)));
        assert_eq!(Tally::of_cargo_line("test decode::tests::circles_end ... ok"), None);
    }

    #[test]
    fn suite_results_are_read() {
        assert_eq!(Tally::of_suite_line("ok RF-901 isolate"), Some(tally(1, 0, 0)));
        assert_eq!(Tally::of_suite_line("FAILED RF-901: no event"), Some(tally(0, 1, 0)));
        assert_eq!(Tally::of_suite_line("skipped lsm: refused"), Some(tally(0, 0, 1)));
        for other in ["ok", "ok ", "okay then", "  ok RF-901", ""] {
            assert_eq!(Tally::of_suite_line(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_sum_reads_back_what_is_written() {
        for sum in [tally(3, 0, 0), tally(0, 12, 5), tally(0, 0, 0)] {
            assert_eq!(Tally::of_sum_line(&sum.to_string()), Some(sum));
        }
        assert_eq!(Tally::of_sum_line("3 passed, 0 failed, 0 skipped"), Some(tally(3, 0, 0)));
        for other in ["3 passed", "passed, failed", "x passed, 0 failed", "3 passed, 0 failed, so it goes"] {
            assert_eq!(Tally::of_sum_line(other), None, "{other:?}");
        }
    }

    fn read(lines: &[&str], exit: Option<i32>) -> (Tally, Option<String>) {
        let mut suite = Suite::default();
        for line in lines {
            suite.line(line);
        }
        suite.finish(exit)
    }

    #[test]
    fn a_sound_suite_is_believed() {
        assert_eq!(read(&["ok a", "skipped b: c", "1 passed, 0 failed, 1 skipped"], Some(0)), (tally(1, 0, 1), None));
        assert_eq!(read(&["ok a", "FAILED b: c", "1 passed, 1 failed"], Some(1)), (tally(1, 1, 0), None));
    }

    #[test]
    fn a_suite_that_breaks_off_fails() {
        for (lines, exit) in [
            (&["ok a"][..], Some(0)),                       // no sum
            (&["ok a"], None),                              // killed
            (&["ok a", "2 passed, 0 failed"], Some(0)),     // sum disagrees
            (&["ok a", "1 passed, 0 failed"], Some(1)),     // exit code disagrees
            (&["FAILED a: b", "1 passed, 0 failed"], None), // sum hides a failure
        ] {
            let (tally, complaint) = read(lines, exit);
            assert!(tally.failed > 0 && complaint.is_some(), "{lines:?} {exit:?}");
        }
    }
}
