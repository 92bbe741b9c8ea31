//! What is proven in a VM: kernels that let us load what this machine's own refuses, above all the `lsm` tier.
//!
//! There is no containerd: nearly all containers are bare ones, for speed, and the enforcer is told their cgroups.

mod batch;
mod clock;
mod compat;
mod coverage;
mod escapes;
mod lockdown;
mod runc;
mod smoke;
mod untraced;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use ringfence_actor::now;
use ringfence_containers::cgroups::{Hierarchies, Mode};
use ringfence_control::{Done, Tier, Violation};
use ringfence_policy::{Catalogue, Mitigation};

use self::batch::Batch;
use self::runc::Bundles;
use crate::bare::{Bare, Layer};
use crate::cases::{self, Act, Case, Needs, Places, act};
use crate::enforcer::{Enforcer, finish};
use crate::journal::Journal;
use crate::rulesets::{self, MITIGATION, RULE};
use crate::suite::{Programs, Report};

/// How a VM mounts cgroups.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Cgroups {
    /// v2 alone.
    V2,
    /// v1 controllers with a v2 hierarchy beside them.
    Hybrid,
    /// v1 alone.
    V1,
}

impl From<Cgroups> for Mode {
    fn from(cgroups: Cgroups) -> Self {
        match cgroups {
            Cgroups::V2 => Self::Unified,
            Cgroups::Hybrid => Self::Hybrid,
            Cgroups::V1 => Self::Legacy,
        }
    }
}

/// How much of the tests runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Extent {
    /// Everything.
    Full,
    /// Of each rule one behaviour and one near miss, without evasions, on the strongest tier and the weakest.
    Brief,
    /// Every operation once, and every mitigation.
    Smoke,
}

/// Classes of events that the `lsm` tier denies.
const DENIED: [&str; 3] = ["exec", "open", "network"];

/// Cloud metadata service contacted. Its behaviours cannot tell whether they were denied: that nobody answers is no
/// failure to them.
const METADATA: &str = "RF-510";

/// Rules whose behaviours are tried on the weaker tiers too: of classes that the `lsm` tier denies.
const EVERY_TIER: [&str; 3] = ["RF-314", "RF-501", STARTED];

/// Of those, the one about executions: only the `lsm` tier judges these otherwise than the `tracepoint` tier.
const STARTED: &str = "RF-901";

/// What is done after an act, and the rule that it violates: its event comes after everything that the act caused. For
/// events that the kernel decides, and for candidates, which come another way.
const AFTERWARDS: [(&str, Act); 2] = [
    ("RF-501", act("afterwards", "cat /etc/shadow")),
    ("RF-802", act("afterwards", "actor nothing {longer} -o stratum+tcp://pool.example:3333")),
];

/// Places that only a container network has.
const ON_THE_NETWORK: [&str; 4] = ["{peer", "{gateway", "{port}", "{mac}"];

/// What a shell says of a process that SIGKILL ended.
const KILLED_EXIT: i32 = 128 + 9;

/// Everything a VM's tests share.
struct Machine {
    /// The strongest tier that the enforcer may use.
    strongest: Tier,
    enforcer: Enforcer,
    journal: Journal,
    log: Bare,
    /// Logs as well, and nothing has been changed in it yet.
    control: Bare,
    block: HashMap<&'static str, Bare>,
    /// The same for what coverage claims: nothing else is done there, so that what is left over is its own.
    claimed: HashMap<&'static str, Bare>,
    /// Of one rule, [`smoke::RULE`].
    isolate: Bare,
    terminate: Bare,
    /// The same, made by a runtime.
    bundles: Bundles,
    places: Places,
    /// The enforcer with its arguments, for another start.
    command: Vec<OsString>,
    socket: PathBuf,
}

