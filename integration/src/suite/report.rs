//! One line per test.

use std::collections::HashSet;
use std::process::ExitCode;

use anyhow::Result;

/// Which of the tests that are known there are in a place, and what they are called there.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Stands before each name.
    pub prefix: String,
    /// These alone; empty: all.
    pub only: &'static [&'static str],
    /// Those that cannot be run there, and why.
    pub impossible: Vec<(&'static str, &'static str)>,
}

impl Scope {
    /// The whole name of a test, if it is in the place.
    pub fn name(&self, name: &str) -> Option<String> {
        (self.only.is_empty() || self.only.contains(&name)).then(|| format!("{}{name}", self.prefix))
    }
}

/// What has become of the tests so far.
pub struct Report {
    part: String,
    filter: String,
    scope: Scope,
    seen: HashSet<String>,
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Report {
    /// Of the tests whose names hold `filter`.
    pub fn new(filter: &str) -> Self {
        Self::of("", filter)
    }

    /// The same of those whose names begin with `part` and a slash; of all, if it is empty.
    pub fn of(part: &str, filter: &str) -> Self {
        Self {
            part: if part.is_empty() { String::new() } else { format!("{part}/") },
            filter: filter.into(),
            scope: Scope::default(),
            seen: HashSet::new(),
            passed: 0,
            failed: 0,
            skipped: 0,
        }
    }

    /// From now on, tests are those of another place.
    pub fn enter(&mut self, scope: Scope) {
        self.scope = scope;
    }

    /// Whether the test is to be run.
    pub fn wants(&self, name: &str) -> bool {
        self.scope.name(name).is_some_and(|name| name.starts_with(&self.part) && name.contains(&self.filter))
    }

    /// Whether the test cannot be run in the place; [`Self::check`] tells why.
    pub fn cannot(&self, name: &str) -> bool {
        self.scope.impossible.iter().any(|(impossible, _)| *impossible == name)
    }

    /// Whether the test has been told of.
    pub fn has(&self, name: &str) -> bool {
        self.seen.contains(&self.whole(name))
    }

    fn whole(&self, name: &str) -> String {
        format!("{}{name}", self.scope.prefix)
    }

    /// Runs the test, if it is wanted.
    pub fn check(&mut self, name: &str, test: impl FnOnce() -> Result<()>) {
        if self.wants(name) {
            if let Some((_, reason)) = self.scope.impossible.iter().find(|(impossible, _)| *impossible == name) {
                self.skip(name, reason);
            } else {
                let result = test();
                self.tell(name, result);
            }
        }
    }

    /// Tells what became of a test.
    pub fn tell(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                let name = self.whole(name);
                println!("ok {name}");
                self.seen.insert(name);
                self.passed += 1;
            }
            Err(error) => self.fail(name, &format!("{error:#}")),
        }
    }

    /// Tells that a test failed.
    pub fn fail(&mut self, name: &str, reason: &str) {
        let name = self.whole(name);
        // One line, whatever a program said.
        println!("FAILED {name}: {}", reason.trim().replace('\n', " | "));
        self.seen.insert(name);
        self.failed += 1;
    }

    /// Tells why a test cannot be run here, if it is wanted.
    pub fn skip(&mut self, name: &str, reason: &str) {
        if !self.wants(name) {
            return;
        }
        let name = self.whole(name);
        println!("skipped {name}: {reason}");
        self.seen.insert(name);
        self.skipped += 1;
    }

    /// The last line, and the exit code that belongs to it.
    pub fn finish(&self) -> ExitCode {
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        ExitCode::from(u8::from(self.failed > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_names_of_its_own() {
        let mut report = Report::new("old/a");
        report.enter(Scope { prefix: "old/".into(), only: &["a", "ab"], impossible: vec![("ab", "it is too old")] });
        assert!(report.wants("a") && !report.wants("b") && !report.wants("ac"));
        let mut ran = Vec::new();
        for name in ["a", "ab", "ac"] {
            report.check(name, || {
                ran.push(name);
                Ok(())
            });
        }
        assert_eq!(ran, ["a"]);
        assert_eq!((report.passed, report.failed, report.skipped), (1, 0, 1));
        assert!(report.has("ab"));
        report.enter(Scope::default());
        assert!(!report.has("ab") && report.has("old/ab"));
    }
}
