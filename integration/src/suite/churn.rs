//! Containers come and go as fast as the node can start them: each is governed, and nothing of it is left.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use ringfence_control::Violation;
use ringfence_policy::Mitigation;

use super::Part;
use super::context::Context;
use crate::bpffs::{OF_CONTAINERS, entries};
use crate::cases::Needs;
use crate::harness::{Node, Spec};

pub const PART: Part = Part::Table(&[("churn/500-containers", many)]);

const CONTAINERS: usize = 500;
/// Started side by side.
const AT_A_TIME: usize = 4;
/// Each so many-th has a network of its own; what makes it takes longer than all the rest of a container.
const NETWORKED: usize = 5;
/// A guard against hanging.
const LIMIT: Duration = Duration::from_mins(1);

fn many(context: &mut Context) -> Result<()> {
    context.enforcer()?;
    let before = entries(&context.start.bpffs)?;
    // Its first instruction is its violation.
    let networked = context.spec(Needs::Nothing, "RF-501", Mitigation::Log, ["cat", "/etc/shadow"]);
    let plain = networked.clone().host_network();
    let next = AtomicUsize::new(0);
    let node = &context.node;
    let started: Vec<Result<Vec<String>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(|| start(node, &next, &plain, &networked))).collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?).collect()
    });
    let ids: BTreeSet<String> = started.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    ensure!(ids.len() == CONTAINERS, "{} containers have ids of their own", ids.len());
    let own = |event: &Violation| ids.contains(event.container_id.as_str()) && event.rule_id.to_string() == "RF-501";
    let told = context.journal.wait_for_count("the violation of each", CONTAINERS, own);
    // One that began before it was known had its violation before anybody looked.
    let warnings = context.enforcer()?.status()?.warnings;
    let told = told.with_context(|| format!("the enforcer warns of {warnings:?}"))?;
    let of: BTreeSet<&str> = told.iter().map(|event| event.container_id.as_str()).collect();
    ensure!(of.len() == CONTAINERS, "{} containers are told of", of.len());

    let until = Instant::now() + LIMIT;
    loop {
        let known = context.enforcer()?.status()?.containers;
        let left = known.iter().filter(|container| ids.contains(container.id.as_str())).count();
        let now = entries(&context.start.bpffs)?;
        if left == 0 && now == before {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{left} containers are known that are gone; {OF_CONTAINERS:?} had {before:?} entries and have {now:?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// One after the other, until there have been enough; waits for the end of each.
fn start(node: &Node, next: &AtomicUsize, plain: &Spec, networked: &Spec) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= CONTAINERS {
            return Ok(ids);
        }
        let container = node.run(if number.is_multiple_of(NETWORKED) { networked } else { plain })?;
        let status = container.wait().with_context(|| format!("container {number}"))?;
        ensure!(status == 0, "container {number} ended with {status}");
        ids.push(container.id().to_owned());
    }
}
