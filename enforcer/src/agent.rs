//! The agent: one task that owns the kernel side, knows the containers and the rulesets, and acts on records.
//!
//! Nothing here stands between a violation and its mitigation: that was done in the kernel before the record came.

mod blind;
mod candidates;
mod gaps;
mod govern;
mod guard;
mod limits;
mod network;
mod node;
mod owners;
mod status;
mod tally;
mod termination;

use crate::{
    kernel::{Kernel, Record, Records},
    output::Output,
    processes::Processes,
    report::{self, Owner},
    rulesets::{Compiled, Rulesets},
    slots::Slots,
    state::{self, Writer},
};
use anyhow::Context as _;
use blind::Blind;
use gaps::Gaps;
pub use guard::Spared;
use guard::Unheld;
use jiff::Timestamp;
use limits::Terminations;
use network::{Network, News, Wish};
use owners::Owners;
use ringfence_abi::{Class, Event, EventHeader};
use ringfence_api::NodeReport;
use ringfence_containers::{
    Container, ContainerEvent, ContainerKey, Kind, Member, Runtime, cgroups::Hierarchies, container_id_in,
};
use ringfence_control::{CandidatesStatus, Done, Escaped, Explanation, Feed, Held, Status, Violation};
use ringfence_netiso::{Datapaths, Switch};
use ringfence_policy::{Exception, Limit, Mitigation, ResolvedRuleset, RuleId, Tables, compare, effective};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tally::Tally;
pub use termination::Reason;
use termination::{Cause, Terminated};
use tokio::sync::{mpsc, oneshot};

/// How often the rulesets' files are looked at, and the datapaths verified.
const LOOK: Duration = Duration::from_secs(1);

/// What a client asks for; the answer goes back through the channel.
pub enum Command {
    /// The state.
    Status(oneshot::Sender<Result<Status, String>>),
    /// Cut a container off.
    Isolate(String, Option<String>, oneshot::Sender<Result<String, String>>),
    /// Lift that.
    Release(String, oneshot::Sender<Result<String, String>>),
    /// Which rulesets govern it.
    Explain(String, oneshot::Sender<Result<Explanation, String>>),
    /// What the cluster is told about the node.
    Report(oneshot::Sender<Result<NodeReport, String>>),
}

/// What is told to who acts beyond this node: the API server's part of a mitigation.
#[derive(Clone, Debug)]
pub enum Told {
    /// A violation, and what was done about it here.
    Violated(Arc<Violation>),
    /// An isolated container or pod has got a way past its isolation.
    Unheld {
        /// Which one.
        container: Container,
        /// The ways.
        gaps: Escaped,
        /// Why it was not terminated.
        spared: Spared,
    },
    /// It was terminated, not because of a violation that was told.
    Terminated {
        /// Which one.
        container: Container,
        /// Why.
        reason: Reason,
        /// What did not work.
        outcome: Result<(), String>,
    },
    /// Somebody isolated a container or pod by hand.
    Isolated(Container),
    /// Somebody released it.
    Released(Container),
}

/// What the agent is made of.
pub struct Parts {
    /// The loaded object.
    pub kernel: Kernel,
    /// The isolated bits.
    pub switch: Switch,
    /// Rulesets, loaded once already.
    pub rulesets: Rulesets,
    /// Where containers come from; none: only cgroups that were named.
    pub runtime: Option<Arc<Runtime>>,
    /// Cgroup file systems.
    pub hierarchies: Arc<Hierarchies>,
    /// Where violations are written.
    pub output: Output,
    /// Where clients get them.
    pub feed: Arc<Feed>,
    /// What records leave out of processes.
    pub processes: Processes,
    /// Name of this node.
    pub node: Arc<str>,
    /// Folder for what outlives the enforcer.
    pub state: PathBuf,
    /// Whether isolated pods lose probes and exceptions too, whatever the policy says.
    pub strict: bool,
    /// Networks that isolated pods may still exchange packets with, besides the policy's.
    pub exceptions: Vec<Exception>,
    /// Who acts beyond this node, if anybody does.
    pub told: Option<mpsc::UnboundedSender<Told>>,
    /// Whether interfaces are armed (or sockets by their cgroup alone).
    pub arms_interfaces: bool,
    /// The cgroup v2 directory whose sockets are covered.
    pub covered_cgroup: Option<PathBuf>,
    /// Hold the kernel's answers against the reference.
    pub check: bool,
}

