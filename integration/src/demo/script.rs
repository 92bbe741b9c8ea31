//! What happens, in order.

use std::io::stdout;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ringfence_control::render::{Paint, violation};
use ringfence_control::{Done, Violation};

use super::watch::Watch;
use crate::enforcer::Enforcer;
use crate::harness::{Container, Node, Spec};
use crate::image;
use crate::journal::Journal;
use crate::sink::Sink;
use crate::suite::cut_at;

/// What was expected and what happened.
pub struct Outcome {
    /// Of what.
    pub what: &'static str,
    /// What should have happened.
    pub expected: String,
    /// What did.
    pub happened: String,
}

/// How long the viewer sees a state.
const LOOK: Duration = Duration::from_secs(1);

/// Plays the scene.
pub fn play(node: &Node, sink: &Sink, enforcer: &Enforcer, journal: &Journal, watch: &Watch) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut expect = |what, expected: &str, happened: String| {
        outcomes.push(Outcome { what, expected: expected.into(), happened });
    };
    watch.row("web: log", "worker: isolate", "batch: terminate");
    let web = node.run(&spec(node, "web", ["sleep", "3600"]))?;
    watch.pause(Duration::ZERO)?;
    let to = format!("{}:{}", node.bridge().gateway4(), sink.port());
    let traffic = format!(
        "actor flood --proto tcp --to {to} --lasting 3600000 --pause 200 & exec actor flood --proto udp --to {to} --lasting 3600000 --pause 200"
    );
    let worker = node.run(&spec(node, "worker", ["sh", "-c", &traffic]))?;
    watch.pause(Duration::ZERO)?;
    let batch = node.run(&spec(node, "batch", ["sleep", "3600"]))?;
    for container in [&web, &worker, &batch] {
        enforcer.container(container.id())?;
    }
    let address = worker.addresses().iter().copied().find(IpAddr::is_ipv4).context("the worker has no address")?;
    let rate = |watch: &Watch| -> Result<u64> {
        let before = sink.from(address).count;
        watch.pause(LOOK)?;
        Ok(sink.from(address).count - before)
    };
    watch.row("started", &format!("{} packets/s, TCP and UDP", rate(watch)?), "started");

    watch.row("$ cat /etc/shadow", "", "");
    web.exec(["cat", "/etc/shadow"])?;
    let event = journal.wait_for("the read of the shadow file", of(&web))?;
    Watch::report(&violation(&event, Paint::auto(&stdout())));
    watch.row(state(&web)?, &format!("{} packets/s", rate(watch)?), state(&batch)?);
    expect(
        "web reads /etc/shadow",
        "RF-501 log: running on",
        format!("{} {}: {}", event.rule_id, event.mitigation, running_on(&web)?),
    );

    watch.row("", "$ cp actor /tmp/new; /tmp/new", "");
    let before = sink.from(address);
    worker.exec(["actor", "drop", "create", "/usr/bin/actor", "/tmp/new", "--run"])?;
    let event = journal.wait_for("the new program", of(&worker))?;
    Watch::report(&violation(&event, Paint::auto(&stdout())));
    let cut = rate(watch)?;
    let last = sink.from(address).last;
    watch.row("", &format!("{cut} packets/s: cut off"), "");
    expect(
        "worker runs what is not in its image",
        "RF-901 isolate: isolated",
        format!("{} {}: {}", event.rule_id, event.mitigation, done(&event)),
    );
    let late = if last <= cut_at(&event) { "none" } else { "some" };
    expect("packets sent after that and received", "none", late.into());
    expect("packets received before that", "some", if before.count > 0 { "some" } else { "none" }.into());

    watch.row("", "$ ringfence release worker", "");
    enforcer.release(worker.id())?;
    let back = sink.wait_for_more(address, 10).map_or("is gone", |()| "is back");
    watch.row("", &format!("{} packets/s", rate(watch)?), "");
    expect("traffic after the release", "is back", back.into());

    watch.row("", "", "$ miner -o stratum+tcp://...");
    // The runtime finds its program killed, if it looks before the container is gone.
    drop(batch.exec(["actor", "nothing", "-o", "stratum+tcp://pool.example:3333"]));
    let event = journal.wait_for("the miner", of(&batch))?;
    Watch::report(&violation(&event, Paint::auto(&stdout())));
    let status = batch.wait()?;
    watch.row(state(&web)?, &format!("{} packets/s", rate(watch)?), &format!("dead, status {status}"));
    let end = if status == 137 { "killed".into() } else { format!("ended with {status}") };
    expect(
        "batch starts a miner",
        "RF-802 terminate: killed",
        format!("{} {}: {end}", event.rule_id, event.mitigation),
    );
    expect("the other containers", "running on", both(running_on(&web)?, running_on(&worker)?).into());
    Ok(outcomes)
}

fn spec<'a>(node: &Node, app: &str, command: impl IntoIterator<Item = &'a str>) -> Spec {
    Spec::new(image::NAME, command).id(app).label("app", app).network(node.bridge())
}

fn of(container: &Container) -> impl Fn(&Violation) -> bool {
    let id = container.id().to_owned();
    move |event| event.container_id.as_str() == id
}

fn state(container: &Container) -> Result<&'static str> {
    Ok(if container.is_running()? { "running" } else { "dead" })
}

fn running_on(container: &Container) -> Result<&'static str> {
    Ok(if container.is_running()? { "running on" } else { "dead" })
}

fn both(one: &'static str, other: &'static str) -> &'static str {
    if one == other { one } else { "dead" }
}

/// What was done, in words.
pub fn done(event: &Violation) -> String {
    let words: Vec<_> = event.mitigation_done.iter().copied().map(Done::as_str).collect();
    if words.is_empty() { "nothing".into() } else { words.join(", ") }
}
