//! What the runtime itself does to start a container, or a program in one, never counts.

use anyhow::{Result, ensure};
use ringfence_control::Violation;
use ringfence_policy::Mitigation;

use super::Part;
use super::context::Context;
use crate::cases::Needs;

pub const PART: Part = Part::Table(&[("entry/runtime-never-counts", never_counts)]);

/// Programs started in one container from outside.
const EXECS: usize = 30;
/// Containers started.
const STARTS: usize = 5;

/// With all rules at `terminate`, containers start, programs are started in them, and nothing happens.
fn never_counts(context: &mut Context) -> Result<()> {
    context.enforcer()?;
    for start in 0..STARTS {
        let spec = context.spec(Needs::Nothing, "all", Mitigation::Terminate, ["actor", "sleep", "600000"]);
        let container = context.run(&spec)?;
        let execs = if start == 0 { EXECS } else { 2 };
        for number in 0..execs {
            let output = container.exec(["actor", "nothing"])?;
            ensure!(output.status == 0, "exec {number} ended with {}: {}", output.status, output.stderr);
        }
        ensure!(container.is_running()?, "the container is dead");
        // The settling event: after it, everything before has been printed.
        drop(container.exec(["cat", "/etc/shadow"]));
        let own = |event: &Violation| event.container_id.as_str() == container.id();
        let last = context.journal.wait_for("the event that comes after all others", |event| {
            own(event) && event.rule_id.to_string() == "RF-501"
        })?;
        let before = context.journal.all(|event| own(event) && event.kernel_time_ns < last.kernel_time_ns);
        let rules: Vec<_> = before.iter().map(|event| event.rule_id.to_string()).collect();
        ensure!(rules.is_empty(), "starting it counted as {rules:?}");
    }
    Ok(())
}
