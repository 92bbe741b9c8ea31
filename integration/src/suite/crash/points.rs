//! The enforcer is killed at each kind of step of its start and of its mitigations. All the while one container violates
//! without pause and never gets anywhere, and another one is isolated and stays so.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::loaded_links;
use nix::sys::signal::Signal;
use ringfence_actor::now;
use ringfence_policy::Mitigation;

use super::super::Part;
use super::super::context::{Context, address4, cut_at, of};
use super::super::report::Report;
use super::tracer::{End, Point, Steps, Traced, points};
use crate::cases::Needs;
use crate::enforcer::{ask, status};
use crate::harness::Container;
use crate::rulesets::ruleset;
use crate::wait;

/// Points are found when the steps are seen: only what finds them has a name before.
pub const PART: Part = Part::Made { names: || vec![FOUND.into(), STRIKE.into()], run };

const FOUND: &str = "crash/points";
const STRIKE: &str = "crash/uninstall-after-all";
/// As many at least.
const LEAST: usize = 30;
/// Over what a version with other programs has left.
const START: &str = "start";
/// Over what a version with other programs and another layout of maps has left.
const UPGRADE: &str = "upgrade";
/// A guard against hanging.
const LIMIT: Duration = Duration::from_mins(1);
/// What is done while an enforcer runs.
const ACTS: [&str; 7] = [GOVERN, "log", "isolate", "terminate", "isolate-by-hand", "release", "reload"];
const STOP: &str = "stop";
/// A container comes.
const GOVERN: &str = "govern";
/// As many enforcers live until a step is given up.
const LIVES: usize = 5;
/// How long the step may be late in each of them.
const LIFE: Duration = Duration::from_secs(3);
/// Nothing that is looked at.
const BETWEEN: &str = "between";
/// What an act leaves to be done later is done by then: the enforcer looks at everything once a second.
const SETTLE: Duration = Duration::from_millis(1_500);

/// What is there all the while.
struct Stage {
    looper: Container,
    isolated: Container,
    /// When it was isolated.
    cut: u64,
    victim: Container,
    /// What is there when an enforcer is in force.
    whole: Option<Whole>,
    /// Programs of others, which were there before.
    others: BTreeSet<u32>,
    reloads: u32,
}

/// What became of a crash.
enum Crash {
    /// Nothing came of it.
    Survived,
    /// The step to be killed at did not come.
    NotReached,
}

/// What an enforcer in force has made.
#[derive(Debug, PartialEq, Eq)]
struct Whole {
    pins: BTreeSet<PathBuf>,
    /// Of files that are written anew.
    unfinished: BTreeSet<PathBuf>,
    links: usize,
}

fn run(context: &mut Context, report: &mut Report) {
    let stage = Stage::set(context).and_then(|mut stage| {
        let found = stage.found(context)?;
        Ok((stage, found))
    });
    match stage {
        Err(error) => report.fail(FOUND, &format!("{error:#}; {}", context.enforcer_says())),
        Ok((mut stage, found)) => {
            let enough = found.len() >= LEAST;
            report.check(FOUND, || {
                ensure!(enough, "{} points, fewer than {LEAST}: {found:?}", found.len());
                Ok(())
            });
            for point in found {
                if !report.wants(&point.name()) {
                    continue;
                }
                match stage.crash(context, &point) {
                    Ok(Crash::Survived) => report.tell(&point.name(), Ok(())),
                    Ok(Crash::NotReached) => {
                        report.skip(&point.name(), &format!("the step did not come in any of {LIVES} lives"));
                    }
                    Err(error) => report.tell(&point.name(), Err(error)),
                }
            }
            report.check(STRIKE, || stage.strike(context));
            if let Err(error) = fs::remove_file(context.start.rulesets.join("reload.yaml")) {
                report.fail(FOUND, &format!("the rulesets are not as they were: {error}"));
            }
        }
    }
}

/// What an enforcer has left when it was killed is from now on another version's: its programs are, and its maps if those
/// have another layout. They go on as before.
fn age(context: &Context, phase: &str) -> Result<()> {
    let root = context.start.bpffs.join("ringfence");
    let folders: &[&str] = match phase {
        START => &["links"],
        UPGRADE => &["links", "maps"],
        _ => &[],
    };
    for folder in folders {
        let inside: Vec<_> = fs::read_dir(root.join(folder))?.flatten().map(|entry| entry.path()).collect();
        let [own] = &inside[..] else { bail!("not one but {inside:?}") };
        fs::rename(own, root.join(folder).join("another"))?;
    }
    Ok(())
}

