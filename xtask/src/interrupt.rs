//! Ctrl-C and its relatives: the program that is running ends first, with its cleaning up, then this one.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::{SignalsInfo, exfiltrator::WithOrigin},
};

struct State {
    child: Option<Pid>,
    interrupted: bool,
}

static STATE: Mutex<State> = Mutex::new(State { child: None, interrupted: false });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT, SIGTERM and SIGHUP no longer end this program by themselves.
///
/// A signal of the terminal reaches the whole process group, and with it the child; one that a process sent to us
/// alone is passed on. Signal handlers are not inherited, so the child starts with the ordinary ones.
pub fn forward_to_children() -> Result<()> {
    let mut signals =
        SignalsInfo::<WithOrigin>::new([SIGINT, SIGTERM, SIGHUP]).context("cannot install signal handlers")?;
    thread::spawn(move || {
        for origin in &mut signals {
            let mut state = state();
            state.interrupted = true;
            match state.child {
                Some(child) if origin.process.is_some() => {
                    // It may be gone already; then there is nothing to pass on.
                    let _ = Signal::try_from(origin.signal).map(|signal| kill(child, signal));
                }
                Some(_) => {}
                None => std::process::exit(128 + origin.signal),
            }
        }
    });
    Ok(())
}

/// Names the child that signals go to, until the guard is dropped.
pub fn child(id: u32) -> Guard {
    state().child = i32::try_from(id).ok().map(Pid::from_raw);
    Guard
}

/// Ends the naming of a child.
pub struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        state().child = None;
    }
}

/// An error if a signal came while a child was running.
pub fn check() -> Result<()> {
    if state().interrupted {
        bail!("interrupted");
    }
    Ok(())
}
