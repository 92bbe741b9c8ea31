//! The clock of the scene, and the three containers side by side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const COLUMN: usize = 30;

/// Prints what happens, with the time since the start.
pub struct Watch {
    interrupted: Arc<AtomicBool>,
    started: Instant,
}

impl Watch {
    /// A clock that began at `started`, for a scene that a signal may interrupt.
    pub fn new(interrupted: Arc<AtomicBool>, started: Instant) -> Self {
        Self { interrupted, started }
    }

    /// One row of the three columns.
    pub fn row(&self, web: &str, worker: &str, batch: &str) {
        let time = self.started.elapsed().as_secs_f64();
        println!("{time:>6.1} s  {web:<COLUMN$} {worker:<COLUMN$} {batch}");
    }

    /// A command that is typed, or another step of the scene.
    pub fn say(&self, what: &str) {
        println!("{:>6.1} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// What the enforcer reported, as it would stand in a terminal.
    pub fn report(text: &str) {
        for line in text.lines() {
            println!("    > {line}");
        }
    }

    /// Lets the viewer look, for a moment, and fails if the scene was interrupted.
    pub fn pause(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(20)));
        }
    }
}
