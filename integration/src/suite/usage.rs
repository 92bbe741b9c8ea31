//! Wrong inputs: one clear error that names the thing, and exit code 2.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::Part;
use super::context::Context;
use super::report::Report;
use crate::enforcer::{Start, finish};

pub const PART: Part = Part { names, run };

/// Exit code of a usage or configuration error.
const WRONG: i32 = 2;

type Test = fn(&mut Context) -> Result<()>;

const TESTS: [(&str, Test); 9] = [
    ("usage/unknown-option", unknown_option),
    ("usage/no-rulesets-option", no_rulesets),
    ("usage/missing-folder", missing_folder),
    ("usage/unreadable-rulesets", unreadable),
    ("usage/broken-ruleset", broken_ruleset),
    ("usage/no-containerd", no_containerd),
    ("usage/not-a-socket", not_a_socket),
    ("usage/no-root", no_root),
    ("usage/second-enforcer", second),
];

fn names() -> Vec<String> {
    TESTS.iter().map(|(name, _)| (*name).to_owned()).collect()
}

fn run(context: &mut Context, report: &mut Report) {
    for (name, test) in TESTS {
        report.check(name, || test(context));
    }
}

/// The command is refused with code 2, briefly, and its error holds all of `names`.
fn refused(command: &mut Command, names: &[&str]) -> Result<()> {
    let output = finish(command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(WRONG), "it ended with {} and said: {said}", output.status);
    for name in names {
        ensure!(said.contains(name), "the error does not name {name}: {said}");
    }
    let errors = said.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!(errors <= 5, "{errors} lines of error: {said}");
    ensure!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "it panicked: {said}");
    ensure!(
        output.stdout.is_empty(),
        "an error belongs on the error output: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// No enforcer runs: the ones of these tests are alone.
fn alone(context: &mut Context) -> Result<()> {
    context.take_enforcer()?.stop()?;
    Ok(())
}

fn with_rulesets(context: &Context, rulesets: &Path) -> Command {
    Start { rulesets: rulesets.into(), ..context.start.clone() }.command(&context.node)
}

fn unknown_option(context: &mut Context) -> Result<()> {
    refused(context.start.command(&context.node).arg("--rulests"), &["--rulests"])
}

fn no_rulesets(context: &mut Context) -> Result<()> {
    refused(context.start.program(&context.node).arg("--standalone"), &["--rulesets"])
}

fn missing_folder(context: &mut Context) -> Result<()> {
    alone(context)?;
    let folder = context.node.directory().join("no-such-folder");
    refused(&mut with_rulesets(context, &folder), &["no-such-folder"])
}

/// A socket is neither a file of rulesets nor a folder of them.
fn unreadable(context: &mut Context) -> Result<()> {
    alone(context)?;
    refused(&mut with_rulesets(context, context.node.socket()), &["containerd.sock"])
}

fn broken_ruleset(context: &mut Context) -> Result<()> {
    alone(context)?;
    let folder = context.node.directory().join("broken");
    fs::create_dir_all(&folder)?;
    let text = "apiVersion: ringfence.dev/v1alpha1\nkind: RuntimeRuleset\nmetadata: {name: broken}\nspec:\n  rules:\n  - {rule: RF-109, mitigation: log}\n";
    fs::write(folder.join("broken.yaml"), text)?;
    refused(&mut with_rulesets(context, &folder), &["broken.yaml:6:", "RF-109", "RF-10"])
}

fn no_containerd(context: &mut Context) -> Result<()> {
    alone(context)?;
    let mut command = context.start.program(&context.node);
    context.start.standalone(&mut command);
    refused(command.args(["--containerd", "/run/no-such.sock"]), &["/run/no-such.sock"])
}

fn not_a_socket(context: &mut Context) -> Result<()> {
    alone(context)?;
    let file = context.node.directory().join("file.sock");
    fs::write(&file, "")?;
    let mut command = context.start.program(&context.node);
    context.start.standalone(&mut command);
    refused(command.arg("--containerd").arg(&file), &["file.sock"])
}

fn no_root(context: &mut Context) -> Result<()> {
    alone(context)?;
    // Root in name alone: whoever is not root may not even enter the node's network namespace.
    let start = context.start.command(&context.node);
    let mut command = Command::new("setpriv");
    let drop = ["--bounding-set=-all", "--inh-caps=-all", "--"];
    let enforcer = start.get_args().skip_while(|argument| *argument != "--").skip(1);
    command.args(drop).args(enforcer);
    refused(&mut command, &["CAP_SYS_ADMIN", "root"])
}

fn second(context: &mut Context) -> Result<()> {
    context.enforcer()?;
    refused(&mut context.start.command(&context.node), &["already"])?;
    context.enforcer()?.status()?;
    Ok(())
}