/// Runs the tests whose names hold `filter`.
pub fn run(programs: &Programs, filter: &str, extent: Extent, cgroups: Cgroups) -> Result<ExitCode> {
    if extent == Extent::Smoke {
        return smoke::run(programs, filter, cgroups);
    }
    let most = if extent == Extent::Brief { 1 } else { usize::MAX };
    let mut report = Report::new(filter);
    report.check("vm/cgroups", || layout(cgroups));
    let at_an_end = extent == Extent::Full && is_oldest_or_newest()?;
    if at_an_end {
        // First: once 5.10 has had trampolines, it does not let them be turned off any more.
        untraced::at_the_start(programs, &mut report)?;
    }
    let machine = Machine::start(programs, Tier::Lsm)?;
    report.check("vm/tier", || machine.tier());
    runc::run(&machine, &mut report);
    for case in suitable() {
        machine.rule(case, most, &mut report)?;
    }
    machine.past_tracepoints(&mut report)?;
    compat::control(&machine, &mut report);
    compat::run(&machine, &mut report);
    escapes::run(&machine, &mut report);
    report.check("vm/RF-510/connect", || machine.metadata());
    if extent == Extent::Full {
        coverage::control(&machine, &coverage::all(), &mut report);
        coverage::run(&machine, &mut report)?;
    }
    untraced::turned_off(&machine, &mut report);
    clock::run(&machine, &mut report);
    // Whether or not it is asked for: the next one is not to find its programs at work.
    let uninstalled = machine.uninstall(programs);
    report.check("vm/uninstall", || uninstalled);
    // How cgroups are mounted does not matter to the tiers between: they find a process's cgroup by the same code.
    let weaker_ones =
        if extent == Extent::Full { &[Tier::Fentry, Tier::Kprobe, Tier::Tracepoint][..] } else { &[Tier::Tracepoint] };
    for strongest in weaker_ones {
        weaker(programs, *strongest, most, &mut report)?;
    }
    if at_an_end {
        // Last: it can't be taken back.
        lockdown::run(programs, &mut report)?;
    }
    Ok(report.finish())
}

fn layout(cgroups: Cgroups) -> Result<()> {
    let (found, expected) = (Hierarchies::detect()?.mode(), Mode::from(cgroups));
    ensure!(found == expected, "{found:?}, not {expected:?}");
    Ok(())
}

fn kernel_is_older_than(major: u32, minor: u32) -> Result<bool> {
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    Ok((numbers.next(), numbers.next()) < (Some(major), Some(minor)))
}

/// Debian's 5.10, or one later than 6.12: each start of an enforcer takes half a minute here, and what decides whether it
/// may start at all is tried at both ends.
fn is_oldest_or_newest() -> Result<bool> {
    Ok(kernel_is_older_than(6, 0)? || !kernel_is_older_than(6, 13)?)
}

fn said(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).trim().to_owned());
    format!("{}, and it said {out:?}, {error:?}", output.status)
}

/// The part that is tried with no stronger tier than this; of each rule, at most so many behaviours.
fn weaker(programs: &Programs, strongest: Tier, most: usize, report: &mut Report) -> Result<()> {
    let name = format!("vm/{strongest}/tier");
    if strongest == Tier::Kprobe && kernel_is_older_than(5, 15)? {
        report.skip(&name, "before 5.15 a kprobe ends with the enforcer: this kernel has no kprobe tier");
        return Ok(());
    }
    let mut machine = Machine::start(programs, strongest)?;
    report.check(&name, || machine.is_on(strongest));
    machine.blocks_on_every_tier(strongest.name(), most, report);
    machine.past_tracepoints(report)?;
    compat::run(&machine, report);
    if strongest == Tier::Tracepoint {
        escapes::run(&machine, report);
    }
    if most > 1 {
        coverage::run(&machine, report)?;
    }
    report.check(&format!("vm/{strongest}/outlives"), || machine.outlives());
    let uninstalled = machine.uninstall(programs);
    report.check(&format!("vm/{strongest}/uninstall"), || uninstalled);
    Ok(())
}

/// What needs no privileges, no network and no terminal.
fn suitable() -> impl Iterator<Item = &'static Case> {
    cases::all().filter(|case| case.needs == Needs::Nothing && case.behaviours.iter().any(suits))
}

fn suits(act: &Act) -> bool {
    let on_the_network = ON_THE_NETWORK.iter().any(|place| act.command.contains(place));
    !act.tty && !on_the_network && !act.command.contains("actor connect ")
}

fn acts(case: &Case) -> impl Iterator<Item = &Act> {
    case.behaviours.iter().chain(case.evasions).filter(|act| suits(act))
}

impl Machine {
    fn start(programs: &Programs, strongest: Tier) -> Result<Self> {
        Self::start_as(strongest.name(), programs, strongest)
    }

