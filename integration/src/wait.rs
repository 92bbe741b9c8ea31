//! Waiting for what comes by itself.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// A guard against hanging: what takes longer does not come.
const LIMIT: Duration = Duration::from_mins(1);
const STEP: Duration = Duration::from_millis(10);

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !holds()? {
        ensure!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        thread::sleep(STEP);
    }
    Ok(())
}
