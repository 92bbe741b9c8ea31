//! From the kernel's record to the violations that people read.

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use ringfence_abi::{Event, EventHeader, Op, done, flag};
use ringfence_containers::{Container, ContainerKey, Kind, Member};
use ringfence_control::{Done, Escaped, Held, Parent, Process, User, Violation};
use ringfence_policy::{Decision, ResolvedRuleset, Rule, line::op_name};
use std::{borrow::Cow, net::Ipv6Addr, sync::Arc};

/// Whose event it was.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The container that the slot was given to.
    pub container: Container,
    /// What governs it: containers have it in common.
    pub resolved: Arc<ResolvedRuleset>,
    /// What all its violations say of it.
    actor: Actor,
}

impl Owner {
    /// A container, and what governs it.
    pub fn new(container: Container, resolved: Arc<ResolvedRuleset>) -> Self {
        let actor = Actor::of(&container);
        Self { container, resolved, actor }
    }

    /// The same container, governed by something else.
    #[must_use]
    pub fn governed_by(&self, resolved: Arc<ResolvedRuleset>) -> Self {
        Self { resolved, ..self.clone() }
    }
}

/// Where it happened, as far as an event does not say it.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    /// Name of the node.
    pub node: &'a Arc<str>,
    /// The active policy.
    pub policy: Option<&'a str>,
    /// Whose event it was.
    pub owner: &'a Owner,
    /// Which container of the pod, if the owner is a pod as a whole and it could be told.
    pub member: Option<&'a Member>,
    /// Records that were lost before.
    pub lost: u64,
}

/// Who acted. Without a container where it could not be told which one of its pod it was.
#[derive(Clone, Debug, Default)]
struct Actor {
    /// Its namespace, name and UID.
    pod: Option<[Escaped; 3]>,
    id: Escaped,
    namespace: Option<Escaped>,
    name: Option<Escaped>,
    image: Option<Escaped>,
    image_digest: Option<Escaped>,
}

impl Actor {
    fn of(container: &Container) -> Self {
        let pod = container.pod.as_ref();
        let pod = pod.map(|pod| [&pod.namespace, &pod.name, &pod.uid].map(|text| Escaped::from(text.as_str())));
        if container.kind == Kind::Pod {
            return Self { pod, ..Self::default() };
        }
        let ContainerKey { namespace, id } = &container.key;
        Self::container(pod, id, namespace, &container.name, &container.image, container.image_digest.as_deref())
    }

    /// One of a pod's containers.
    fn member(&self, of: &Member) -> Self {
        Self::container(self.pod.clone(), &of.id, &of.namespace, &of.name, &of.image, of.image_digest.as_deref())
    }

    fn container(
        pod: Option<[Escaped; 3]>,
        id: &str,
        namespace: &str,
        name: &str,
        image: &str,
        image_digest: Option<&str>,
    ) -> Self {
        let known = |text: &str| (!text.is_empty()).then(|| Escaped::from(text));
        Self {
            pod,
            id: id.into(),
            namespace: known(namespace),
            name: (name != id).then(|| name.into()),
            image: known(image),
            image_digest: image_digest.map(Escaped::from),
        }
    }
}

/// One violation per violated rule.
pub fn violation(event: &Event, rule: &Rule, decision: &Decision, scene: &Scene<'_>) -> Violation {
    let header = &event.header;
    let owner = &scene.owner.actor;
    let Actor { pod, id, namespace, name, image, image_digest } =
        scene.member.map_or_else(|| owner.clone(), |member| owner.member(member));
    let [k8s_namespace, k8s_pod_name, k8s_pod_id] = pod.map_or([const { None }; 3], |pod| pod.map(Some));
    let rule_set_name = decision.decisive().next().cloned().unwrap_or_default();
    let other_rule_set_names =
        decision.asked_by.iter().map(|asked| asked.ruleset.clone()).filter(|name| *name != rule_set_name).collect();
    let op = Op::ALL.into_iter().find(|op| *op as u8 == header.op);
    Violation {
        event_time: wall_clock(header.at),
        kernel_time_ns: header.at,
        node: scene.node.clone(),
        cluster_name: None,
        policy_name: scene.policy.filter(|name| !name.is_empty()).map(str::to_owned),
        rule_set_name,
        other_rule_set_names,
        rule_id: rule.id,
        rule_name: rule.name.clone(),
        tags: rule.techniques.clone(),
        tactic: rule.tactic.clone(),
        severity: rule.severity,
        mitigation: decision.mitigation,
        mitigation_held: decision.held().map(|(mitigation, limit)| Held { mitigation, limit }),
        mitigation_done: done_in_kernel(header),
        mitigation_failed: vec![],
        latency_ns: (header.mitigated_at != 0).then(|| header.mitigated_at.saturating_sub(header.begun_at)),
        tier: tier(header),
        lost_before: scene.lost,
        k8s_namespace,
        k8s_pod_name,
        k8s_pod_id,
        container_id: id,
        container_name: name,
        container_image: image,
        container_image_digest: image_digest,
        runtime_namespace: namespace,
        process: process(event),
        parents: parents(header),
        operation: op.map_or_else(|| header.op.to_string().into(), |op| op_name(op).into()),
        object_file_path: (header.path_len > 0).then(|| bytes(&event.path, header.path_len)),
        flags: flag::NAMES
            .iter()
            .filter(|(_, bit)| header.flags & bit != 0)
            .map(|(name, _)| Cow::from(*name))
            .collect(),
        number: (header.number != 0).then_some(header.number),
        family: family(header.family),
        proto: protocol(header),
        src: None,
        spt: None,
        dst: address(header),
        dpt: (header.port != 0).then_some(header.port),
    }
    .with_local_end(op)
}