/// Why a container is isolated.
#[derive(Clone, Debug, Default)]
struct Why {
    rule: Option<RuleId>,
    reason: Option<String>,
}

/// A container that is known, governed or not (then its slot is 0).
struct Known {
    owner: Arc<Owner>,
    slot: u32,
    /// Ends of the cgroups' path under which it is announced.
    names: Vec<String>,
    why_isolated: Option<Why>,
    terminating: bool,
    /// The process of it that was ended because isolation did not hold it.
    ended: Option<u32>,
    /// A process of it, while it has one.
    pid: Option<u32>,
}

/// What the numbers of a record stand for.
struct Context {
    owner: Arc<Owner>,
    tables: Arc<Tables>,
    class: Class,
}

/// The agent of a node.
pub struct Agent {
    parts: Parts,
    network: Network,
    writer: Writer,
    slots: Slots,
    known: BTreeMap<ContainerKey, Known>,
    owners: Owners,
    /// The generation that rulesets are written for, and whether it is in force yet.
    generation: u32,
    in_force: bool,
    /// Numbers of the resolved rulesets of that generation.
    numbers: HashMap<Arc<ResolvedRuleset>, u32>,
    /// Tables by generation: of that one, and of the one before.
    tables: BTreeMap<u32, Arc<Tables>>,
    /// Slots that an earlier enforcer had given to containers that are yet to be heard of.
    inherited: BTreeSet<u32>,
    lost: u64,
    /// Those that no violation has told yet.
    lost_before: u64,
    disagreements: u64,
    /// Cgroups of pods' containers: the slot, and the container's id.
    inside: HashMap<u64, (u32, String)>,
    candidates: CandidatesStatus,
    started_at: Timestamp,
    terminations: (mpsc::UnboundedSender<Terminated>, mpsc::UnboundedReceiver<Terminated>),
    /// Those that limits count.
    counted: Terminations,
    tally: Tally,
    gaps: Gaps,
    /// Isolated containers that isolation does not hold, and that live on.
    unheld: BTreeMap<ContainerKey, Unheld>,
    /// Containers whose processes' namespaces are looked into.
    followed: BTreeSet<ContainerKey>,
    /// Something was isolated since the last look.
    newly_isolated: bool,
    /// Violations that ask for isolation by containers whose interfaces are being armed: nothing else covers them.
    undecided: Vec<(ContainerKey, EventHeader, Vec<Violation>)>,
    /// Containers that had begun before they were governed.
    late: u64,
    blind: Blind,
}

impl Agent {
    /// Takes over what is in the kernel. Nothing changes there yet. `datapaths`: what makes the isolated bits effective.
    pub fn new(mut parts: Parts, datapaths: Datapaths) -> anyhow::Result<Self> {
        let inherited = parts.kernel.slots_in_use()?;
        let before = parts.kernel.generation()?;
        let mut tables = BTreeMap::new();
        if let Some(restored) = state::restore(&parts.state, before, parts.rulesets.catalogue()) {
            tables.insert(before, restored);
        }
        let generation = before.wrapping_add(1);
        let lost = Kernel::lost(&parts.kernel.counters()?);
        let mut agent = Self {
            network: Network::start(datapaths)?,
            writer: Writer::start(parts.state.clone()).context("the thread that writes the state can't be started")?,
            slots: Slots::without(&inherited),
            known: BTreeMap::new(),
            owners: Owners::default(),
            generation,
            in_force: false,
            numbers: HashMap::new(),
            tables,
            inherited,
            lost,
            lost_before: 0,
            disagreements: 0,
            inside: HashMap::new(),
            candidates: CandidatesStatus::default(),
            started_at: Timestamp::now(),
            terminations: mpsc::unbounded_channel(),
            counted: Terminations::default(),
            tally: Tally::restore(&parts.state),
            gaps: Gaps::restore(&parts.state),
            unheld: BTreeMap::new(),
            followed: BTreeSet::new(),
            newly_isolated: false,
            undecided: Vec::new(),
            late: 0,
            blind: Blind::default(),
            parts,
        };
        agent.tally.in_force(agent.parts.rulesets.enforced(), Timestamp::now());
        agent.apply_exceptions()?;
        agent.prepare_generation()?;
        Ok(agent)
    }

