//! A container's very first instruction is governed.

use std::collections::BTreeSet;
use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use ringfence_control::Violation;
use ringfence_policy::Mitigation;

use super::Part;
use super::context::Context;
use crate::harness::Spec;
use crate::image;
use crate::rulesets;

pub const PART: Part = Part::Table(&[("first-instruction/200-of-200", first_instruction)]);

const CONTAINERS: usize = 200;
/// Containers that are started at the same time.
const AT_ONCE: usize = 2;

/// Entry points that are themselves the violation, and the rule.
const ENTRY_POINTS: [(&str, &[&str]); 4] = [
    ("RF-801", &["/usr/bin/xmrig", "nothing"]),
    ("RF-802", &["actor", "nothing", "--url=stratum+tcp://pool.example:3333"]),
    ("RF-501", &["cat", "/etc/shadow"]),
    ("RF-513", &["actor", "connect", "packet-raw"]),
];

fn first_instruction(context: &mut Context) -> Result<()> {
    context.enforcer()?;
    let stop = AtomicBool::new(false);
    let started = thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(2, usize::from);
        for _ in 0..processors {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        let context = &*context;
        let workers: Vec<_> = (0..AT_ONCE).map(|worker| scope.spawn(move || start_all(context, worker))).collect();
        let results: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        results
    });
    let mut expected = BTreeSet::new();
    for result in started {
        expected.extend(result.ok().context("a worker panicked")??);
    }
    ensure!(expected.len() == CONTAINERS, "{} containers were started", expected.len());
    let key = |event: &Violation| (event.container_id.as_str().to_owned(), event.rule_id.to_string());
    let caught = |event: &Violation| expected.contains(&key(event));
    // Fewer are told apart below, by name.
    drop(context.journal.wait_for_count("first instructions", CONTAINERS, caught));
    let found: BTreeSet<_> = context.journal.all(caught).iter().map(|event| key(event)).collect();
    let missed: Vec<_> = expected.difference(&found).collect();
    ensure!(missed.is_empty(), "{} of {CONTAINERS} were missed: {missed:?}", missed.len());
    Ok(())
}

/// Starts this worker's share; ids and the rules that they violate.
fn start_all(context: &Context, worker: usize) -> Result<Vec<(String, String)>> {
    let mut started = Vec::new();
    for number in (worker..CONTAINERS).step_by(AT_ONCE) {
        let (rule, command) = ENTRY_POINTS[number % ENTRY_POINTS.len()];
        let spec = Spec::new(image::NAME, command.iter().copied())
            .label(rulesets::RULE, "all")
            .label(rulesets::MITIGATION, &Mitigation::Log.to_string());
        let container = context.node.run(&spec)?;
        container.wait()?;
        started.push((container.id().to_owned(), rule.to_owned()));
    }
    Ok(started)
}
