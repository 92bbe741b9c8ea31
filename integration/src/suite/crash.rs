//! The enforcer is killed while a container is isolated, and comes back.

pub mod points;
mod step;
mod tracer;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use ringfence_actor::now;
use ringfence_policy::Mitigation;

use super::Part;
use super::context::{Context, address4, cut_at, of};
use super::usage::through;
use crate::cases::Needs;
use crate::enforcer::{Enforcer, finish};
use crate::harness::{Container, cgroup};
use crate::wait;

pub const PART: Part = Part::Table(&[
    ("crash/isolation-and-mitigation-survive", survive),
    ("crash/stop-and-start-without-a-gap", no_gap),
    ("crash/out-of-memory", out_of_memory),
    ("uninstall/keeps-what-is-isolated", keep),
    ("uninstall/leaves-nothing", uninstall),
]);

pub(super) fn beacon(context: &mut Context, mitigation: Mitigation) -> Result<Container> {
    context.enforcer()?;
    let to = format!("{}:{}", context.places.gateway4, context.places.port);
    let flood = ["actor", "flood", "--proto", "udp", "--to", &to, "--lasting", "3600000", "--pause", "300"];
    let spec = context.spec(Needs::Nothing, "RF-501", mitigation, flood);
    let container = context.run(&spec)?;
    context.enforcer()?.container(container.id())?;
    context.sink.wait_for_more(address4(&container)?, 5)?;
    Ok(container)
}

pub(super) fn silent_since(context: &Context, container: &Container, at: u64) -> Result<()> {
    thread::sleep(Duration::from_millis(200));
    let last = context.sink.from(address4(container)?).last;
    ensure!(last <= at, "a packet of {} ns after it arrived", last - at);
    Ok(())
}

fn survive(context: &mut Context) -> Result<()> {
    let isolated = beacon(context, Mitigation::Isolate)?;
    let isolated_later = beacon(context, Mitigation::Isolate)?;
    let terminated_later = beacon(context, Mitigation::Terminate)?;
    let logged_later = beacon(context, Mitigation::Log)?;
    isolated.exec(["cat", "/etc/shadow"])?;
    let first = context.journal.wait_for("the violation", of(&isolated, "RF-501"))?;

    context.take_enforcer()?.crash()?;
    silent_since(context, &isolated, cut_at(&first)).context("isolated before the crash")?;

    let before = now();
    isolated_later.exec(["cat", "/etc/shadow"])?;
    let after = now();
    silent_since(context, &isolated_later, after).context("violated after the crash")?;
    let killed = terminated_later.exec(["cat", "/etc/shadow"])?;
    let terminated_by = now();
    ensure!(killed.status == 137, "the violating process went on: {killed:?}");
    silent_since(context, &terminated_later, terminated_by).context("to be terminated after the crash")?;
    logged_later.exec(["cat", "/etc/shadow"])?;

    // A container that starts while no enforcer runs is not known to anybody; it is after the restart.
    context.enforcer()?;
    silent_since(context, &isolated, cut_at(&first)).context("isolated before the crash, after the restart")?;
    for container in [&isolated, &isolated_later] {
        ensure!(
            context.enforcer()?.container(container.id())?.isolated.is_some(),
            "the new enforcer does not know that it is isolated"
        );
    }
    for (container, what) in [(&isolated_later, "isolated"), (&logged_later, "logged")] {
        let matches = of(container, "RF-501");
        let event =
            context.journal.wait_for(&format!("what happened without an enforcer: {what}"), |event| matches(event))?;
        ensure!((before..=now()).contains(&event.kernel_time_ns), "its time is wrong");
    }
    let event =
        context.journal.wait_for("what happened without an enforcer: terminated", of(&terminated_later, "RF-501"))?;
    ensure!(event.mitigation == Mitigation::Terminate, "asked for {}", event.mitigation);
    ensure!(terminated_later.wait()? == 137, "the rest of the container was not killed after the restart");

    context.enforcer()?.release(isolated.id())?;
    context.sink.wait_for_more(address4(&isolated)?, 5).context("after the release")?;
    isolated.exec(["cat", "/etc/shadow"])?;
    let matches = of(&isolated, "RF-501");
    context.journal.wait_for("a violation after the restart", |event| {
        matches(event) && event.kernel_time_ns > first.kernel_time_ns
    })?;
    Ok(())
}

