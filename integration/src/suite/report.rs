//! One line per test.

use std::collections::HashSet;
use std::process::ExitCode;

use anyhow::Result;

/// What has become of the tests so far.
pub struct Report {
    filter: String,
    seen: HashSet<String>,
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Report {
    /// Of the tests whose names hold `filter`.
    pub fn new(filter: &str) -> Self {
        Self { filter: filter.into(), seen: HashSet::new(), passed: 0, failed: 0, skipped: 0 }
    }

    /// Whether the test is to be run.
    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// Whether the test has been told of.
    pub fn has(&self, name: &str) -> bool {
        self.seen.contains(name)
    }

    /// Runs the test, if it is wanted.
    pub fn check(&mut self, name: &str, test: impl FnOnce() -> Result<()>) {
        if self.wants(name) {
            let result = test();
            self.tell(name, result);
        }
    }

    /// Tells what became of a test.
    pub fn tell(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                println!("ok {name}");
                self.seen.insert(name.into());
                self.passed += 1;
            }
            Err(error) => self.fail(name, &format!("{error:#}")),
        }
    }

    /// Tells that a test failed.
    pub fn fail(&mut self, name: &str, reason: &str) {
        // One line, whatever a program said.
        println!("FAILED {name}: {}", reason.trim().replace('\n', " | "));
        self.seen.insert(name.into());
        self.failed += 1;
    }

    /// Tells why a test cannot be run here.
    pub fn skip(&mut self, name: &str, reason: &str) {
        println!("skipped {name}: {reason}");
        self.seen.insert(name.into());
        self.skipped += 1;
    }

    /// The last line, and the exit code that belongs to it.
    pub fn finish(&self) -> ExitCode {
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        ExitCode::from(u8::from(self.failed > 0))
    }
}