    /// What is its own has this name.
    fn start_as(own: &str, programs: &Programs, strongest: Tier) -> Result<Self> {
        let tier = strongest.name();
        let directory = PathBuf::from("/tmp/vm-suite").join(own);
        let directory = directory.as_path();
        fs::create_dir_all(directory)?;
        let layer = Layer::write(directory.join("layer"), Path::new("/bin/busybox"), &programs.actor)?;
        let rulesets = directory.join("rulesets");
        rulesets::write(&rulesets, Catalogue::builtin())?;
        let mut command = Command::new(&programs.enforcer);
        command.arg("--standalone").arg("--rulesets").arg(&rulesets).arg("--check").arg("--tier").arg(tier);
        let mut govern = |name: &str, rule: &str, mitigation: Mitigation| -> Result<Bare> {
            let name = format!("{own}-{name}");
            let bare = Bare::new(&layer, directory, &name)?;
            command.arg("--cgroup").arg(format!("/{name}:{RULE}={rule},{MITIGATION}={mitigation}"));
            Ok(bare)
        };
        let log = govern("log", "all", Mitigation::Log)?;
        let isolate = govern("isolate", smoke::RULE, Mitigation::Isolate)?;
        let terminate = govern("terminate", smoke::RULE, Mitigation::Terminate)?;
        let control = govern("control", "all", Mitigation::Log)?;
        let (mut block, mut claimed) = (HashMap::new(), HashMap::new());
        for rule in cases::all().map(|case| case.rule).collect::<BTreeSet<_>>() {
            block.insert(rule, govern(&format!("block-{rule}"), rule, Mitigation::Block)?);
            claimed.insert(rule, govern(&format!("claimed-{rule}"), rule, Mitigation::Block)?);
        }
        let bundles = Bundles::new(directory, govern)?;
        let socket = directory.join("enforcer.sock");
        command.arg("--socket").arg(&socket).arg("--state").arg(directory.join("state"));
        let words = [command.get_program()].into_iter().chain(command.get_args()).map(OsString::from).collect();
        let journal = Journal::default();
        let enforcer = Enforcer::launch(command, &socket, &journal)?;
        let places = Places { gateway4: String::new(), gateway6: String::new(), mac: String::new(), port: 0 };
        Ok(Self {
            strongest,
            enforcer,
            journal,
            log,
            control,
            block,
            claimed,
            isolate,
            terminate,
            bundles,
            places,
            command: words,
            socket,
        })
    }

    /// Starts the enforcer again, which has ended.
    fn launch(&mut self) -> Result<()> {
        let (program, arguments) = self.command.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(arguments);
        self.enforcer = Enforcer::launch(command, &self.socket, &self.journal)?;
        Ok(())
    }

    /// On a kernel with BPF LSM, these classes are denied.
    fn tier(&self) -> Result<()> {
        let lsm = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
        ensure!(lsm.split(',').any(|name| name.trim() == "bpf"), "this VM has no BPF LSM: {lsm}");
        for class in self.enforcer.status()?.classes {
            if DENIED.contains(&class.class.as_str()) {
                ensure!(class.tier == Some(Tier::Lsm), "class {} is on tier {:?}", class.class, class.tier);
            }
        }
        Ok(())
    }

    /// What is opened and connected to is seen on this tier, and nothing on a stronger one.
    fn is_on(&self, tier: Tier) -> Result<()> {
        for class in self.enforcer.status()?.classes {
            let right = match class.class.as_str() {
                "open" | "network" => class.tier == Some(tier),
                _ => class.tier <= Some(tier),
            };
            ensure!(right, "class {} is on tier {:?}", class.class, class.tier);
        }
        Ok(())
    }

    /// All that is tried of a rule: at most so many of each kind.
    fn rule(&self, case: &Case, most: usize, report: &mut Report) -> Result<()> {
        let mut batch = Batch::new(self);
        for act in acts(case).take(most) {
            let name = format!("vm/{}/log/{}", case.rule, act.name);
            // Refused with EOPNOTSUPP on 6.1; overlayfs got it in 6.3.
            if act.name == "tmpfile" && kernel_is_older_than(6, 3)? {
                report.skip(&name, "this kernel's overlayfs has no O_TMPFILE");
                continue;
            }
            batch.logged(report, name, case, act);
        }
        for act in case.behaviours.iter().filter(|act| suits(act)).take(most) {
            batch.blocked(report, format!("vm/{}/block/{}", case.rule, act.name), case, act);
        }
        for act in case.near_misses.iter().filter(|act| suits(act)).take(most) {
            batch.let_pass(report, format!("vm/{}/near/{}", case.rule, act.name), case, act);
        }
        batch.judge(report);
        Ok(())
    }

    /// What is tried on every tier: of each rule, at most so many behaviours.
    fn blocks_on_every_tier(&self, place: &str, most: usize, report: &mut Report) {
        let mut batch = Batch::new(self);
        for case in suitable().filter(|case| EVERY_TIER.contains(&case.rule)) {
            for act in case.behaviours.iter().filter(|act| suits(act)).take(most) {
                let name = format!("vm/{place}/{}/block/{}", case.rule, act.name);
                batch.blocked(report, name, case, act);
            }
        }
        batch.judge(report);
    }

    /// Killed, the enforcer leaves its programs at work: a file that is opened, and a name that is linked.
    fn outlives(&mut self) -> Result<()> {
        self.enforcer.kill()?;
        self.outlived()
    }