/// While the enforcer is stopped and started, a container violates without pause: it must be seen each time.
fn no_gap(context: &mut Context) -> Result<()> {
    context.enforcer()?;
    let script =
        "i=0; while [ $i -lt 400 ]; do cat /etc/shadow >/dev/null; i=$((i+1)); sleep 0.005; done; echo done $i";
    let spec = context.spec(Needs::Nothing, "RF-501", Mitigation::Log, ["sh", "-c", script]);
    let container = context.run(&spec)?;
    context.enforcer()?.container(container.id())?;
    context.journal.wait_for("a first violation", of(&container, "RF-501"))?;
    ensure!(context.take_enforcer()?.stop()?.success(), "the enforcer did not end well on SIGTERM");
    thread::sleep(Duration::from_millis(200));
    context.enforcer()?;
    container.wait()?;
    let events = context.journal.wait_for_count("violations around a restart", 400, of(&container, "RF-501"))?;
    ensure!(events.len() == 400, "{} events of 400 violations", events.len());
    Ok(())
}

/// A memory cgroup, with whatever is in it. Dropped, it is removed.
struct Memory {
    name: String,
    directory: PathBuf,
}

impl Memory {
    /// One that grants so many bytes.
    fn limited(bytes: u64) -> Result<Self> {
        let name = format!("rf-suite-memory-{}", std::process::id());
        let made = cgroup::make(&name)?;
        let limits = ["memory.max", "memory.limit_in_bytes"];
        let limit =
            made.iter().flat_map(|directory| limits.map(|file| directory.join(file))).find(|file| file.exists());
        let directory = limit.as_ref().and_then(|file| file.parent()).map(Path::to_owned);
        let memory = Self { name, directory: directory.unwrap_or_default() };
        let limit = limit.context("no hierarchy has the memory controller")?;
        fs::write(&limit, bytes.to_string()).with_context(|| limit.display().to_string())?;
        Ok(memory)
    }

    /// The words that start a program in it, after this script of the shell.
    fn within(&self, first: &str) -> [String; 4] {
        let procs = self.directory.join("cgroup.procs");
        ["sh", "-c", &format!("echo 0 >{} && {first} exec \"$@\"", procs.display()), "sh"].map(str::to_owned)
    }

    /// Processes that were killed for it.
    fn killed(&self) -> Result<u64> {
        let files = ["memory.events", "memory.oom_control"].map(|file| self.directory.join(file));
        let text = files.iter().find_map(|file| fs::read_to_string(file).ok()).context("no word of who was killed")?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).context("oom_kill")?;
        Ok(line.parse()?)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Err(error) = cgroup::remove(&self.name) {
            eprintln!("cgroup {} is left: {error:#}", self.name);
        }
    }
}

/// What the enforcer's cgroup grants is used up, and the kernel kills it: its programs go on, and the next enforcer knows
/// what they did.
fn out_of_memory(context: &mut Context) -> Result<()> {
    const GRANTED: u64 = 256 << 20;
    let before = beacon(context, Mitigation::Isolate)?;
    let later = beacon(context, Mitigation::Isolate)?;
    context.stop_enforcer()?;
    let memory = Memory::limited(GRANTED)?;
    // The one that the kernel chooses first.
    let [shell, arguments @ ..] = memory.within("echo 1000 >/proc/self/oom_score_adj &&");
    let command = through(context, &shell, &arguments.each_ref().map(String::as_str));
    let mut enforcer = Enforcer::launch(command, &context.start.control, &context.journal)?;
    before.exec(["cat", "/etc/shadow"])?;
    let first = context.journal.wait_for("the violation", of(&before, "RF-501"))?;
    ensure!(memory.killed()? == 0, "somebody was killed before");

    // It takes all that is granted.
    let [shell, arguments @ ..] = memory.within("");
    let size = format!("bs={GRANTED}");
    let mut filler = Command::new(shell);
    filler.args(arguments).args(["dd", "if=/dev/zero", "of=/dev/null", &size, "count=1"]);
    finish(&mut filler)?;
    wait::until("the enforcer is killed", || Ok(!enforcer.is_running()?))?;
    ensure!(memory.killed()? > 0, "nobody was killed for want of memory: {}", enforcer.messages());

    silent_since(context, &before, cut_at(&first)).context("isolated before")?;
    later.exec(["cat", "/etc/shadow"])?;
    silent_since(context, &later, now()).context("violated afterwards")?;
    drop((enforcer, memory));
    for container in [&before, &later] {
        let known = context.enforcer()?.container(container.id())?;
        ensure!(known.isolated.is_some(), "the next enforcer does not know that it is isolated");
    }
    context.journal.wait_for("what happened without an enforcer", of(&later, "RF-501"))?;
    context.enforcer()?.release(before.id())?;
    context.sink.wait_for_more(address4(&before)?, 5).context("after the release")?;
    Ok(())
}

