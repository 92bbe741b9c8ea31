//! Noise: what people run in containers, under all rules. Whatever is reported is either true, and said so here, or a
//! fault of the rules.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_control::{Escaped, Violation};
use ringfence_policy::{Mitigation, Severity};

use super::Part;
use super::context::Context;
use super::report::Report;
use super::workloads::{self, WORKLOADS, Workload};
use crate::cases::Needs;
use crate::harness::{Container, Spec};
use crate::{debian, rulesets};

pub const PART: Part = Part::Made { names, run };

/// A guard against hanging.
const LIMIT: Duration = Duration::from_mins(3);

/// Where containers find the workloads' scripts.
const SCRIPTS: &str = "/noise";

fn names() -> Vec<String> {
    WORKLOADS.iter().map(name).collect()
}

fn name(workload: &Workload) -> String {
    format!("noise/{}", workload.name)
}

fn run(context: &mut Context, report: &mut Report) {
    let witness = match prepare(context) {
        Ok(witness) => witness,
        Err(error) => {
            // All at once: none of them can run.
            for name in names() {
                report.check(&name, || bail!("{error:#}"));
            }
            return;
        }
    };
    for workload in WORKLOADS {
        report.check(&name(workload), || judge(context, &witness, workload));
    }
}

/// The image, the scripts, and a container whose violation comes after all those of a workload.
fn prepare(context: &mut Context) -> Result<Container> {
    context.node.import(&debian::image()?)?;
    let scripts = scripts(context.node.directory());
    fs::create_dir_all(&scripts)?;
    for workload in WORKLOADS {
        fs::write(scripts.join(format!("{}.sh", workload.name)), workload.script)?;
    }
    context.enforcer()?;
    let spec = context.spec(Needs::Nothing, "RF-501", Mitigation::Log, ["actor", "sleep", "6000000"]);
    context.run(&spec)
}

fn scripts(directory: &Path) -> std::path::PathBuf {
    directory.join("noise")
}

/// Runs the workload, and holds every event of it against what is known of it.
fn judge(context: &mut Context, witness: &Container, workload: &Workload) -> Result<()> {
    let container = perform(context, workload)?;
    let last = settle(context, witness)?;
    let own = |event: &Violation| event.container_id.as_str() == container.id() && event.severity > Severity::Low;
    let events = context.journal.all(|event| own(event) && event.kernel_time_ns < last);
    let known = |event: &Violation| workload.truths.iter().chain(workload.limits).any(|report| report.holds(event));
    let noise: Vec<_> = events.iter().filter(|event| !known(event)).map(|event| line(event)).collect();
    ensure!(noise.is_empty(), "{} events are not true of it: {}", noise.len(), noise.join("; "));
    for truth in workload.truths {
        ensure!(events.iter().any(|event| truth.holds(event)), "{} was not seen: {}", truth.rule, truth.why);
    }
    Ok(())
}

fn perform(context: &mut Context, workload: &Workload) -> Result<Container> {
    let script = format!("{SCRIPTS}/{}.sh", workload.name);
    let folder = scripts(context.node.directory());
    let folder = folder.to_str().context("the node's folder has a strange name")?;
    let entry = if workload.server.is_empty() { vec!["bash", &script] } else { workload.server.to_vec() };
    let spec = Spec::new(debian::NAME, entry)
        .label(rulesets::RULE, "all")
        .label(rulesets::MITIGATION, &Mitigation::Log.to_string())
        .mount("bind", folder, SCRIPTS, &["rbind", "ro"]);
    let container = context.run(&spec)?;
    if workload.server.is_empty() {
        let status = container.wait_within(LIMIT)?;
        let (said, wrong) = (container.stdout(), container.stderr());
        ensure!(status == 0, "{} ended with {status}: {} {}", workload.name, end(&said), end(&wrong));
        return Ok(container);
    }
    // As probes and operators do: from outside, while the server runs.
    let output = container.exec(["bash", &script])?;
    let (said, wrong) = (end(&output.stdout), end(&output.stderr));
    ensure!(output.status == 0, "{} ended with {}: {said} {wrong}", workload.name, output.status);
    for probe in workload.probes {
        let output = container.exec(probe.iter().copied())?;
        ensure!(output.status == 0, "{probe:?} ended with {}: {}", output.status, output.stderr);
    }
    Ok(container)
}

/// When everything before this moment has been printed: the kernel's records come in order.
fn settle(context: &Context, witness: &Container) -> Result<u64> {
    let from = ringfence_actor::now();
    let output = witness.exec(["cat", "/etc/shadow"])?;
    if output.status != 0 {
        bail!("the witness failed: {}", output.stderr);
    }
    let event = context.journal.wait_for("the event that comes after all others", |event| {
        event.container_id.as_str() == witness.id() && event.kernel_time_ns >= from
    })?;
    Ok(event.kernel_time_ns)
}

/// An event in one line, for whoever has to judge it.
fn line(event: &Violation) -> String {
    let text = |escaped: &Option<_>| escaped.as_ref().map(ToString::to_string).unwrap_or_default();
    let command: Vec<_> = event.process.cmd.iter().map(ToString::to_string).collect();
    let parents: Vec<_> = event.parents.iter().map(|parent| parent.name.to_string()).collect();
    format!(
        "{} {} {} [{}] by {} ({}) < {}",
        event.rule_id,
        event.operation,
        text(&event.object_file_path),
        event.flags.join(" "),
        text(&event.process.exe),
        command.join(" "),
        parents.join(" < ")
    )
}

/// The last lines of what a program said.
fn end(text: &str) -> String {
    let lines: Vec<_> = text.lines().rev().take(6).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

impl workloads::Report {
    fn holds(&self, event: &Violation) -> bool {
        let begins =
            |text: &Option<Escaped>, with: &str| text.as_ref().is_some_and(|text| text.as_str().starts_with(with));
        event.rule_id.to_string() == self.rule
            && begins(&event.object_file_path, self.object)
            && begins(&event.process.exe, self.exe)
    }
}
