//! What a ruleset excepts from a rule: of two rulesets, the one that excepts nothing logs, the other ends.

use anyhow::{Result, ensure};
use ringfence_actor::now;
use ringfence_control::Violation;
use ringfence_policy::Mitigation;

use super::Part;
use super::context::{Context, of};
use crate::cases::Needs;
use crate::rulesets::EXCEPTED;

pub const PART: Part = Part::Table(&[
    ("exceptions/excepted-path-is-logged", |context| {
        logged(context, "RF-901", "cp /usr/bin/actor /tmp/allowed; /tmp/allowed nothing")
    }),
    ("exceptions/other-path-is-killed", |context| {
        killed(context, "RF-901", "cp /usr/bin/actor /tmp/tool; /tmp/tool nothing")
    }),
    ("exceptions/both-keys-hold", |context| logged(context, "RF-501", "cat /etc/shadow")),
    ("exceptions/one-key-holds", |context| killed(context, "RF-501", "echo all > /etc/sudoers; cat /etc/sudoers")),
]);

/// The one violation of a script, and the script's exit status.
fn violation(context: &mut Context, rule: &str, script: &str) -> Result<(std::sync::Arc<Violation>, u32)> {
    context.enforcer()?;
    let spec = context.spec(Needs::Nothing, EXCEPTED, Mitigation::Terminate, ["sleep", "600"]);
    let container = context.run(&spec)?;
    let from = now();
    let output = container.exec(["sh", "-c", script])?;
    let matches = of(&container, rule);
    let event = context.journal.wait_for("the violation", |event| matches(event) && event.kernel_time_ns >= from)?;
    Ok((event, output.status))
}

fn logged(context: &mut Context, rule: &str, script: &str) -> Result<()> {
    let (event, status) = violation(context, rule, script)?;
    ensure!(event.mitigation == Mitigation::Log, "asked for {}", event.mitigation);
    ensure!(*event.rule_set_name == *"excepted-log", "by {}", event.rule_set_name);
    ensure!(event.mitigation_done.is_empty(), "{:?}", event.mitigation_done);
    ensure!(status == 0, "it ended with {status}");
    Ok(())
}

fn killed(context: &mut Context, rule: &str, script: &str) -> Result<()> {
    let (event, status) = violation(context, rule, script)?;
    ensure!(event.mitigation == Mitigation::Terminate, "asked for {}", event.mitigation);
    ensure!(*event.rule_set_name == *"excepted-terminate", "by {}", event.rule_set_name);
    ensure!(status != 0, "it ended well");
    Ok(())
}