    /// Works until `stop` says so. What is in the kernel stays there.
    pub async fn run(
        mut self,
        mut containers: mpsc::Receiver<ContainerEvent>,
        mut commands: mpsc::Receiver<Command>,
        mut changes: mpsc::Receiver<Result<Compiled, String>>,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let [mitigations, candidates, logs] = self.parts.kernel.records()?;
        let (mut mitigations, mut candidates, mut logs) =
            (mitigations.watched()?, candidates.watched()?, logs.watched()?);
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                // Records that waited for an enforcer can only be told once their containers are known.
                ready = mitigations.readable_mut(), if self.in_force => {
                    let mut ready = ready?;
                    self.drain(ready.get_inner_mut(), usize::MAX);
                    ready.clear_ready();
                    self.guard_new();
                }
                ready = candidates.readable_mut(), if self.in_force => {
                    let mut ready = ready?;
                    // One by one: whatever mitigates goes before the next.
                    if !self.drain(ready.get_inner_mut(), 1) {
                        ready.clear_ready();
                    }
                    self.guard_new();
                }
                Some(event) = containers.recv() => self.container(event)?,
                Some(change) = changes.recv() => self.changed(change),
                // Who asks learns what is in force, not what is about to be.
                Some(command) = commands.recv(), if self.in_force => self.asked(command),
                Some(terminated) = self.terminations.1.recv() => self.terminated(terminated),
                news = self.network.news() => self.heard(news.context("nobody keeps the datapaths any more")?)?,
                ready = logs.readable_mut(), if self.in_force => {
                    let mut ready = ready?;
                    // In turns: a flood of logs must not keep containers and commands waiting.
                    if !self.drain(ready.get_inner_mut(), 512) {
                        ready.clear_ready();
                    }
                }
                _ = look.tick() => self.look(),
            }
        }
        self.network.close();
        while let Some(news) = self.network.news().await {
            self.heard(news)?;
        }
        // What has been recorded is still reported.
        self.drain(mitigations.get_mut(), usize::MAX);
        self.drain(candidates.get_mut(), usize::MAX);
        self.drain(logs.get_mut(), usize::MAX);
        self.save_tally();
        Ok(())
    }

    /// Reports up to `limit` records. True: there may be more.
    fn drain(&mut self, records: &mut Records, limit: usize) -> bool {
        let mut taken = 0;
        while taken < limit {
            let Some(record) = records.take() else { break };
            if taken == 0 {
                self.count_lost();
            }
            match record {
                Record::Violation(event) => self.event(event),
                Record::Candidate(candidate) => self.candidate(candidate),
            }
            taken += 1;
        }
        self.parts.output.flush();
        taken == limit
    }

    /// Looks for losses: once a portion, because the counters are dozens of system calls.
    fn count_lost(&mut self) {
        let lost = self.parts.kernel.counters().map_or(self.lost, |counters| Kernel::lost(&counters));
        self.lost_before += lost.saturating_sub(self.lost);
        self.lost = lost;
    }

    /// The cluster asks for something else now.
    fn changed(&mut self, change: Result<Compiled, String>) {
        match change {
            Ok(compiled) => {
                if self.parts.rulesets.change(compiled) {
                    self.put_in_force();
                }
            }
            Err(problem) => self.parts.rulesets.reject(problem),
        }
    }

    fn put_in_force(&mut self) {
        self.tally.in_force(self.parts.rulesets.enforced(), Timestamp::now());
        if let Err(error) = self.apply_exceptions().and_then(|()| self.next_generation()) {
            tracing::error!(%error, "the changed rulesets could not be put in force; the old ones stay");
        }
        self.arm_new();
    }

    /// Exceptions of the command line and of the policy.
    fn apply_exceptions(&mut self) -> anyhow::Result<()> {
        let mut exceptions = self.parts.exceptions.clone();
        exceptions.extend(self.parts.rulesets.policy().iter().flat_map(|policy| policy.exceptions.iter().cloned()));
        let effective = effective(&exceptions)?;
        Ok(self.parts.switch.set_exceptions(effective)?)
    }

    fn look(&mut self) {
        if self.parts.rulesets.reload() {
            self.put_in_force();
        }
        if let Err(error) = self.release_unknown() {
            tracing::error!(%error, "unknown pods could not be released");
        }
        if self.counted.count(self.window(), Instant::now()) {
            self.limit();
        }
        self.finish_terminations();
        self.blind.look(self.parts.kernel.turn_on());
        self.guard(true);
    }

    /// Something was isolated: what ways it has is not only looked at with the next look.
    fn guard_new(&mut self) {
        if std::mem::take(&mut self.newly_isolated) {
            self.guard(false);
        }
    }

    /// What came of something that was asked for, or happened to the node's interfaces. It fails only while nothing is in
    /// force, as [`Self::container`].
    fn heard(&mut self, news: News) -> anyhow::Result<()> {
        match news {
            News::Changed { is_of_interfaces, outcome } => {
                if let Err(error) = outcome {
                    tracing::error!(%error, "the datapaths could not follow a change of the node's interfaces");
                }
                if is_of_interfaces {
                    self.guard(false);
                }
            }
            News::Done(Wish::Arm(slot, _), outcome) => self.armed(slot, outcome),
            News::Done(Wish::Disarm(slot), outcome) => self.disarmed(slot, outcome),
            News::Done(Wish::LookAt(slots), outcome) => self.looked(Some(&slots), outcome),
            News::Done(Wish::Verify, outcome) => self.looked(None, outcome),
            News::Done(Wish::Prune, outcome) => return self.pruned(outcome),
            News::Done(Wish::Answer(command), _) => self.command(command),
            News::Done(Wish::AlsoIn(..), _) => {}
        }
        Ok(())
    }

    /// A record: who, which rules, and what is left to do.
    fn event(&mut self, event: &Event) {
        let Some(context) = self.context(event) else { return };
        let violations = self.violations(event, &context);
        self.act(&context.owner.container.key, &event.header, violations);
    }

    /// What a record's numbers stand for. `None`, with a message: that is not known any more.
    fn context(&mut self, event: &Event) -> Option<Context> {
        let header = &event.header;
        let (Some(owner), Some(tables)) =
            (self.owners.of(header.slot, header.at), self.tables.get(&header.generation).cloned())
        else {
            tracing::warn!(
                slot = header.slot,
                generation = header.generation,
                "a violation of a container or of rules that are not known any more"
            );
            return None;
        };
        let class = Class::ALL.into_iter().find(|class| *class as u8 == header.class)?;
        if self.parts.check {
            self.check(&tables, event, &owner);
        }
        let owner = self.identified(&owner, header.cgroup);
        Some(Context { owner, tables, class })
    }

    /// One violation for each rule that the event's lines are of.
    fn violations(&mut self, event: &Event, context: &Context) -> Vec<Violation> {
        let Context { owner, tables, class } = context;
        let member = self.member(owner, event.header.slot, event.header.cgroup);
        let scene = report::Scene {
            node: &self.parts.node,
            policy: self.parts.rulesets.policy().map(|policy| policy.name.as_str()),
            owner,
            member: member.as_ref(),
            lost: std::mem::take(&mut self.lost_before),
        };
        let mut violations: Vec<Violation> = tables
            .rules_of(*class, &event.header.lines)
            .filter_map(|rule| {
                // Of those who ask for the rule, some may except this event.
                let exceptions = tables.exceptions_of(*class, &event.header.lines, rule.id);
                let decision = owner.resolved.rules.get(&rule.id)?.of_those_with(&exceptions);
                Some(report::violation(event, rule, &decision, &scene))
            })
            .collect();
        for violation in &mut violations {
            self.parts.processes.complete(&event.header, violation);
        }
        violations
    }

    /// The container of a pod to which a cgroup belongs, as long as the cgroup is there (or was looked at before).
    fn member(&mut self, owner: &Owner, slot: u32, cgroup: u64) -> Option<Member> {
        let container = &owner.container;
        if container.kind != Kind::Pod {
            return None;
        }
        if !self.inside.contains_key(&cgroup) {
            let names = &self.known.get(&container.key)?.names;
            let wanted = names.iter().map(|name| (name.clone(), ())).collect();
            for ((), found) in self.parts.hierarchies.find(&wanted).ok()? {
                if let Some(id) = container_id_in(&found.path) {
                    self.inside.insert(govern::key_of(found.version, found.id), (slot, id.to_owned()));
                }
            }
        }
        let (_, id) = self.inside.get(&cgroup)?;
        container.pod.as_ref()?.members.iter().find(|member| member.id == *id).cloned()
    }

    fn check(&mut self, tables: &Tables, event: &Event, owner: &Owner) {
        let vectors = tables.ruleset_vectors(&owner.resolved)[usize::from(event.header.class)];
        if let Err(disagreement) = compare(tables, &vectors.enabled, event) {
            self.disagreements += 1;
            tracing::error!("the kernel and the reference disagree: {disagreement:?}");
        }
    }

    /// What the kernel could not do: end the whole container. Then publish.
    fn act(&mut self, key: &ContainerKey, header: &EventHeader, mut violations: Vec<Violation>) {
        let slot = header.slot;
        let strictest = violations.iter().map(|violation| violation.mitigation).max().unwrap_or(Mitigation::Log);
        let covered = self.coverage(slot).is_covered();
        // A pod that was unknown when it did it has a slot of its own by now.
        let unknown = slot != 0 && slot == self.unknown_slot();
        let uncovered = strictest == Mitigation::Isolate && !covered;
        if uncovered && self.network.is_arming(slot) {
            return self.undecided.push((key.clone(), *header, violations));
        }
        let container = self.known.get(key).filter(|_| uncovered).map(|known| &known.owner.container);
        let spared = container.and_then(|container| self.held(container));
        let Some(known) = self.known.get_mut(key).filter(|known| known.slot == slot || unknown) else {
            return self.publish(violations);
        };
        if unknown && strictest >= Mitigation::Isolate && known.slot != slot {
            let isolated = match known.slot {
                0 => Ok(()),
                slot => self.parts.switch.isolate(slot),
            };
            if let Err(error) = isolated {
                tracing::error!(container = %key.id, %error, "it could not be isolated");
            }
        }
        if strictest >= Mitigation::Isolate {
            let why = known.why_isolated.get_or_insert_default();
            let rule = violations.iter().find(|violation| violation.mitigation == strictest).map(|v| v.rule_id);
            self.newly_isolated |= why.rule.is_none();
            why.rule = why.rule.or(rule);
            self.gaps.isolated(key, false);
        }
        if uncovered {
            let instead = if spared.is_some() { "only its process is killed" } else { "it is terminated" };
            for violation in &mut violations {
                violation.mitigation_done.retain(|done| *done != Done::Isolated);
                violation
                    .mitigation_failed
                    .push(format!("no datapath covers this container: {instead} instead of isolated"));
            }
        }
        if let Some(limit) = spared {
            spare(header, limit, &mut violations);
        } else if (strictest == Mitigation::Terminate || uncovered) && !known.terminating {
            known.terminating = true;
            let (container, names) = (known.owner.container.clone(), known.names.clone());
            self.count(&container);
            self.terminate(container, &names, Cause::Violations(violations));
            return self.limit();
        }
        self.publish(violations);
    }

    fn publish(&mut self, violations: Vec<Violation>) {
        for violation in violations {
            self.tally.count(violation.rulesets());
            self.parts.output.write(&violation);
            let violation = Arc::new(violation);
            self.tell(Told::Violated(Arc::clone(&violation)));
            self.parts.feed.publish(violation);
        }
    }

    fn tell(&self, told: Told) {
        if let Some(sender) = &self.parts.told {
            let _ = sender.send(told);
        }
    }

    /// Who asks learns of all that has happened until now: interfaces may still be being armed.
    fn asked(&mut self, command: Command) {
        if self.network.is_idle() { self.command(command) } else { self.network.ask(Wish::Answer(command)) }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Status(answer) => drop(answer.send(self.status().map_err(|error| error.to_string()))),
            Command::Isolate(name, reason, answer) => drop(answer.send(self.isolate(&name, reason))),
            Command::Release(name, answer) => drop(answer.send(self.release(&name))),
            Command::Explain(name, answer) => drop(answer.send(self.explain(&name))),
            Command::Report(answer) => drop(answer.send(self.report())),
        }
    }

    /// A container by its id, the beginning of it, or its name.
    fn find(&self, name: &str) -> Result<&ContainerKey, String> {
        if name.is_empty() {
            return Err("no container is named".to_owned());
        }
        let by = |matches: &dyn Fn(&ContainerKey, &Known) -> bool| -> Vec<&ContainerKey> {
            self.known.iter().filter(|(key, known)| matches(key, known)).map(|(key, _)| key).collect()
        };
        // First of all by the whole id: a pod may be named like another one's.
        let mut found = by(&|key, _| key.id == name);
        if let [one] = found[..] {
            return Ok(one);
        }
        found = by(&|_, known| {
            let pod = known.owner.container.pod.as_ref().map(|pod| (pod.namespace.as_str(), pod.name.as_str()));
            known.owner.container.name == name || (pod.is_some() && name.split_once('/') == pod)
        });
        if found.is_empty() {
            found = by(&|key, _| key.id.starts_with(name));
        }
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(format!("no container '{name}' is known here; `ringfence status` lists them")),
            several => Err(format!("'{name}' fits {} containers; give the whole id", several.len())),
        }
    }

    fn isolate(&mut self, name: &str, reason: Option<String>) -> Result<String, String> {
        let key = self.find(name)?.clone();
        let coverage = self.coverage(self.known[&key].slot);
        let known = self.known.get_mut(&key).expect("it was just found");
        if known.slot == 0 {
            return Err(format!(
                "no ruleset governs container {}: it can't be isolated; give it a label that a ruleset selects",
                key.id
            ));
        }
        if !coverage.is_covered() {
            return Err(format!("no datapath covers container {}: it can't be isolated", key.id));
        }
        if self.parts.switch.isolation(known.slot).map_err(|error| error.to_string())?.since != 0 {
            return Ok(format!("{} is isolated already", key.id));
        }
        self.parts.switch.isolate(known.slot).map_err(|error| error.to_string())?;
        known.why_isolated = Some(Why { rule: None, reason });
        let container = known.owner.container.clone();
        self.gaps.isolated(&key, true);
        self.save_gaps();
        tracing::info!(container = %key.id, "isolated by hand");
        self.tell(Told::Isolated(container));
        Ok(format!("{} is isolated by {coverage}", key.id))
    }

    fn release(&mut self, name: &str) -> Result<String, String> {
        let key = self.find(name)?.clone();
        let known = self.known.get_mut(&key).expect("it was just found");
        let was = self.parts.switch.release(known.slot).map_err(|error| error.to_string())?;
        known.why_isolated = None;
        if was.since == 0 {
            return Ok(format!("{} was not isolated", key.id));
        }
        let container = known.owner.container.clone();
        tracing::info!(container = %key.id, dropped = was.dropped, "released by hand");
        self.tell(Told::Released(container));
        Ok(format!("{} is released; {} packets were dropped", key.id, was.dropped))
    }

    fn explain(&self, name: &str) -> Result<Explanation, String> {
        let key = self.find(name)?;
        Ok(self.parts.rulesets.explain(&self.known[key].owner.container))
    }
}

/// A pod that would be isolated but can't be, and would be terminated but must not be: its process is all that is left.
fn spare(header: &EventHeader, limit: Limit, violations: &mut [Violation]) {
    let killed = candidates::kill(header);
    for violation in violations.iter_mut().filter(|violation| violation.mitigation == Mitigation::Isolate) {
        violation.mitigation_held = Some(Held { mitigation: Mitigation::Terminate, limit });
        match &killed {
            Ok(()) => violation.mitigation_done.push(Done::Killed),
            Err(problem) => violation.mitigation_failed.push(problem.clone()),
        }
    }
}
