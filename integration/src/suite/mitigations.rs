//! Every behaviour of every rule, with every mitigation, and every near miss.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_actor::now;
use ringfence_control::{Done, Violation};
use ringfence_policy::Mitigation;

use super::Part;
use super::context::{Context, address4, cut_at, of};
use super::report::Report;
use crate::cases::{self, Act, Case, Needs};
use crate::harness::Container;

pub const PART: Part = Part::Made { names, run };

/// Everything the sender sends in this time after a violation must not arrive.
const QUIET: Duration = Duration::from_millis(150);

fn name(case: &Case, kind: &str, act: &Act) -> String {
    format!("{}/{kind}/{}", case.rule, act.name)
}

fn all_near_misses(case: &Case, kind: &str) -> String {
    match case.needs {
        Needs::Nothing => format!("{}/{kind}/near-misses", case.rule),
        Needs::Privileged => format!("{}/{kind}/near-misses-privileged", case.rule),
    }
}

fn names() -> Vec<String> {
    let mut names = Vec::new();
    for case in cases::all() {
        names.extend(case.behaviours.iter().chain(case.evasions).map(|act| name(case, "log", act)));
        names.extend(case.near_misses.iter().map(|act| name(case, "near", act)));
        for kind in ["isolate", "terminate"] {
            names.extend(case.behaviours.iter().map(|act| name(case, kind, act)));
            names.push(all_near_misses(case, kind));
        }
    }
    names
}

fn run(context: &mut Context, report: &mut Report) {
    logged(context, report);
    for case in cases::all() {
        for (kind, mitigation) in [("isolate", Mitigation::Isolate), ("terminate", Mitigation::Terminate)] {
            report.check(&all_near_misses(case, kind), || near_misses(context, case, mitigation));
            for act in case.behaviours {
                report.check(&name(case, kind, act), || match mitigation {
                    Mitigation::Isolate => isolated(context, case, act),
                    _ => terminated(context, case, act),
                });
            }
        }
    }
}

/// With `log`, one container of each kind serves all rules: an event belongs to the act in whose time it happened.
fn logged(context: &mut Context, report: &mut Report) {
    let mut containers: HashMap<Needs, Container> = HashMap::new();
    let mut acts = Vec::new();
    for case in cases::all() {
        let should = case.behaviours.iter().chain(case.evasions).map(|act| (act, "log"));
        for (act, kind) in should.chain(case.near_misses.iter().map(|act| (act, "near"))) {
            let name = name(case, kind, act);
            if report.wants(&name) {
                let result = in_log_container(context, &mut containers, case, act);
                acts.push((name, case, kind == "log", result));
            }
        }
    }
    // Records come out in order: what happens now is printed after everything that has happened.
    let settled = containers.values().try_for_each(|container| settle(context, container));
    for (name, case, expected, result) in acts {
        let judge = || -> Result<()> {
            let (from, to, needs) = result?;
            if let Err(error) = &settled {
                bail!("{error:#}");
            }
            let container = containers.get(&needs).context("its container is gone")?;
            let matches = of(container, case.rule);
            let events = context.journal.all(|event| matches(event) && (from..=to).contains(&event.kernel_time_ns));
            match (expected, events.first()) {
                (true, None) => {
                    let other = context.journal.all(|event| (from..=to).contains(&event.kernel_time_ns));
                    let other: Vec<_> = other.iter().map(|event| summary(event)).collect();
                    bail!("no event; others: {other:?}")
                }
                (true, Some(event)) => {
                    ensure!(event.mitigation == Mitigation::Log, "asked for {}", event.mitigation);
                    ensure!(event.mitigation_done.is_empty(), "did {:?}", event.mitigation_done);
                    Ok(())
                }
                (false, Some(event)) => bail!("it counted: {}", summary(event)),
                (false, None) => Ok(()),
            }
        };
        let result = judge();
        report.tell(&name, result);
    }
}

fn in_log_container(
    context: &mut Context,
    containers: &mut HashMap<Needs, Container>,
    case: &Case,
    act: &Act,
) -> Result<(u64, u64, Needs)> {
    if let Entry::Vacant(vacant) = containers.entry(case.needs) {
        context.enforcer()?;
        let spec = context.spec(case.needs, "all", Mitigation::Log, ["actor", "sleep", "3600000"]);
        let container = context.run(&spec)?;
        context.enforcer()?.container(container.id())?;
        vacant.insert(container);
    }
    let container = &containers[&case.needs];
    let from = now();
    let output = context.act(container, act)?;
    ensure!(output.status == 0, "it ended with {} although it is only to be logged: {}", output.status, output.stderr);
    Ok((from, now(), case.needs))
}

