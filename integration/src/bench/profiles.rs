//! Where the time goes, as `perf` samples it: what stands behind numbers that miss their target.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence_policy::Mitigation;

use super::worker::{Task, Worker};
use super::{Bench, Rules, as_f64, rest};

/// Samples of each processor a second: no divisor of the timer's.
const FREQUENCY: u64 = 4_999;
/// Opens of the profile of those: some seconds.
const OPENS: u32 = 3_000_000;
/// Violations of theirs, more than can be written.
const VIOLATIONS: u32 = 1_000_000;
/// Rows with less than one sample in so many are summed up.
const ONE_IN: usize = 66;

/// Names of programs in chains begin so, with a tag of 16 digits and a line behind it.
const PROGRAM: &str = "bpf_prog_";
const TAG: usize = 17;

/// What a start consists of: whoever is called by one of these, the first that is in the chain.
const STEPS: [(&str, &str); 9] = [
    ("bpf_check", "verifier"),
    ("bpf_prog_load", "loading of programs, besides"),
    ("map_create", "making maps"),
    ("__sys_bpf", "bpf(2), besides"),
    ("perf_event_open", "attaching to tracepoints"),
    ("perf_ioctl", "attaching to tracepoints"),
    ("execve", "start of the program"),
    ("exc_page_fault", "page faults"),
    ("do_syscall_64", "other system calls"),
];

/// A running `perf record`. Dropped, it is killed.
struct Recording {
    perf: Child,
    file: PathBuf,
}

/// What a processor was found at: the functions, innermost first.
type Chain<'a> = Vec<&'a str>;

impl Bench {
    /// Three profiles: of opens, of a start, and of a flood of violations.
    pub(super) fn profiles(&self, inside: &mut Worker) -> Result<String> {
        eprintln!("profiles");
        let mut text = format!(
            "\n## Profiles\n\nBy `perf record -e cpu-clock`, {FREQUENCY} samples a second and processor: shares of the \
             process's own samples. What it waits for is in none.\n"
        );
        let enforcer = self.start(Rules::All, Mitigation::Log)?;
        let (script, ()) = self.record(|| inside.run(Task::Open, OPENS).map(drop))?;
        self.remove(enforcer)?;
        text += &table("Open and close of a small file, governed, all rules", &chains(&script, inside.pid()), in_open);

        let (script, enforcer) = self.record(|| self.start(Rules::All, Mitigation::Log))?;
        text += &table("Start with all rules, until it answers", &chains(&script, enforcer.pid()), in_start);
        self.remove(enforcer)?;

        let log = self.directory.join("violations.json");
        let options = ["--log-file".to_owned(), log.display().to_string()];
        let enforcer = self.start_with(Rules::One("RF-501"), Mitigation::Log, &options)?;
        let (script, ()) = self.record(|| inside.run(Task::Violate, VIOLATIONS).map(drop))?;
        text += &table("Flood of violations of RF-501 (`log`)", &chains(&script, enforcer.pid()), in_flood);
        self.remove(enforcer)?;
        Ok(text)
    }

    /// What `perf script` tells of the time that something takes, on a machine that is at rest otherwise.
    fn record<T>(&self, during: impl FnOnce() -> Result<T>) -> Result<(String, T)> {
        rest::wait()?;
        let recording = Recording::start(self.directory.join("perf.data"))?;
        let done = during()?;
        Ok((recording.finish()?, done))
    }
}

impl Recording {
    fn start(file: PathBuf) -> Result<Self> {
        let mut command = Command::new("perf");
        command.args(["record", "--quiet", "--all-cpus", "--event", "cpu-clock", "--call-graph", "fp"]);
        command.arg("--freq").arg(FREQUENCY.to_string()).arg("--output").arg(&file).stdin(Stdio::null());
        let perf = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => anyhow::anyhow!("perf is not installed (Debian's package linux-perf)"),
            _ => error.into(),
        })?;
        Ok(Self { perf, file })
    }

    fn finish(mut self) -> Result<String> {
        kill(Pid::from_raw(self.perf.id().try_into()?), Signal::SIGINT)?;
        self.perf.wait()?;
        let mut script = Command::new("perf");
        script.args(["script", "--no-inline", "--fields", "pid,ip,sym", "--input"]).arg(&self.file);
        let output = script.output()?;
        ensure!(output.status.success(), "perf script: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.perf.kill();
        let _ = self.perf.wait();
    }
}

