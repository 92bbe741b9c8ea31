//! Ctrl-C and its relatives: the programs that are running end first, with their cleaning up, then this one.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getsid},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::{SignalsInfo, exfiltrator::WithOrigin},
};

struct State {
    children: BTreeSet<Pid>,
    signal: Option<i32>,
}

static STATE: Mutex<State> = Mutex::new(State { children: BTreeSet::new(), signal: None });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT, SIGTERM and SIGHUP no longer end this program by themselves.
///
/// A signal of the terminal reaches the whole process group, and with it a child of our session; one that a process
/// sent to us alone is passed on. Signal handlers are not inherited, so the child starts with the ordinary ones.
/// Under `nohup`, SIGHUP stays ignored.
pub fn forward_to_children() -> Result<()> {
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| *signal != SIGHUP || !hangup_is_ignored());
    let mut signals = SignalsInfo::<WithOrigin>::new(wanted).context("cannot install signal handlers")?;
    thread::spawn(move || {
        for origin in &mut signals {
            let mut state = state();
            state.signal = Some(origin.signal);
            if state.children.is_empty() {
                std::process::exit(128 + origin.signal);
            }
            // The terminal's signals do not reach a session of its own.
            let missed = |child: &&Pid| origin.process.is_some() || getsid(Some(**child)) != getsid(None);
            for child in state.children.iter().filter(missed) {
                // It may be gone already; then there is nothing to pass on.
                let _ = Signal::try_from(origin.signal).map(|signal| kill(*child, signal));
            }
        }
    });
    Ok(())
}

/// Names a child that signals go to, until the guard is dropped.
pub fn child(id: u32) -> Guard {
    let child = i32::try_from(id).ok().map(Pid::from_raw);
    state().children.extend(child);
    Guard(child)
}

/// Ends the naming of a child.
pub struct Guard(Option<Pid>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = self.0 {
            state().children.remove(&child);
        }
    }
}

/// An error if a signal came while a child was running.
pub fn check() -> Result<()> {
    if let Some(signal) = state().signal {
        bail!("interrupted by {}", Signal::try_from(signal).map_or("a signal", Signal::as_str));
    }
    Ok(())
}

fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}
