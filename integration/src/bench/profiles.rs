//! Where the time goes, as `perf` samples it: what stands behind numbers that miss their target.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence_policy::Mitigation;

use super::worker::Task;
use super::{Bench, Rules, Workers, as_f64, rest, workloads};

/// Samples of each processor a second: no divisor of the timer's.
const FREQUENCY: u64 = 4_999;
/// How often each operation is done that is profiled: some seconds.
const OPENS: u32 = 3_000_000;
const CONNECTS: u32 = 200_000;
const EXECS: u32 = 40_000;
/// Samples of requests to the web server.
const SERVINGS: usize = 8;
/// Violations of theirs, more than can be written.
const VIOLATIONS: u32 = 1_000_000;
/// Rows with less than one sample in so many are summed up.
const ONE_IN: usize = 66;
/// The same where each of many takes little.
const ONE_IN_MANY: usize = 400;

/// Names of programs in chains begin so, with a tag of 16 digits and a line behind it.
const PROGRAM: &str = "bpf_prog_";
const TAG: usize = 17;
/// The program that a started program costs.
const EXEC: &str = "sched_process_exec";

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
    /// Of what misses its target: operations, a start, and a flood of violations.
    pub(super) fn profiles(&self, workers: &mut Workers) -> Result<String> {
        eprintln!("profiles");
        let mut text = format!(
            "\n## Profiles\n\nBy `perf record -e cpu-clock`, {FREQUENCY} samples a second and processor: shares of the \
             process's own samples, where nothing else is said. What it waits for is in none.\n"
        );
        // It is an ordinary process of its cgroup when an enforcer comes.
        let server = workloads::web_server(&self.directory, &mut workers.inside)?;
        let enforcer = self.start(Rules::All, Mitigation::Log)?;
        for (task, repetitions, governed, one_in) in [
            (Task::Open, OPENS, true, ONE_IN),
            (Task::Open, OPENS, false, ONE_IN),
            (Task::Connect, CONNECTS, false, ONE_IN_MANY),
        ] {
            let worker = if governed { &mut workers.inside } else { &mut workers.outside };
            let (script, _) = self.record(|| worker.run(task, repetitions))?;
            let title = format!("{}, {}, all rules", task.title(), if governed { "governed" } else { "not governed" });
            text += &table(&title, one_in, &chains(&script, |process| process == worker.pid()), in_operation);
        }
        let (script, _) = self.record(|| workers.inside.run(Task::Exec, EXECS))?;
        let mut of_program = chains(&script, is_no_idling);
        of_program.retain(|chain| last_entered(chain).is_some_and(|program| program == EXEC));
        let title = format!("Program `{EXEC}` at the start of programs, governed, all rules: samples of it alone");
        text += &table(&title, ONE_IN, &of_program, in_operation);

        let (script, ()) = self.record(|| (0..SERVINGS).try_for_each(|_| server.sample(workers).map(drop)))?;
        let title = format!("{}, all rules: samples of all processes", server.title());
        text += &table(&title, ONE_IN_MANY, &chains(&script, is_no_idling), in_request);
        drop(server);
        self.remove(enforcer)?;

        let (script, enforcer) = self.record(|| self.start(Rules::All, Mitigation::Log))?;
        let of_enforcer = chains(&script, |process| process == enforcer.pid());
        text += &table("Start with all rules, until it answers", ONE_IN, &of_enforcer, in_start);
        self.remove(enforcer)?;

        let log = self.directory.join("violations.json");
        let options = ["--log-file".to_owned(), log.display().to_string()];
        let enforcer = self.start_with(Rules::One("RF-501"), Mitigation::Log, &options)?;
        let (script, _) = self.record(|| workers.inside.run(Task::Violate, VIOLATIONS))?;
        let of_enforcer = chains(&script, |process| process == enforcer.pid());
        text += &table("Flood of violations of RF-501 (`log`)", ONE_IN, &of_enforcer, in_flood);
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

/// The chains of the samples of these processes.
fn chains(script: &str, is_meant: impl Fn(u32) -> bool) -> Vec<Chain<'_>> {
    let mut found = Vec::new();
    for sample in script.split("\n\n") {
        let mut lines = sample.trim_matches('\n').lines();
        if !lines.next().and_then(|line| line.trim().parse().ok()).is_some_and(&is_meant) {
            continue;
        }
        // An address, and the name of the function that it is in.
        found.push(lines.filter_map(|line| Some(line.trim().split_once(' ')?.1)).collect());
    }
    found
}

/// Whether a sample of this process is not a processor's with nothing to do.
const fn is_no_idling(process: u32) -> bool {
    process != 0
}

/// A function, or a program, or a function of one, by its own name.
fn function(name: &str) -> &str {
    name.strip_prefix(PROGRAM).map_or(name, |rest| &rest[TAG.min(rest.len())..])
}

/// The program that was entered last.
fn last_entered<'a>(chain: &Chain<'a>) -> Option<&'a str> {
    chain.iter().rev().find(|name| name.starts_with(PROGRAM)).map(|name| function(name))
}

/// The program that was entered last, and below it the function that is at work.
fn in_operation(chain: &Chain) -> String {
    match last_entered(chain) {
        Some(program) => format!("`{program}`: {}", chain.first().map_or("?", |name| function(name))),
        None => outside_programs(chain).to_owned(),
    }
}

/// The same by whole programs.
fn in_request(chain: &Chain) -> String {
    last_entered(chain).map_or_else(|| outside_programs(chain).to_owned(), |program| format!("`{program}`"))
}

fn outside_programs(chain: &Chain) -> &'static str {
    if chain.iter().any(|name| name.contains("syscall_trace") || name.contains("perf_syscall")) {
        "tracepoints of system calls, without programs"
    } else {
        "the operation itself: kernel and processes"
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

/// How many samples are of each kind; those with less than one in so many together.
fn table(title: &str, one_in: usize, chains: &[Chain], kind: impl Fn(&Chain) -> String) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for chain in chains {
        *kinds.entry(kind(chain)).or_default() += 1;
    }
    let mut rows: Vec<_> = kinds.into_iter().collect();
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown = rows.iter().filter(|(_, count)| count * one_in >= chains.len()).count();
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
        let chains_of = |wanted| chains(SCRIPT, move |process| process == wanted);
        assert_eq!(chains_of(41).iter().map(in_operation).collect::<Vec<_>>(), ["`exit_open`: htab_map_hash"]);
        assert_eq!(chains_of(41).iter().map(in_request).collect::<Vec<_>>(), ["`exit_open`"]);
        assert_eq!(
            chains_of(42).iter().map(in_request).collect::<Vec<_>>(),
            ["the operation itself: kernel and processes"]
        );
        assert_eq!(chains_of(42).iter().map(in_flood).collect::<Vec<_>>(), ["read(2)"]);
        assert_eq!(chains_of(41).iter().map(in_start).collect::<Vec<_>>(), ["other system calls"]);
        assert_eq!(chains(SCRIPT, is_no_idling).len(), 2);
        assert!(chains_of(4).is_empty());
    }

    #[test]
    fn rare_kinds_are_summed_up() {
        let chains: Vec<_> = (0..100).map(|n| vec![if n == 0 { "b" } else { "a" }]).collect();
        let text = table("x", 66, &chains, |chain| chain[0].to_owned());
        assert_eq!(text, "\n| x (100 samples) | |\n|---|---|\n| a | 99.0 % |\n| else | 1.0 % |\n");
    }
}
