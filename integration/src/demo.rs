//! The demo: three containers break a rule, and the viewer sees what the node does about it.
//!
//! `web` reads the shadow file and is only logged. `worker` has a live TCP connection and sends UDP without pause; it
//! drops a new program and runs it, and is cut off the network. `batch` runs a miner's command line and is killed.

pub mod in_cluster;
mod script;
mod watch;

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::bpffs::Bpffs;
use crate::enforcer::Start;
use crate::harness::Node;
use crate::image;
use crate::journal::Journal;
use crate::sink::Sink;
use crate::suite::Programs;
use script::Outcome;
use watch::Watch;

/// The rulesets of the scene, as a user would write them.
const RULESETS: &str = include_str!("demo/rulesets.yaml");

/// Runs the scene. 1 if something else happened than was expected.
pub fn run(programs: &Programs) -> Result<ExitCode> {
    // A signal ends the scene at its next step; everything is cleaned up as always.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let started = Instant::now();
    println!("Starting a containerd of the demo's own, and the enforcer.\n");
    let node = Node::start()?;
    let bpffs = Bpffs::mount(node.directory().join("bpf"))?;
    let rulesets = node.directory().join("rulesets");
    fs::create_dir_all(&rulesets)?;
    fs::write(rulesets.join("demo.yaml"), RULESETS)?;
    node.import(&image::image(&programs.actor))?;
    let sink = Sink::start(&node)?;
    let start = Start {
        program: programs.enforcer.clone(),
        rulesets,
        control: node.directory().join("enforcer.sock"),
        state: node.directory().join("state"),
        bpffs: bpffs.path().into(),
        options: Vec::new(),
    };
    let journal = Journal::default();
    let enforcer = start.start(&node, &journal)?;
    let watch = Watch::new(interrupted, started);

    let played = script::play(&node, &sink, &enforcer, &journal, &watch);

    // Cleaned up first, told afterwards: also when the scene broke off.
    let ended = enforcer.stop();
    let uninstalled = start.uninstall(&node);
    drop(sink);
    drop(bpffs);
    let stopped = node.stop();
    let outcomes = played?;
    ensure!(ended?.success(), "the enforcer did not end well");
    ensure!(uninstalled?.status.success(), "something of the enforcer is left in the kernel");
    stopped.context("clean up")?;
    Ok(conclude(&outcomes, started))
}

fn conclude(outcomes: &[Outcome], started: Instant) -> ExitCode {
    println!("\n{:<38} {:<34} happened", "what", "expected");
    for Outcome { what, expected, happened } in outcomes {
        println!("{what:<38} {expected:<34} {}{happened}", if expected == happened { "" } else { "NOT AS EXPECTED: " });
    }
    let wrong = outcomes.iter().filter(|outcome| outcome.expected != outcome.happened).count();
    println!(
        "\n{} of {} as expected, in {:.1} s. Nothing is left behind.",
        outcomes.len() - wrong,
        outcomes.len(),
        started.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(wrong > 0))
}