/// The chains of a process's samples.
fn chains(script: &str, process: u32) -> Vec<Chain<'_>> {
    let mut found = Vec::new();
    for sample in script.split("\n\n") {
        let mut lines = sample.trim_matches('\n').lines();
        let whose = lines.next().and_then(|line| line.trim().parse().ok());
        if whose != Some(process) {
            continue;
        }
        // An address, and the name of the function that it is in.
        found.push(lines.filter_map(|line| Some(line.trim().split_once(' ')?.1)).collect());
    }
    found
}

/// The program that was entered last, and below it the function that is at work.
fn in_open(chain: &Chain) -> String {
    let function = |name: &str| name.strip_prefix(PROGRAM).map_or(name, |rest| &rest[TAG.min(rest.len())..]).to_owned();
    let leaf = chain.first().map_or("?".to_owned(), |name| function(name));
    match chain.iter().rev().find(|name| name.starts_with(PROGRAM)) {
        Some(program) => format!("`{}`: {leaf}", function(program)),
        None if chain.iter().any(|name| name.contains("syscall_trace") || name.contains("perf_syscall")) => {
            "tracepoints of system calls, without programs".to_owned()
        }
        None => "the kernel's open and close, and the worker".to_owned(),
    }
}

fn in_start(chain: &Chain) -> String {
    let step = STEPS.iter().find(|(function, _)| chain.iter().any(|name| name.contains(function)));
    step.map_or("the enforcer's own code", |(_, step)| step).to_owned()
}

/// The system call, or the enforcer's own function.
fn in_flood(chain: &Chain) -> String {
    let call = chain.iter().find_map(|name| name.split_once("_sys_").filter(|(before, _)| before.starts_with("__")));
    match (call, chain.first()) {
        (Some((_, call)), _) => format!("{call}(2)"),
        (None, Some(leaf)) => format!("`{leaf}`"),
        (None, None) => "?".to_owned(),
    }
}

/// How many samples are of each kind.
fn table(title: &str, chains: &[Chain], kind: impl Fn(&Chain) -> String) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for chain in chains {
        *kinds.entry(kind(chain)).or_default() += 1;
    }
    let mut rows: Vec<_> = kinds.into_iter().collect();
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown = rows.iter().filter(|(_, count)| count * ONE_IN >= chains.len()).count();
    let rest: usize = rows.drain(shown..).map(|(_, count)| count).sum();
    rows.push(("else".to_owned(), rest));
    let percent = |count: usize| as_f64(count as u64) / as_f64(chains.len() as u64) * 100.0;
    let mut text = format!("\n| {title} ({} samples) | |\n|---|---|\n", chains.len());
    for (kind, count) in rows {
        text += &format!("| {kind} | {:.1} % |\n", percent(count));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "   41 \n\tffffffff81 htab_map_hash\n\tffffffffc0 bpf_prog_0123456789abcdef_rf_walk\n\
                          \tffffffffc1 bpf_prog_fedcba9876543210_exit_open\n\tffffffff82 do_syscall_64\n\n   \
                          42 \n\tffffffff83 memset\n\tffffffff84 ksys_read\n\tffffffff85 __x64_sys_read\n\n";

    #[test]
    fn samples_are_of_a_process_and_named_by_what_it_does() {
        assert_eq!(chains(SCRIPT, 41).iter().map(in_open).collect::<Vec<_>>(), ["`exit_open`: htab_map_hash"]);
        assert_eq!(chains(SCRIPT, 42).iter().map(in_flood).collect::<Vec<_>>(), ["read(2)"]);
        assert_eq!(chains(SCRIPT, 41).iter().map(in_start).collect::<Vec<_>>(), ["other system calls"]);
        assert!(chains(SCRIPT, 4).is_empty());
    }

    #[test]
    fn rare_kinds_are_summed_up() {
        let chains: Vec<_> = (0..100).map(|n| vec![if n == 0 { "b" } else { "a" }]).collect();
        let text = table("x", &chains, |chain| chain[0].to_owned());
        assert_eq!(text, "\n| x (100 samples) | |\n|---|---|\n| a | 99.0 % |\n| else | 1.0 % |\n");
    }
}
