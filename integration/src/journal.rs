//! What the enforcer printed: one violation a line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ringfence_control::Violation;

/// How long an event may take to be printed. A guard against hanging, nothing that is measured.
const LIMIT: Duration = Duration::from_mins(1);

#[derive(Default)]
struct Pages {
    violations: Vec<Arc<Violation>>,
    /// Lines that are no violation.
    strange: Vec<String>,
    complaints: Vec<String>,
}

/// All violations so far, of all enforcers of this run.
#[derive(Clone, Default)]
pub struct Journal(Arc<(Mutex<Pages>, Condvar)>);

impl Journal {
    /// Reads `output` to its end, on a thread of its own.
    pub fn follow(&self, output: impl Read + Send + 'static) {
        let journal = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { break };
                journal.add(&line);
            }
        });
    }

    fn add(&self, line: &[u8]) {
        let (pages, changed) = &*self.0;
        let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
        match serde_json::from_slice(line) {
            Ok(violation) => pages.violations.push(Arc::new(violation)),
            Err(error) => pages.strange.push(format!("{error}: {}", String::from_utf8_lossy(line))),
        }
        changed.notify_all();
    }

    /// Everything that matches, so far.
    pub fn all(&self, matches: impl Fn(&Violation) -> bool) -> Vec<Arc<Violation>> {
        let pages = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.violations.iter().filter(|violation| matches(violation)).cloned().collect()
    }

    /// The first that matches, as soon as it is there.
    pub fn wait_for(&self, what: &str, matches: impl Fn(&Violation) -> bool) -> Result<Arc<Violation>> {
        Ok(self.wait_for_count(what, 1, matches)?.remove(0))
    }

    /// As many that match, as soon as they are there.
    pub fn wait_for_count(
        &self,
        what: &str,
        count: usize,
        matches: impl Fn(&Violation) -> bool,
    ) -> Result<Vec<Arc<Violation>>> {
        let until = Instant::now() + LIMIT;
        let (pages, changed) = &*self.0;
        let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let found: Vec<_> = pages.violations.iter().filter(|violation| matches(violation)).cloned().collect();
            if found.len() >= count {
                return Ok(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} of {count} events: {what}", found.len());
            }
            pages = changed.wait_timeout(pages, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Notes a complaint of the enforcer that the suite must not overlook.
    pub fn complain(&self, line: &str) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).complaints.push(line.to_owned());
    }

    /// Answers of the kernel that are not what the rules' declarations say.
    pub fn complaints(&self) -> Vec<String> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).complaints.clone()
    }

    /// Lines of the output that were no violation.
    pub fn strange(&self) -> Vec<String> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).strange.clone()
    }
}
