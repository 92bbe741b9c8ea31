//! Processes that leave their container's cgroup by themselves: they stay governed. A bare container may mount every
//! hierarchy, as a privileged one may.

use anyhow::{Context, Result, ensure};

use super::Machine;
use crate::cases::{self, Act};
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

const fn act(name: &'static str, command: &'static str) -> Act {
    Act { name, command, tty: false }
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

/// Tries them all.
pub fn run(machine: &Machine, report: &mut Report) {
    for escape in ESCAPES {
        let name = format!("vm/{}/escape/{}", machine.strongest, escape.name);
        report.check(&name, || governed(machine, &escape));
    }
}

fn governed(machine: &Machine, escape: &Act) -> Result<()> {
    let case = cases::all().find(|case| case.rule == RULE).context("no case for the rule")?;
    let bare = machine.block.get(RULE).context("there is a container for each case")?;
    let mut arguments = escape.arguments(&machine.places);
    for argument in &mut arguments {
        *argument = argument.replace("{other}", machine.log.cgroup());
    }
    let (output, events) = machine.events_of_command(bare, case, &arguments)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.starts_with("out"), "it is still inside: {said} {}", String::from_utf8_lossy(&output.stderr));
    ensure!(!said.contains("root:"), "it has read the file");
    ensure!(!events.is_empty(), "no event; it ended with {}", output.status);
    Ok(())
}
