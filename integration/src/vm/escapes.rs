//! Processes that leave their container's cgroup by themselves: they stay governed. A bare container may mount every
//! hierarchy, as a privileged one may.

use std::process::Output;

use anyhow::{Result, ensure};

use super::batch::Batch;
use super::{Machine, said};
use crate::bare::Bare;
use crate::cases::{Act, act};
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
    let (mut batch, governed) = (Batch::new(machine), &machine.block[RULE]);
    let name = |escape: &Act| format!("vm/{}/escape/{}", machine.strongest, escape.name);
    for escape in ESCAPES {
        let command = with_regard_to(machine, &escape, &machine.log);
        batch.perform(report, name(&escape), RULE, (governed, &command), |output, events| {
            is_out(output)?;
            ensure!(!String::from_utf8_lossy(&output.stdout).contains("root:"), "it has read the file");
            ensure!(!events.is_empty(), "no event; {}", said(output));
            Ok(())
        });
    }
    let command = with_regard_to(machine, &MAKES, governed);
    batch.perform(report, name(&MAKES), ESCAPE, (&machine.log, &command), |output, events| {
        is_out(output)?;
        ensure!(!events.is_empty(), "no event; {}", said(output));
        Ok(())
    });
    batch.judge(report);
}

fn is_out(output: &Output) -> Result<()> {
    ensure!(output.stdout.starts_with(b"out"), "it is still inside: {}", said(output));
    Ok(())
}

/// The escape, where it names another container.
fn with_regard_to(machine: &Machine, escape: &Act, other: &Bare) -> Vec<String> {
    escape.arguments(&machine.places).into_iter().map(|word| word.replace("{other}", other.cgroup())).collect()
}
