//! Processes that leave their container's cgroup by themselves: they stay governed. A bare container may mount every
//! hierarchy, as a privileged one may.

use std::process::Output;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ringfence_control::Violation;

use super::Machine;
use crate::bare::Bare;
use crate::cases::{self, Act, act};
use crate::suite::Report;

/// The rule that is violated afterwards.
const RULE: &str = "RF-501";

/// Mounts the hierarchies that tell containers apart, as far as this VM has them.
macro_rules! mounted {
    ($then:literal) => {
        concat!(
            "sh -c 'mkdir -p /tmp/v1 /tmp/v2; mount -t cgroup2 none /tmp/v2; mount -t cgroup -o pids none /tmp/v1; ",
            "exec 2>/dev/null; ",
            $then,
            "'"
        )
    };
}

/// Each says `out` once it is where the container's cgroup is not.
const ESCAPES: [Act; 5] = [
    act(
        "moves-itself",
        mounted!(
            "for h in /tmp/v1 /tmp/v2; do echo 0 >$h/cgroup.procs; done; \
             grep -q ^0::/$ /proc/self/cgroup && echo out; cat /etc/shadow"
        ),
    ),
    act(
        "is-moved-by-its-child",
        mounted!(
            "for h in /tmp/v1 /tmp/v2; do sh -c \"echo $$ >$h/cgroup.procs\"; done; \
             grep -q ^0::/$ /proc/self/cgroup && echo out; cat /etc/shadow"
        ),
    ),
    act(
        "moves-and-has-a-child",
        mounted!(
            "for h in /tmp/v1 /tmp/v2; do echo 0 >$h/cgroup.procs; done; \
             sh -c \"grep -q ^0::/$ /proc/self/cgroup && echo out; sh -c \\\"cat /etc/shadow\\\"\""
        ),
    ),
    act(
        "moves-into-another-container",
        mounted!(
            "for h in /tmp/v1 /tmp/v2; do echo 0 >$h/{other}/cgroup.procs; done; \
             grep -q /{other}$ /proc/self/cgroup && echo out; cat /etc/shadow"
        ),
    ),
    act(
        "is-born-outside",
        mounted!("actor born /tmp/v2 sh -c \"grep -q ^0::/$ /proc/self/cgroup && echo out; cat /etc/shadow\""),
    ),
];

/// A cgroup in another container's is an escape before anybody is in it.
const MAKES: Act = act(
    "makes-a-cgroup-in-another-container",
    mounted!("for h in /tmp/v1 /tmp/v2; do rmdir $h/{other}/made; mkdir $h/{other}/made && echo out; done"),
);

/// The rule about it.
const ESCAPE: &str = "RF-326";

/// Tries them all.
pub fn run(machine: &Machine, report: &mut Report) {
    for escape in ESCAPES {
        let name = format!("vm/{}/escape/{}", machine.strongest, escape.name);
        report.check(&name, || governed(machine, &escape));
    }
    report.check(&format!("vm/{}/escape/{}", machine.strongest, MAKES.name), || reported(machine, &MAKES));
}

fn governed(machine: &Machine, escape: &Act) -> Result<()> {
    let bare = container(machine)?;
    let (output, events) = performed(machine, escape, bare, &machine.log, RULE)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(!said.contains("root:"), "it has read the file");
    ensure!(!events.is_empty(), "no event; it ended with {}", output.status);
    Ok(())
}

fn reported(machine: &Machine, escape: &Act) -> Result<()> {
    let (output, events) = performed(machine, escape, &machine.log, container(machine)?, ESCAPE)?;
    ensure!(!events.is_empty(), "no event; it ended with {}", output.status);
    Ok(())
}

/// The one that [`RULE`] governs.
fn container(machine: &Machine) -> Result<&Bare> {
    machine.block.get(RULE).context("there is a container for each case")
}

/// Performed in one container with regard to another one; the events of a rule that came of it.
fn performed(
    machine: &Machine,
    escape: &Act,
    bare: &Bare,
    other: &Bare,
    rule: &str,
) -> Result<(Output, Vec<Arc<Violation>>)> {
    let case = cases::all().find(|case| case.rule == rule).context("no case for the rule")?;
    let mut arguments = escape.arguments(&machine.places);
    for argument in &mut arguments {
        *argument = argument.replace("{other}", other.cgroup());
    }
    let (output, events) = machine.events_of_command(bare, case, &arguments)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.starts_with("out"), "it is still inside: {said} {}", String::from_utf8_lossy(&output.stderr));
    Ok((output, events))
}
