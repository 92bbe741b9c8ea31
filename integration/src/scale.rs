//! Ringfence in a cluster with many objects: what the webhook takes for a request, and what the webhook, enforcers and
//! their API server take when there are thousands of nodes and pods. Real programs, a real API server; the nodes and
//! pods are objects alone.

mod admission;
mod crowd;
mod fleet;
mod load;
mod meter;
mod objects;
mod requests;
mod site;
mod webhook;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::cluster::Interrupt;
use site::Site;

/// What can be measured.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub enum Part {
    /// Requests to the webhook: a pod among 1,000 rulesets, over TLS.
    Admission,
    /// Memory and requests with many nodes and pods.
    Crowd(crowd::Size),
}

/// Measures, prints Markdown, and writes the numbers to a file as JSON.
pub fn run(programs: &Path, part: Part, file: Option<&Path>) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "this program was built without --release: it would measure itself");
    let interrupt = Interrupt::by_signals()?;
    let mut site = Site::up(programs, &interrupt)?;
    let measured = match part {
        Part::Admission => admission::run(&mut site),
        Part::Crowd(wanted) => crowd::run(&mut site, wanted),
    };
    let (text, numbers) = measured?;
    site.cluster.down()?;
    print!("{text}");
    if let Some(file) = file {
        fs::write(file, format!("{numbers:#}\n")).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Runs `f` on a thread on one processor, if the machine has so many.
fn pinned<T: Send>(processor: usize, f: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut set = CpuSet::new();
            // On a machine with one processor all share it.
            if set.set(processor).is_ok() {
                let _ = sched_setaffinity(Pid::from_raw(0), &set);
            }
            f()
        });
        thread.join().map_err(|_| anyhow::anyhow!("the thread that measures panicked"))
    })
}