fn tree(of: &std::path::Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut todo = vec![of.to_path_buf()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path.clone());
            }
            found.insert(path);
        }
    }
    found
}

impl Whole {
    fn look(context: &Context) -> Self {
        Self {
            pins: tree(&context.start.bpffs.join("ringfence")),
            unfinished: tree(&context.start.state)
                .into_iter()
                .filter(|path| path.extension().is_some_and(|end| end == "next"))
                .collect(),
            links: loaded_links().count(),
        }
    }

    /// Waits until there is nothing else. Programs are not counted: what was loaded before a crash stays with the links that
    /// it has, and is loaded once more for those that were missing.
    fn expect(&self, context: &Context) -> Result<()> {
        let until = Instant::now() + LIMIT;
        loop {
            let now = Self::look(context);
            if now == *self {
                return Ok(());
            }
            if Instant::now() > until {
                let more: Vec<_> =
                    now.pins.difference(&self.pins).chain(now.unfinished.difference(&self.unfinished)).collect();
                let less: Vec<_> = self.pins.difference(&now.pins).collect();
                bail!("left over: {more:?}; missing: {less:?}; {} links instead of {}", now.links, self.links);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Stage {
    fn set(context: &mut Context) -> Result<Self> {
        context.stop_enforcer()?;
        ensure!(context.start.uninstall(&context.node)?.status.success(), "a first uninstall failed");
        let others = super::programs()?;
        context.enforcer()?;
        let script = "while :; do got=$(cat /etc/shadow 2>/dev/null); \
                      if [ -n \"$got\" ]; then echo GOT; else echo no; fi; sleep 0.01; done";
        let spec = context.spec(Needs::Nothing, "RF-501", Mitigation::Block, ["sh", "-c", script]);
        let looper = context.run(&spec)?;
        context.enforcer()?.container(looper.id())?;
        let isolated = super::beacon(context, Mitigation::Isolate)?;
        isolated.exec(["cat", "/etc/shadow"])?;
        let cut = cut_at(&*context.journal.wait_for("the violation", of(&isolated, "RF-501"))?);
        let victim = super::beacon(context, Mitigation::Isolate)?;
        context.take_enforcer()?.crash()?;
        let stage = Self { looper, isolated, cut, victim, whole: None, others, reloads: 0 };
        stage.holds(context)?;
        Ok(stage)
    }

    /// All points.
    fn found(&mut self, context: &mut Context) -> Result<Vec<Point>> {
        let (mut acts, mut again, mut stop, mut starts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        // The first start is not over what another one left when it was killed.
        for phase in [START, START, UPGRADE, START, UPGRADE] {
            age(context, phase)?;
            let mut traced = Traced::start(&context.start.command(&context.node), phase, None, &context.journal)?;
            ensure!(Self::ready(context, &traced)?, "it ended: {}", traced.messages());
            // Of links that were removed some are freed later.
            let seen = Whole::look(context);
            if self.whole.as_ref().is_none_or(|whole| seen.links < whole.links) {
                self.whole = Some(seen);
            }
            if acts.is_empty() {
                // Twice: what comes only once belongs to something else.
                self.perform(context, &traced)?;
                let once = traced.steps().len();
                self.perform(context, &traced)?;
                traced.enter(STOP);
                traced.signal(Signal::SIGTERM)?;
                traced.wait()?;
                acts = traced.steps();
                stop = acts.split_off(acts.iter().position(|(phase, _)| *phase == STOP).unwrap_or(acts.len()));
                again = acts.split_off(once);
                // As if it had been killed.
                context.take_enforcer()?.crash()?;
                continue;
            }
            traced.signal(Signal::SIGKILL)?;
            traced.wait()?;
            starts.push((phase, traced.steps()));
        }
        self.holds(context)?;
        let mut found = Vec::new();
        for (phase, after) in [(START, false), (UPGRADE, true)] {
            let seen: Vec<Steps> =
                starts.iter().filter(|(of, _)| *of == phase).map(|(_, steps)| steps.clone()).collect();
            found
                .extend(points(&seen, phase)?.into_iter().filter(|point| point.after == after && point.is_essential()));
        }
        let acts = [acts, again];
        for act in ACTS {
            found.extend(points(&acts, act)?.into_iter().filter(Point::is_essential));
        }
        found.extend(points(&[stop], STOP)?.into_iter().filter(Point::is_essential));
        Ok(found)
    }

    /// Does everything once.
    fn perform(&mut self, context: &mut Context, traced: &Traced) -> Result<()> {
        for act in ACTS {
            traced.enter(if act == GOVERN { GOVERN } else { BETWEEN });
            let doomed = self.prepare(context, act)?;
            if let Some(doomed) = &doomed {
                Self::wait_until_known(context, doomed)?;
            }
            traced.enter(act);
            self.act(context, traced, act, doomed.as_ref())
                .with_context(|| format!("{act}, undisturbed: {}", traced.messages()))?;
            thread::sleep(SETTLE);
            traced.enter(BETWEEN);
            let victim = self.victim.id();
            ask(&context.start.control, async |client| client.release(victim).await)?;
            drop(doomed);
            thread::sleep(SETTLE);
        }
        Ok(())
    }

    /// Waits until it answers, or has ended.
    fn ready(context: &Context, traced: &Traced) -> Result<bool> {
        let until = Instant::now() + LIMIT;
        while !traced.has_ended() {
            if status(&context.start.control).is_ok() {
                return Ok(true);
            }
            ensure!(Instant::now() < until, "it did not answer within {LIMIT:?}: {}", traced.messages());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
    }

    /// The violating loop goes on and gets nowhere; what is isolated stays so.
    fn holds(&self, context: &Context) -> Result<()> {
        let attempts = |text: &str| text.lines().count();
        let until = Instant::now() + LIMIT;
        let before = attempts(&self.looper.stdout());
        loop {
            let told = self.looper.stdout();
            ensure!(
                !told.contains("GOT"),
                "a violation was let through, attempt {:?}",
                told.lines().position(|l| l == "GOT")
            );
            if attempts(&told) >= before + 3 {
                break;
            }
            ensure!(Instant::now() < until, "the violating loop stands still");
            thread::sleep(Duration::from_millis(10));
        }
        let last = context.sink.from(address4(&self.isolated)?).last;
        ensure!(last <= self.cut, "a packet of {} ns after the isolation arrived", last - self.cut);
        Ok(())
    }

    /// What a phase takes for granted.
    fn prepare(&self, context: &mut Context, act: &str) -> Result<Option<Container>> {
        let (control, victim) = (&context.start.control, self.victim.id());
        match act {
            GOVERN | "terminate" => Self::doomed(context).map(Some),
            "release" => ask(control, async |client| client.isolate(victim, None).await).map(|_| None),
            _ => Ok(None),
        }
    }

    /// Does what a phase is about.
    fn act(&mut self, context: &mut Context, traced: &Traced, act: &str, doomed: Option<&Container>) -> Result<()> {
        let (control, victim) = (context.start.control.clone(), self.victim.id().to_owned());
        let since = now();
        match (act, doomed) {
            (GOVERN, _) => Ok(()),
            ("log", _) => Self::told(context, traced, &self.looper, since),
            ("isolate", _) => {
                self.victim.exec(["cat", "/etc/shadow"])?;
                Self::told(context, traced, &self.victim, since)
            }
            ("terminate", Some(doomed)) => {
                // It may be gone before the runtime has told how this ended.
                drop(doomed.exec(["cat", "/etc/shadow"]));
                wait::until("something is killed", || {
                    let running = doomed.is_running()?;
                    ensure!(!(running && traced.has_ended()), "it is gone, and has killed nothing");
                    Ok(!running)
                })?;
                ensure!(doomed.wait()? == 137, "it was not killed");
                Ok(())
            }
            ("isolate-by-hand", _) => ask(&control, async |client| client.isolate(&victim, None).await).map(drop),
            ("release", _) => ask(&control, async |client| client.release(&victim).await).map(drop),
            ("reload", _) => self.reload(context),
            _ => bail!("nobody knows how to {act}"),
        }
    }

    /// Waits until a violation of the container has been told, or the enforcer is gone.
    fn told(context: &Context, traced: &Traced, container: &Container, since: u64) -> Result<()> {
        let matches = of(container, "RF-501");
        wait::until("it is told", || {
            let told = !context.journal.all(|event| matches(event) && event.kernel_time_ns >= since).is_empty();
            ensure!(told || !traced.has_ended(), "it is gone, and has told nothing");
            Ok(told)
        })
    }

    fn doomed(context: &mut Context) -> Result<Container> {
        let spec = context.spec(Needs::Nothing, "RF-501", Mitigation::Terminate, ["actor", "sleep", "600000"]);
        context.run(&spec)
    }

    fn wait_until_known(context: &Context, container: &Container) -> Result<()> {
        wait::until("it is known", || {
            Ok(status(&context.start.control)?.containers.iter().any(|one| one.id.as_str() == container.id()))
        })
    }

    /// Another ruleset comes into force.
    fn reload(&mut self, context: &Context) -> Result<()> {
        self.reloads += 1;
        let label = format!("crash{}", self.reloads);
        fs::write(context.start.rulesets.join("reload.yaml"), ruleset(&label, &["RF-501".parse()?], Mitigation::Log))?;
        wait::until("the change is noticed", || {
            Ok(status(&context.start.control)?.rulesets.names.iter().any(|name| name.starts_with(&label)))
        })
    }

    /// Killed at a point, and started again; anew as long as the step does not come.
    fn crash(&mut self, context: &mut Context, point: &Point) -> Result<Crash> {
        for _ in 0..LIVES {
            if let Crash::Survived = self.try_to_crash(context, point)? {
                return Ok(Crash::Survived);
            }
        }
        ensure!(point.is_a_race() || point.is_told_at(STOP), "the step did not come in any of {LIVES} lives");
        Ok(Crash::NotReached)
    }

    fn try_to_crash(&mut self, context: &mut Context, point: &Point) -> Result<Crash> {
        context.take_enforcer()?.crash()?;
        age(context, point.phase)?;
        let starts = [START, UPGRADE].contains(&point.phase);
        let command = context.start.command(&context.node);
        let first = if starts { point.phase } else { BETWEEN };
        let mut traced = Traced::start(&command, first, Some(point.clone()), &context.journal)?;
        let mut doomed = None;
        let mut done = Ok(());
        if Self::ready(context, &traced)? && !starts {
            if point.phase == STOP {
                traced.enter(STOP);
                traced.signal(Signal::SIGTERM)?;
            } else {
                traced.enter(if point.phase == GOVERN { GOVERN } else { BETWEEN });
                doomed = self.prepare(context, point.phase)?;
                if point.phase != GOVERN {
                    if let Some(doomed) = &doomed {
                        Self::wait_until_known(context, doomed)?;
                    }
                    traced.enter(point.phase);
                    done = self.act(context, &traced, point.phase, doomed.as_ref());
                }
            }
        }
        if !traced.ends_within(LIFE) {
            drop(traced);
            context.enforcer()?.release(self.victim.id())?;
            return Ok(Crash::NotReached);
        }
        let end = traced.wait()?;
        if point.phase == STOP && end.is_success() {
            context.enforcer()?;
            return Ok(Crash::NotReached);
        }
        ensure!(end == End::Killed, "it ended with {end:?}: {done:?} {}", traced.messages());
        self.holds(context).context("after the crash")?;
        context.enforcer().context("the next start")?;
        self.holds(context).context("after the next start")?;
        let known = context.enforcer()?.container(self.isolated.id())?;
        ensure!(known.isolated.is_some(), "the next one does not know that it is isolated");
        self.outcome(context, point.phase, done.is_ok(), doomed.as_ref())?;
        drop(doomed);
        self.whole.as_ref().context("it was not looked at")?.expect(context)?;
        Ok(Crash::Survived)
    }

    /// After all that, everything can be removed.
    fn strike(self, context: &mut Context) -> Result<()> {
        drop((self.looper, self.victim));
        context.take_enforcer()?.crash()?;
        let output = context.start.uninstall(&context.node)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        context.sink.wait_for_more(address4(&self.isolated)?, 5).context("traffic after uninstall")?;
        let root = context.start.bpffs.join("ringfence");
        ensure!(!root.exists(), "still pinned: {:?}", tree(&root));
        // Programs are freed after a grace period of the kernel.
        let freed = wait::until("no program is left", || Ok(super::programs()?.is_subset(&self.others)));
        freed.with_context(|| format!("left: {:?}", super::programs().map(|now| &now - &self.others)))
    }

    /// What a mitigation during which the enforcer was killed has come to.
    fn outcome(&self, context: &mut Context, act: &str, done: bool, doomed: Option<&Container>) -> Result<()> {
        let victim = self.victim.id();
        if let Some(doomed) = doomed {
            if act == GOVERN {
                context.enforcer()?.container(doomed.id())?;
                drop(doomed.exec(["cat", "/etc/shadow"]));
            }
            let status = doomed.wait_within(Duration::from_secs(30)).context("to be terminated, it lives on")?;
            ensure!(status == 137, "it ended with {status}");
        }
        let isolated = context.enforcer()?.container(victim)?.isolated.is_some();
        match act {
            "isolate" => ensure!(isolated, "what had violated is not isolated"),
            "isolate-by-hand" => ensure!(isolated || !done, "what was said to be isolated is not"),
            "release" => ensure!(!isolated || !done, "what was said to be released is isolated"),
            _ => ensure!(!isolated, "what has done nothing is isolated"),
        }
        context.enforcer()?.release(victim)?;
        context.sink.wait_for_more(address4(&self.victim)?, 3).context("after the release")
    }
}
