//! The kernel's own statistics of eBPF programs: how often each ran, and for how long.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Counting; dropped, the switch is what it was.
pub struct Counting(String);

impl Counting {
    /// Switches it on (5.1).
    pub fn start() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).context(SWITCH)?;
        fs::write(SWITCH, "1").context(SWITCH)?;
        Ok(Self(before.trim().to_owned()))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, &self.0) {
            eprintln!("{SWITCH} could not be set back to {}: {error}", self.0);
        }
    }
}

/// Runs and their time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// How many.
    pub count: u64,
    /// All together, ns.
    pub time: u64,
}

impl Runs {
    /// Nanoseconds of one.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub fn each(self) -> f64 {
        self.time as f64 / self.count as f64
    }
}

/// By id and name. Names are cut by the kernel to 15 bytes.
pub type Programs = BTreeMap<(u32, String), Runs>;

/// All programs that are loaded.
pub fn programs() -> Result<Programs> {
    let mut found = Programs::new();
    for program in aya::programs::loaded_programs() {
        let program = program?;
        let fd = program.fd()?;
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
        let number = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        let name = program.name_as_str().unwrap_or_default().to_owned();
        found.insert((program.id(), name), Runs { count: number("run_cnt"), time: number("run_time_ns") });
    }
    Ok(found)
}

/// What ran between two looks.
pub fn between(before: &Programs, after: &Programs) -> BTreeMap<String, Runs> {
    let mut ran = BTreeMap::<String, Runs>::new();
    for (key, runs) in after {
        let old = before.get(key).copied().unwrap_or_default();
        if runs.count > old.count {
            let sum = ran.entry(key.1.clone()).or_default();
            sum.count += runs.count - old.count;
            sum.time += runs.time - old.time;
        }
    }
    ran
}