fn programs() -> Result<BTreeSet<u32>> {
    loaded_programs().map(|program| Ok(program?.id())).collect()
}

/// Everything goes but what keeps a container cut off; an enforcer that comes back takes it over.
fn keep(context: &mut Context) -> Result<()> {
    let isolated = beacon(context, Mitigation::Isolate)?;
    let other = beacon(context, Mitigation::Isolate)?;
    isolated.exec(["cat", "/etc/shadow"])?;
    let first = context.journal.wait_for("the violation", of(&isolated, "RF-501"))?;
    context.take_enforcer()?.stop()?;
    let with = programs()?.len();
    let output = context.start.uninstall_with(&context.node, &["--isolated", "keep"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.contains("one that is isolated stays so"), "{}: {said}", output.status);
    silent_since(context, &isolated, cut_at(&first))?;
    // Programs are freed after a grace period of the kernel.
    thread::sleep(Duration::from_millis(500));
    ensure!(programs()?.len() + 10 < with, "{} of {with} programs are still loaded", programs()?.len());
    other.exec(["cat", "/etc/shadow"])?;
    context.sink.wait_for_more(address4(&other)?, 5).context("nobody looks at the other one")?;
    context.enforcer()?;
    silent_since(context, &isolated, cut_at(&first)).context("the next enforcer")?;
    ensure!(context.enforcer()?.container(isolated.id())?.isolated.is_some(), "the next enforcer does not know it");
    let seen = context.journal.all(|event| of(&other, "RF-501")(event));
    ensure!(seen.is_empty(), "what nobody looked at was told: {seen:?}");
    other.exec(["cat", "/etc/shadow"])?;
    context.journal.wait_for("a violation after the restart", of(&other, "RF-501"))?;
    Ok(())
}

fn uninstall(context: &mut Context) -> Result<()> {
    // What other programs of the machine have loaded is none of our business.
    context.take_enforcer()?.stop()?;
    ensure!(context.start.uninstall(&context.node)?.status.success(), "a first uninstall failed");
    let without = programs()?;
    let container = beacon(context, Mitigation::Isolate)?;
    container.exec(["cat", "/etc/shadow"])?;
    context.journal.wait_for("the violation", of(&container, "RF-501"))?;
    ensure!(programs()?.difference(&without).count() > 5, "the enforcer has loaded hardly any program");
    context.take_enforcer()?.crash()?;
    let output = context.start.uninstall(&context.node)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "uninstall ended with {}: {said}", output.status);
    // Programs are freed after a grace period of the kernel.
    thread::sleep(Duration::from_millis(500));
    let left: Vec<_> = programs()?.difference(&without).copied().collect();
    ensure!(left.is_empty(), "programs {left:?} are still loaded");
    context.sink.wait_for_more(address4(&container)?, 5).context("traffic after uninstall")?;
    let pins: Vec<_> = fs::read_dir(&context.start.bpffs)?.flatten().map(|entry| entry.path()).collect();
    // What the kernel itself puts into a new bpf file system (kernel/bpf/inode.c, populate_bpffs).
    let ours: Vec<_> = pins.iter().filter(|path| path.extension().is_none_or(|end| end != "debug")).collect();
    ensure!(ours.is_empty(), "still pinned: {ours:?}");
    let again = context.start.uninstall(&context.node)?;
    ensure!(again.status.success(), "uninstall of nothing ended with {}", again.status);
    Ok(())
}
