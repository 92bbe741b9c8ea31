//! Running other programs.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::interrupt;

/// Runs a program to its end; its output is the user's to see.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    let guard = interrupt::child(child.id());
    let status = child.wait().with_context(|| format!("cannot wait for {}", line(command)))?;
    drop(guard);
    interrupt::check()?;
    Ok(status)
}

/// The same for a program that has to succeed.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a program that has to succeed and returns what it wrote on standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` did not write UTF-8", line(command)))
}

/// Runs a program to its end and hands over each line of its standard output as soon as it is there.
pub fn lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| cannot_start(command))?;
    let guard = interrupt::child(child.id());
    let mut reader = BufReader::new(child.stdout.take().context("standard output is piped")?);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).context("cannot read a program's output")? > 0 {
        each(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
        bytes.clear();
    }
    let status = child.wait().with_context(|| format!("cannot wait for {}", line(command)))?;
    drop(guard);
    interrupt::check()?;
    Ok(status)
}

/// Has a command wait for whatever else runs on this machine: as a session of its own, where the kernel shares its time
/// out among these (`CONFIG_SCHED_AUTOGROUP`).
const BEHIND: &str = "echo 10 2>/dev/null >/proc/self/autogroup; exec nice -n 10 \"$@\"";

/// The same command, but whatever else runs on this machine goes first, in a session of its own.
pub fn behind(command: &Command) -> Command {
    let mut behind = Command::new("setsid");
    behind.args(["sh", "-c", BEHIND, "sh"]).arg(command.get_program()).args(command.get_args());
    behind.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        behind.current_dir(folder);
    }
    behind
}

/// Whether a program can be found.
pub fn exists(program: &str) -> bool {
    find(program).is_some()
}

/// Where a program is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", line(command))
}