    /// What the enforcer has left at work.
    fn outlived(&self) -> Result<()> {
        let bare = self.block.get("RF-501").context("there is a container for each case")?;
        for command in ["cat /etc/shadow", "ln /etc/shadow /etc/also-shadow"] {
            let output = bare.run(&act("outlives", command).arguments(&self.places))?;
            ensure!(!output.status.success(), "{command} succeeded");
            let said = String::from_utf8_lossy(&output.stderr);
            let killed = output.status.signal() == Some(9) || output.status.code() == Some(KILLED_EXIT);
            ensure!(killed != (self.strongest == Tier::Lsm), "{command} ended with {}: {said}", output.status);
        }
        Ok(())
    }

    /// Waits until all events so far have come out.
    fn everything_is_told(&self) -> Result<()> {
        let to = now();
        for (rule, last) in AFTERWARDS {
            self.log.run(&last.arguments(&self.places))?;
            let after = |event: &Violation| event.kernel_time_ns > to && event.rule_id.to_string() == rule;
            self.journal.wait_for("the event that comes after all others", after)?;
        }
        Ok(())
    }

    /// connect(2) to the cloud's metadata service fails with EPERM before anything is sent; its neighbour, at which
    /// nobody listens either, refuses by itself; a container that only logs reaches both.
    fn metadata(&self) -> Result<()> {
        let block = self.block.get(METADATA).context("there is a container for each case")?;
        let try_it = |bare: &Bare, command, expected: &str, count| {
            let from = now();
            let output = bare.run(&act("connect", command).arguments(&self.places))?;
            let window = from..=now();
            self.everything_is_told()?;
            let events = self
                .journal
                .all(|event| window.contains(&event.kernel_time_ns) && event.rule_id.to_string() == METADATA);
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(said.contains(expected), "{command} did not say {expected:?} but {said:?}");
            ensure!(events.is_empty() == (count == 0), "{command}: {} events", events.len());
            Ok(events)
        };
        let denied = try_it(block, "nc 169.254.169.254 80", "Operation not permitted", 1)?;
        ensure!(denied[0].tier == Tier::Lsm && denied[0].mitigation_done == [Done::Denied], "{:?}", denied[0]);
        try_it(block, "nc 169.254.169.253 80", "Connection refused", 0)?;
        try_it(&self.log, "nc 169.254.169.254 80", "Connection refused", 1)?;
        Ok(())
    }

    /// Denied on the `lsm` tier: the operation fails and the process lives; killed elsewhere. The tier it was.
    fn stopped(&self, case: &Case, output: &Output, events: &[Arc<Violation>]) -> Result<Tier> {
        let Some(event) = events.first() else { bail!("no event; it ended with {}", output.status) };
        ensure!(!output.status.success(), "it succeeded");
        ensure!(event.mitigation == Mitigation::Block, "asked for {}", event.mitigation);
        let tier = match (case.rule, self.strongest) {
            (STARTED, Tier::Fentry | Tier::Kprobe) => Tier::Tracepoint,
            (_, strongest) => strongest,
        };
        let expected = !EVERY_TIER.contains(&case.rule) || event.tier == tier;
        ensure!(expected, "on tier {:?}, not {tier:?}", event.tier);
        let done = if event.tier == Tier::Lsm { Done::Denied } else { Done::Killed };
        let killed = output.status.signal() == Some(9) || output.status.code() == Some(KILLED_EXIT);
        ensure!(!killed || done == Done::Killed, "it was killed, not denied");
        ensure!(event.mitigation_done.contains(&done), "on tier {:?} it did {:?}", event.tier, event.mitigation_done);
        Ok(event.tier)
    }

    /// Why this kernel has no such thing.
    fn cannot(act: &Act) -> Result<Option<&'static str>> {
        let links = matches!(act.name, "uring-link" | "uring-symlink");
        let cannot = links && kernel_is_older_than(5, 15)?;
        Ok(cannot.then_some("this kernel's rings link nothing: they do since 5.15"))
    }

    /// What security hooks see and system calls' tracepoints do not, on a tier that has hooks.
    fn past_tracepoints(&self, report: &mut Report) -> Result<()> {
        if self.strongest == Tier::Tracepoint {
            return Ok(());
        }
        let mut batch = Batch::new(self);
        for case in suitable() {
            for act in case.past_tracepoints {
                let name = format!("vm/{}/{}/past-tracepoints/{}", self.strongest, case.rule, act.name);
                match Self::cannot(act)? {
                    Some(reason) => report.skip(&name, reason),
                    None => batch.blocked_by_hook(report, name, case, act),
                }
            }
        }
        batch.judge(report);
        Ok(())
    }

    fn uninstall(self, programs: &Programs) -> Result<()> {
        self.enforcer.stop()?;
        let output = finish(Command::new(&programs.enforcer).arg("uninstall"))?;
        ensure!(
            output.status.success(),
            "it ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let left = fs::read_dir("/sys/fs/bpf")?.count();
        ensure!(left == 0, "{left} entries are left in the bpf file system");
        Ok(())
    }
}