/// Does what is certainly reported, and waits for the report.
fn settle(context: &Context, container: &Container) -> Result<()> {
    let from = now();
    container.exec(["cat", "/etc/shadow"])?;
    let matches = of(container, "RF-501");
    context
        .journal
        .wait_for("the event that comes after all others", |event| matches(event) && event.kernel_time_ns >= from)?;
    Ok(())
}

/// The traffic goes on and the container lives on after all near misses of the rule.
fn near_misses(context: &mut Context, case: &Case, mitigation: Mitigation) -> Result<()> {
    let container = sending(context, case, mitigation)?;
    for act in case.near_misses {
        let output = context.act(&container, act)?;
        ensure!(output.status == 0, "{} ended with {}: {}", act.name, output.status, output.stderr);
    }
    ensure!(container.is_running()?, "the container is dead");
    context.sink.wait_for_more(address4(&container)?, 5).context("after the near misses")?;
    // The other rules are not in this ruleset: there is nothing to be said at all.
    let events = context.journal.all(|event| event.container_id.as_str() == container.id());
    ensure!(events.is_empty(), "{:?}", events.iter().map(|event| summary(event)).collect::<Vec<_>>());
    Ok(())
}

/// A container that sends without pause, known to the enforcer, its packets arriving.
fn sending(context: &mut Context, case: &Case, mitigation: Mitigation) -> Result<Container> {
    context.enforcer()?;
    let to = format!("{}:{}", context.places.gateway4, context.places.port);
    let flood = ["actor", "flood", "--proto", "udp", "--to", &to, "--lasting", "600000", "--pause", "300"];
    let spec = context.spec(case.needs, case.rule, mitigation, flood);
    let container = context.run(&spec)?;
    context.enforcer()?.container(container.id())?;
    context.sink.wait_for_more(address4(&container)?, 5).context("before anything is done")?;
    Ok(container)
}

fn isolated(context: &mut Context, case: &Case, act: &Act) -> Result<()> {
    let container = sending(context, case, Mitigation::Isolate)?;
    let output = context.act(&container, act)?;
    let event = context.journal.wait_for(
        &format!("{} of the container ({}, {})", case.rule, output.status, output.stderr),
        of(&container, case.rule),
    )?;
    ensure!(event.mitigation == Mitigation::Isolate, "asked for {}", event.mitigation);
    ensure!(
        event.mitigation_done.contains(&Done::Isolated),
        "did {:?}, failed {:?}",
        event.mitigation_done,
        event.mitigation_failed
    );
    thread::sleep(QUIET);
    let last = context.sink.from(address4(&container)?).last;
    let cut = cut_at(&event);
    ensure!(last <= cut, "a packet of {} ns after the mitigation arrived", last - cut);
    ensure!(container.is_running()?, "the container is dead, it was to be isolated");
    Ok(())
}

fn terminated(context: &mut Context, case: &Case, act: &Act) -> Result<()> {
    let container = sending(context, case, Mitigation::Terminate)?;
    // The runtime may find the container gone while it waits for the act.
    let output = context.act(&container, act);
    let event =
        context.journal.wait_for(&format!("{} of the container ({output:?})", case.rule), of(&container, case.rule))?;
    ensure!(event.mitigation == Mitigation::Terminate, "asked for {}", event.mitigation);
    // A packet has no process to kill: it is dropped.
    let stopped = if event.operation == "packet" { Done::Denied } else { Done::Killed };
    for done in [Done::Isolated, stopped, Done::Terminated] {
        ensure!(
            event.mitigation_done.contains(&done),
            "did {:?}, failed {:?}",
            event.mitigation_done,
            event.mitigation_failed
        );
    }
    let status = container.wait()?;
    ensure!(status == 137, "the container ended with {status}, not by SIGKILL");
    let last = context.sink.from(address4(&container)?).last;
    let cut = cut_at(&event);
    ensure!(last <= cut, "a packet of {} ns after the mitigation arrived", last - cut);
    Ok(())
}

fn summary(event: &Violation) -> String {
    let path = event.object_file_path.as_ref().map_or("", |path| path.as_str());
    format!("{} {} {path} by {} [{}]", event.rule_id, event.operation, event.process.name, event.flags.join(" "))
}
