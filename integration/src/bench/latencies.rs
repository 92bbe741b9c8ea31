//! From the violation to what is done about it, by the kernel's clock.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use ringfence_actor::{STAMP, Stamp, now};
use ringfence_control::Violation;
use ringfence_policy::{Mitigation, RuleId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::results::Results;
use super::worker::{Task, Worker};
use super::{Bench, Rules, as_f64, labelled};

/// Violations whose isolation is timed.
const ISOLATIONS: usize = 2_000;
/// Violations during which packets are sent.
const FLOODS: usize = 300;
/// Violations whose killing is timed.
const KILLS: usize = 500;
/// Containers that are terminated.
const CONTAINERS: usize = 50;
/// Processes in each that sleep, beside the one that violates.
const SLEEPERS: u32 = 10;
/// Room for all packets of one flood.
const ROOM: usize = 64 << 20;
/// A guard against hanging.
const LIMIT: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
const RULE: &str = "RF-501";

/// Every violation of the rule that is to be answered like this.
fn answered(mitigation: Mitigation) -> Result<impl Fn(&Violation) -> bool + Copy> {
    let rule: RuleId = RULE.parse()?;
    Ok(move |event: &Violation| event.rule_id == rule && event.mitigation == mitigation)
}

/// What was timed.
struct Timed {
    title: &'static str,
    mitigation: Mitigation,
    /// Nanoseconds, the shortest first.
    samples: Vec<f64>,
}

impl Timed {
    fn new(title: &'static str, mitigation: Mitigation, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { title, mitigation, samples }
    }

    fn percentile(&self, percent: usize) -> f64 {
        self.samples[(self.samples.len() - 1) * percent / 100]
    }
}

impl Bench {
    /// Time to the isolated bit, to the last packet, to the signal, to the end of the container.
    pub(super) fn latencies(&self, inside: &mut Worker, results: &mut Results) -> Result<String> {
        let mut text = String::from(
            "\n## From the violation to the mitigation\n\n| | repetitions | median | p99 | worst |\n|---|---|---|---|---|\n",
        );
        let (all, after) = self.timed(inside)?;
        for timed in &all {
            results.add("latencies", timed.title, &timed.mitigation.to_string(), "ns", timed.samples.clone());
            let [median, p99, worst] = [50, 99, 100].map(|percent| timed.percentile(percent));
            text += &format!("| {} | {} | {median} ns | {p99} ns | {worst} ns |\n", timed.title, timed.samples.len());
        }
        let [isolated, _, _, ended] = &all;
        results.targets.at_most("violation to isolated, median", 5_000.0, isolated.percentile(50), "ns");
        results.targets.at_most("violation to isolated, p99", 50_000.0, isolated.percentile(99), "ns");
        let title = "violation to all of a container killed, median";
        results.targets.at_most(title, 5_000_000.0, ended.percentile(50), "ns");
        text += &format!(
            "\n{RULE}, open of /etc/shadow; by the kernel's clock, from the beginning of the hook's run. Isolated bit, \
             process stopped (killed, or on tier `lsm` denied): as the kernel tells with the violation; the isolation is \
             lifted after each. Last packet: a second thread of the container sends packets to the node as fast as it can, \
             each with the sender's clock; below zero, that one was sent before the violation. Of {FLOODS}, {after} were \
             sent between the beginning of the hook's run and the isolated bit, and none later. Container: {SLEEPERS} \
             processes that sleep and the one that violates, until the last of them has ended, as somebody sees who waits \
             for all.\n"
        );
        Ok(text)
    }

    /// The same on a kernel that is emulated: rows of a table, in multiples of `unit` nanoseconds.
    pub(super) fn latency_ratios(&self, inside: &mut Worker, unit: f64) -> Result<String> {
        let tier = self.tiers.get("open").context("the class has no tier")?;
        let (all, _) = self.timed(inside)?;
        let row = |timed: &Timed| {
            let [median, p99] = [50, 99].map(|percent| timed.percentile(percent) / unit);
            let (title, count) = (timed.title, timed.samples.len());
            format!("| {} | {tier} | {title} | {count} | {median:.2} | {p99:.2} |\n", self.strongest)
        };
        Ok(all.iter().map(row).collect())
    }

    /// Each, and how many last packets were sent after the violation.
    fn timed(&self, inside: &mut Worker) -> Result<([Timed; 4], usize)> {
        let isolated = self.in_the_kernel(inside, Mitigation::Isolate, Task::Violate, ISOLATIONS)?;
        let (last, after) = self.last_packets(inside)?;
        let killed = self.in_the_kernel(inside, Mitigation::Block, Task::ViolateInChild, KILLS)?;
        let all = [
            Timed::new("isolated bit set", Mitigation::Isolate, isolated),
            Timed::new("last packet sent that arrives", Mitigation::Isolate, last),
            Timed::new("process stopped", Mitigation::Block, killed),
            Timed::new("whole container ended", Mitigation::Terminate, self.containers()?),
        ];
        Ok((all, after))
    }

    /// Nanoseconds that the kernel tells with each violation.
    fn in_the_kernel(&self, inside: &mut Worker, by: Mitigation, task: Task, count: usize) -> Result<Vec<f64>> {
        eprintln!("latency: {by}");
        let count = self.repetitions(count);
        let enforcer = self.start(Rules::One(RULE), by)?;
        let ours = answered(by)?;
        let mut latencies = Vec::with_capacity(count);
        let mut last = now();
        while latencies.len() < count {
            inside.run(task, 1)?;
            let event = self.journal.wait_for("the violation", |event| ours(event) && event.kernel_time_ns > last)?;
            last = event.kernel_time_ns;
            latencies.push(as_f64(event.latency_ns.context("an event without a latency")?));
            if by == Mitigation::Isolate {
                enforcer.release(&self.cgroups.governed_name())?;
            }
        }
        self.remove(enforcer)?;
        Ok(latencies)
    }

    /// How often where everything takes longer.
    fn repetitions(&self, count: usize) -> usize {
        count / usize::try_from(self.effort.less).unwrap_or(count)
    }

    /// Nanoseconds from each violation to the clock of the last packet that arrived, and of how many of these it was not
    /// before the violation.
    fn last_packets(&self, inside: &mut Worker) -> Result<(Vec<f64>, usize)> {
        eprintln!("latency: last packet");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        setsockopt(&socket, sockopt::RcvBufForce, &ROOM)?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        let enforcer = self.start(Rules::One(RULE), Mitigation::Isolate)?;
        let ours = answered(Mitigation::Isolate)?;
        let count = self.repetitions(FLOODS);
        let mut times = Vec::with_capacity(count);
        let (mut last, mut after) = (now(), 0);
        while times.len() < count {
            inside.violate_while_sending(port)?;
            let event = self.journal.wait_for("the violation", |event| ours(event) && event.kernel_time_ns > last)?;
            last = event.kernel_time_ns;
            let stamp = drain(&socket)?;
            let isolated = last + event.latency_ns.context("an event without a latency")?;
            ensure!(stamp.at <= isolated, "a packet was sent {} ns after the isolation", stamp.at - isolated);
            after += usize::from(stamp.at > last);
            times.push(if stamp.at > last { as_f64(stamp.at - last) } else { -as_f64(last - stamp.at) });
            enforcer.release(&self.cgroups.governed_name())?;
        }
        self.remove(enforcer)?;
        Ok((times, after))
    }

    /// Nanoseconds from the violation to the end of the last process of each container.
    fn containers(&self) -> Result<Vec<f64>> {
        eprintln!("latency: whole container");
        let count = self.repetitions(CONTAINERS);
        let containers = self.cgroups.further(count)?;
        let mut workers =
            containers.directories().map(|directory| Worker::start(&directory)).collect::<Result<Vec<_>>>()?;
        for worker in &mut workers {
            worker.run(Task::Sleeper, SLEEPERS)?;
        }
        let governed = |path| ["--cgroup".to_owned(), labelled(path, Rules::One(RULE), Mitigation::Terminate)];
        let options: Vec<_> = containers.paths().flat_map(governed).collect();
        let enforcer = self.start_with(Rules::One(RULE), Mitigation::Terminate, &options)?;
        let ours = answered(Mitigation::Terminate)?;
        let mut times = Vec::with_capacity(count);
        let mut last = now();
        for (directory, worker) in containers.directories().zip(&mut workers) {
            let processes = fs::read_to_string(directory.join("cgroup.procs"))?;
            let handles = processes.lines().map(handle).collect::<Result<Vec<_>>>()?;
            ensure!(handles.len() > usize::try_from(SLEEPERS)?, "only {} processes", handles.len());
            worker.violate()?;
            for handle in &handles {
                let ended = poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&LIMIT))?;
                ensure!(ended == 1, "a process does not end");
            }
            let ended = now();
            let event = self.journal.wait_for("the violation", |event| ours(event) && event.kernel_time_ns > last)?;
            last = event.kernel_time_ns;
            let left = fs::read_to_string(directory.join("cgroup.procs"))?;
            ensure!(left.is_empty(), "processes live on: {left}");
            times.push(as_f64(ended - last));
        }
        self.remove(enforcer)?;
        Ok(times)
    }
}

/// A process, for who waits for its end.
fn handle(pid: &str) -> Result<OwnedFd> {
    let pid = Pid::from_raw(pid.parse()?).context("a process of another pid namespace")?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Takes all packets of one sender; the last one's stamp. Up to that one, none may be missing.
fn drain(socket: &UdpSocket) -> Result<Stamp> {
    let mut bytes = [0; STAMP];
    let mut last = None;
    while let Ok(length) = socket.recv(&mut bytes) {
        let stamp = Stamp::from_bytes(&bytes[..length]).context("a packet without a stamp")?;
        let expected = last.map_or(0, |last: Stamp| last.number + 1);
        ensure!(stamp.number == expected, "packet {} came where {expected} was expected", stamp.number);
        last = Some(stamp);
    }
    last.context("no packet arrived")
}
