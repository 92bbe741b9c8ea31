//! The machine at rest.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What is looked at.
const WINDOW: Duration = Duration::from_millis(500);
/// How much of it may be work, at most: one in so many.
const ONE_IN: u64 = 10;
/// After that it is taken as it is.
const LIMIT: Duration = Duration::from_secs(30);

/// A tracepoint's file.
const TRACEPOINT: &str = "/sys/kernel/tracing/events/syscalls/sys_exit_openat/enable";
/// Times that it is looked at.
const MOMENTS: usize = 10;
/// To read it takes longer than this while somebody waits for a grace period.
const HELD: Duration = Duration::from_millis(5);

/// Ticks of all processors (`proc(5)`, `/proc/stat`).
struct Ticks {
    worked: u64,
    all: u64,
}

impl Ticks {
    fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        Self::of(&text).context("/proc/stat does not begin with the ticks of all processors")
    }

    fn of(text: &str) -> Option<Self> {
        let ticks: Vec<u64> =
            text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|n| n.parse().ok()).collect();
        let [user, nice, system, idle, wait, interrupts, soft, stolen, ..] = ticks[..] else { return None };
        let worked = user + nice + system + interrupts + soft;
        Some(Self { worked, all: worked + idle + wait + stolen })
    }
}

/// Waits until the processors have next to nothing to do. Of an enforcer that has gone the kernel frees a hundred programs
/// and maps, on the processors that whatever is measured next needs: some seconds where they are emulated. And it takes the
/// programs off their tracepoints one by one, each for a grace period, which is no work; whoever wants a tracepoint then
/// waits for one as well.
pub fn wait() -> Result<()> {
    let until = Instant::now() + LIMIT;
    loop {
        let before = Ticks::now()?;
        thread::sleep(WINDOW);
        let after = Ticks::now()?;
        let idle = (after.worked - before.worked) * ONE_IN <= after.all - before.all;
        if idle && tracepoints_are_free()? || Instant::now() > until {
            return Ok(());
        }
    }
}

/// Whether nobody has the lock of all tracepoints, in any of some moments: who reads takes it.
fn tracepoints_are_free() -> Result<bool> {
    for _ in 0..MOMENTS {
        let from = Instant::now();
        fs::read(TRACEPOINT).context(TRACEPOINT)?;
        if from.elapsed() > HELD {
            return Ok(false);
        }
        thread::sleep(HELD);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_no_work() {
        let ticks = Ticks::of("cpu  10 1 20 300 40 2 3 5 0 0\ncpu0 10 1 20 300 40 2 3 5 0 0\n").unwrap();
        assert_eq!((ticks.worked, ticks.all), (36, 381));
        assert!(Ticks::of("intr 1").is_none());
    }
}