trait LocalEnd {
    fn with_local_end(self, op: Option<Op>) -> Self;
}

impl LocalEnd for Violation {
    /// bind and listen speak of the local end.
    fn with_local_end(mut self, op: Option<Op>) -> Self {
        if matches!(op, Some(Op::Bind | Op::Listen)) {
            (self.src, self.dst) = (self.dst.take(), None);
            (self.spt, self.dpt) = (self.dpt.take(), None);
        }
        self
    }
}

/// Arguments, each ended by a zero byte.
pub fn arguments(args: &[u8]) -> Vec<Escaped> {
    let args = args.strip_suffix(&[0]).unwrap_or(args);
    args.split(|byte| *byte == 0).filter(|_| !args.is_empty()).map(Escaped::from).collect()
}

fn process(event: &Event) -> Process {
    let header = &event.header;
    let args = &event.args[..usize::from(header.args_len).min(event.args.len())];
    Process {
        pid: header.pid,
        name: until_zero(&header.comm),
        exe: (header.exe_len > 0).then(|| bytes(&event.exe, header.exe_len)),
        cmd: arguments(args),
        user: User { uid: header.uid, gid: header.gid, name: None },
    }
}

/// Up to the container's first process: those that belong to the same pod.
fn parents(header: &EventHeader) -> Vec<Parent> {
    header
        .ancestors
        .iter()
        .take_while(|ancestor| ancestor.pid != 0 && ancestor.slot == header.slot)
        .map(|ancestor| Parent { pid: ancestor.pid, name: until_zero(&ancestor.comm), exe: None, cmd: vec![] })
        .collect()
}

fn done_in_kernel(header: &EventHeader) -> Vec<Done> {
    [(done::DENIED, Done::Denied), (done::ISOLATED, Done::Isolated), (done::KILLED, Done::Killed)]
        .into_iter()
        .filter(|(bit, _)| header.done & bit != 0)
        .map(|(_, done)| done)
        .collect()
}

fn tier(header: &EventHeader) -> ringfence_control::Tier {
    use ringfence_abi::Tier;
    let tiers = [Tier::Kprobe, Tier::Fentry, Tier::Lsm];
    tiers.into_iter().find(|tier| *tier as u8 == header.tier).unwrap_or(Tier::Tracepoint).into()
}

fn family(family: u8) -> Option<Cow<'static, str>> {
    Some(match family {
        0 => return None,
        1 => "unix".into(),
        2 => "ipv4".into(),
        10 => "ipv6".into(),
        16 => "netlink".into(),
        17 => "packet".into(),
        other => other.to_string().into(),
    })
}

fn protocol(header: &EventHeader) -> Option<Cow<'static, str>> {
    if !matches!(header.family, 2 | 10) {
        return None;
    }
    Some(match header.protocol {
        0 => return None,
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        other => other.to_string().into(),
    })
}

fn address(header: &EventHeader) -> Option<String> {
    if header.address == [0; 16] {
        return None;
    }
    Some(Ipv6Addr::from(header.address).to_canonical().to_string())
}

fn bytes(buffer: &[u8], len: u16) -> Escaped {
    Escaped::from(&buffer[..usize::from(len).min(buffer.len())])
}

fn until_zero(buffer: &[u8]) -> Escaped {
    Escaped::from(buffer.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// Wall clock for a moment of the kernel's monotonic clock.
pub fn wall_clock(at: u64) -> Timestamp {
    /// Reading three clocks takes less, unless somebody else runs meanwhile.
    const CLOSE: u64 = 10_000;
    const TRIES: usize = 8;
    let read = || {
        let before = monotonic();
        let wall = Timestamp::now();
        (monotonic().saturating_sub(before), before, wall)
    };
    // Two clocks that are read at different times are of two moments: those count that were read closest together.
    let mut closest = read();
    for _ in 1..TRIES {
        if closest.0 <= CLOSE {
            break;
        }
        closest = closest.min(read());
    }
    let (_, now, wall) = closest;
    wall - SignedDuration::from_nanos(i64::try_from(now.saturating_sub(at)).unwrap_or(0))
}

/// Now, by the kernel's monotonic clock, in ns.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec());
    u64::try_from(now).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_a_moment_ago_is_told_as_that() {
        let before = Timestamp::now();
        let at = monotonic();
        let after = Timestamp::now();
        let told = wall_clock(at);
        let close = SignedDuration::from_millis(100);
        assert!(before - close <= told && told <= after + close, "{before} {told} {after}");
    }
}
