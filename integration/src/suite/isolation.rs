//! Isolation, proven by traffic: the sender writes its clock into each packet before it sends it, and nothing whose
//! time is later than the violation's kernel time may arrive.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_actor::now;
use ringfence_control::Done;
use ringfence_policy::Mitigation;

use super::Part;
use super::context::{Context, address4, address6, cut_at, of};
use super::report::Report;
use crate::cases::Needs;
use crate::harness::Container;
use crate::sink::DNS;

pub const PART: Part = Part::Made { names, run };

/// The rule that is violated here.
pub(super) const RULE: &str = "RF-501";

/// A way to send, and who violates while it is being sent.
struct Way {
    name: &'static str,
    proto: &'static str,
    v6: bool,
    who: &'static str,
    network: Network,
}

/// What the container is attached to, which decides by which datapath its packets leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    Bridge,
    PointToPoint,
    /// The node's own: there is no veth, `cgroup_skb` is alone.
    Host,
}

const fn way(name: &'static str, proto: &'static str, v6: bool) -> Way {
    Way { name, proto, v6, who: "sender", network: Network::Bridge }
}

const HOST: [Way; 2] = [
    Way { network: Network::Host, ..way("udp-host-network", "udp", false) },
    Way { network: Network::Host, ..way("tcp-host-network", "tcp", false) },
];

const PACKET: [Way; 3] = [
    way("packet", "packet", false),
    way("packet6", "packet", true),
    Way { who: "thread", ..way("packet-other-thread", "packet", false) },
];

const ORDINARY: [Way; 9] = [
    way("udp", "udp", false),
    way("udp6", "udp", true),
    way("tcp", "tcp", false),
    way("tcp6", "tcp", true),
    way("raw", "raw", false),
    way("raw6", "raw", true),
    way("uring", "uring", false),
    way("uring6", "uring", true),
    Way { who: "thread", ..way("udp-other-thread", "udp", false) },
];

const POINT_TO_POINT: [Way; 2] = [
    Way { network: Network::PointToPoint, ..way("udp-ptp", "udp", false) },
    Way { network: Network::PointToPoint, ..way("packet-ptp", "packet", false) },
];

type Alone = (&'static str, &'static [&'static str], &'static [&'static [Way]]);

/// Datapaths, the option that leaves only this one, and what it must stop by itself. A packet socket's frames pass no
/// socket hook of IP, and a container on the node's own network has no veth.
const ALONE: [Alone; 4] = [
    ("cgroup", &["--datapath", "cgroup"], &[&ORDINARY, &HOST]),
    ("tcx", &["--datapath", "tcx"], &[&ORDINARY, &PACKET, &POINT_TO_POINT]),
    ("clsact", &["--datapath", "clsact"], &[&ORDINARY, &PACKET]),
    ("all", &[], &[&ORDINARY, &PACKET, &POINT_TO_POINT, &HOST]),
];

type Test = fn(&mut Context) -> Result<()>;

const OTHERS: [(&str, Test); 7] = [
    ("isolation/dns", dns),
    ("isolation/inbound", inbound),
    ("isolation/loopback-stays", loopback),
    ("isolation/node-may-connect", node_may_connect),
    ("isolation/by-hand-and-release", by_hand),
    ("isolation/release-after-violation", release),
    ("isolation/other-container-unharmed", unharmed),
];

fn names() -> Vec<String> {
    let ways = ALONE.iter().flat_map(|(datapath, _, ways)| {
        ways.iter().copied().flatten().map(move |way| format!("isolation/{datapath}/{}", way.name))
    });
    ways.chain(OTHERS.iter().map(|(name, _)| (*name).to_owned())).collect()
}

fn run(context: &mut Context, report: &mut Report) {
    let refused = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|text| text.trim() != "0");
    for (datapath, options, ways) in ALONE {
        let wanted = |way: &Way| report.wants(&format!("isolation/{datapath}/{}", way.name));
        if !ways.iter().copied().flatten().any(wanted) {
            continue;
        }
        let started = context.restart_with(options);
        for way in ways.iter().copied().flatten() {
            let name = format!("isolation/{datapath}/{}", way.name);
            if way.proto == "uring" && refused && report.wants(&name) {
                report.skip(&name, "this kernel's settings refuse io_uring");
            } else {
                report.check(&name, || match &started {
                    Ok(()) => flood(context, way),
                    Err(error) => bail!("the enforcer did not start with {options:?}: {error:#}"),
                });
            }
        }
    }
    for (name, test) in OTHERS {
        report.check(name, || test(context));
    }
}

/// What `actor flood` said in the end.
struct Told {
    sent: u64,
    failed: u64,
    last: u64,
}

fn told(output: &str) -> Result<Told> {
    let line =
        output.lines().find(|line| line.starts_with("sent ")).with_context(|| format!("the flood said: {output}"))?;
    let mut numbers = line.split_whitespace().skip(1).step_by(2).map(str::parse);
    let mut next = || numbers.next().context("a number is missing")?.context("not a number");
    Ok(Told { sent: next()?, failed: next()?, last: next()? })
}

fn flood(context: &mut Context, way: &Way) -> Result<()> {
    context.enforcer()?;
    let network = match way.network {
        Network::PointToPoint => context.node.ptp(),
        Network::Bridge | Network::Host => context.node.bridge(),
    };
    let gateway: IpAddr = if way.v6 { network.gateway6().into() } else { network.gateway4().into() };
    let to = SocketAddr::new(gateway, context.sink.port()).to_string();
    // The next hop's hardware address is known once the container has an interface.
    let script = format!(
        "until actor connect sendto {to} && ip neigh | grep -q {gateway}.*lladdr; do sleep 0.05; done; \
         exec actor flood --proto {} --to {to} --mac $(ip neigh | grep '^{gateway} ' | sed 's/.*lladdr //;s/ .*//') \
         --lasting 600 --violate-after 1500 --who {}",
        way.proto, way.who
    );
    let plain = [
        "actor",
        "flood",
        "--proto",
        way.proto,
        "--to",
        &to,
        "--lasting",
        "600",
        "--violate-after",
        "1500",
        "--who",
        way.who,
    ];
    let command: Vec<&str> = if way.proto == "packet" { vec!["sh", "-c", &script] } else { plain.to_vec() };
    let spec = context.spec(Needs::Nothing, RULE, Mitigation::Isolate, command);
    let spec = match way.network {
        Network::Bridge => spec,
        Network::PointToPoint => spec.network(context.node.ptp()),
        Network::Host => spec.host_network(),
    };
    if way.network == Network::Host {
        context.sink.forget(gateway);
    }
    let container = context.run(&spec)?;
    let from = match (way.network, way.v6) {
        (Network::Host, _) => gateway,
        (_, true) => address6(&container)?,
        (_, false) => address4(&container)?,
    };
    let status = container.wait()?;
    let output = container.stdout();
    ensure!(status == 0, "the flood ended with {status}: {output} {}", container.stderr());
    let told = told(&output)?;
    let event = context
        .journal
        .wait_for("the violation of the flood", of(&container, RULE))
        .with_context(|| format!("the flood said {output}; {}", context.enforcer_says()))?;
    ensure!(event.mitigation_done.contains(&Done::Isolated), "did {:?}", event.mitigation_done);
    let arrived = context.sink.from(from);
    ensure!(arrived.count > 0, "nothing arrived at all: sent {} failed {}", told.sent, told.failed);
    // Who violates cannot send meanwhile; another thread can, until the kernel has decided.
    let cut = if way.who == "sender" { event.kernel_time_ns } else { cut_at(&event) };
    ensure!(told.last > cut, "nothing was sent after the violation");
    if arrived.last > cut {
        bail!("a packet of {} ns after the violation arrived", arrived.last - cut);
    }
    Ok(())
}

/// A container under `isolate` that runs `command`, known to the enforcer.
fn started(context: &mut Context, mitigation: Mitigation, command: &[&str]) -> Result<Container> {
    context.enforcer()?;
    let spec = context.spec(Needs::Nothing, RULE, mitigation, command.iter().copied());
    let container = context.run(&spec)?;
    context.enforcer()?.container(container.id())?;
    Ok(container)
}

/// Violates; when the kernel had mitigated it.
pub(super) fn violate(context: &Context, container: &Container) -> Result<u64> {
    let output = container.exec(["cat", "/etc/shadow"])?;
    let event = context.journal.wait_for(&format!("the violation ({output:?})"), of(container, RULE))?;
    ensure!(event.mitigation_done.contains(&Done::Isolated), "did {:?}", event.mitigation_done);
    Ok(cut_at(&event))
}

fn beacon(context: &mut Context, port: u16) -> Result<Container> {
    let to = format!("{}:{port}", context.places.gateway4);
    started(
        context,
        Mitigation::Isolate,
        &["actor", "flood", "--proto", "udp", "--to", &to, "--lasting", "600000", "--pause", "300"],
    )
}

fn dns(context: &mut Context) -> Result<()> {
    let container = beacon(context, DNS)?;
    let address = address4(&container)?;
    context.sink.wait_for_more(address, 5)?;
    let at = violate(context, &container)?;
    nothing_later(context, address, at)
}

pub(super) fn nothing_later(context: &Context, address: IpAddr, at: u64) -> Result<()> {
    thread::sleep(Duration::from_millis(200));
    let last = context.sink.from(address).last;
    ensure!(last <= at, "a packet of {} ns after the violation arrived", last - at);
    Ok(())
}

/// What another container sends does not get in.
fn inbound(context: &mut Context) -> Result<()> {
    let victim =
        started(context, Mitigation::Isolate, &["actor", "receive", "--on", "0.0.0.0:4000", "--lasting", "2500"])?;
    victim.wait_for_output("listening")?;
    let to = format!("{}:4000", address4(&victim)?);
    let lasting = ["actor", "flood", "--proto", "udp", "--to", &to, "--lasting", "2000", "--pause", "200"];
    let sender = started(context, Mitigation::Log, &lasting)?;
    thread::sleep(Duration::from_millis(300));
    let at = violate(context, &victim)?;
    sender.wait()?;
    victim.wait()?;
    let told = told(&sender.stdout())?;
    ensure!(told.last > at && told.sent > 0, "nothing was sent after the violation");
    let output = victim.stdout();
    let words: Vec<_> = output.lines().last().unwrap_or_default().split_whitespace().collect();
    let [_, count, _, last] = words[..] else { bail!("the victim said: {output}") };
    ensure!(count.parse::<u64>()? > 0, "nothing arrived before the violation");
    let last: u64 = last.parse()?;
    ensure!(last <= at, "a packet of {} ns after the violation got in", last - at);
    Ok(())
}

fn loopback(context: &mut Context) -> Result<()> {
    let container = started(context, Mitigation::Isolate, &["actor", "sleep", "600000"])?;
    violate(context, &container)?;
    for (on, to) in [("0.0.0.0:4001", "127.0.0.1:4001"), ("[::]:4002", "[::1]:4002")] {
        let script = format!(
            "actor receive --on {on} --lasting 600 & sleep 0.1; actor flood --proto udp --to {to} --lasting 200 --pause 1000; wait"
        );
        let output = container.exec(["sh", "-c", &script])?;
        let count = output
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("received ")?.split(' ').next()?.parse::<u64>().ok());
        ensure!(count.is_some_and(|count| count > 0), "{to}: {} {}", output.stdout, output.stderr);
    }
    Ok(())
}

/// A probe of the node gets its answer; a connection that the container opens does not get out.
fn node_may_connect(context: &mut Context) -> Result<()> {
    let container = started(context, Mitigation::Isolate, &["nc", "-ll", "-p", "4003", "-e", "/bin/cat"])?;
    let address = SocketAddr::new(address4(&container)?, 4003);
    violate(context, &container)?;
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(3));
    context.node.within(connect).context("a connection from the node to the isolated container")?;
    let peer = format!("{}:{}", context.places.gateway4, context.places.port);
    // By itself it would try for two minutes.
    let output = container.exec(["timeout", "5", "actor", "stdio", "elsewhere", "tcp", "--to", &peer])?;
    ensure!(output.status != 0, "the isolated container connected to the node");
    Ok(())
}

fn by_hand(context: &mut Context) -> Result<()> {
    let container = beacon(context, context.sink.port())?;
    let address = address4(&container)?;
    context.sink.wait_for_more(address, 5)?;
    context.enforcer()?.isolate(container.id())?;
    nothing_later(context, address, now())?;
    ensure!(
        context.enforcer()?.container(container.id())?.isolated.is_some(),
        "the status does not say that it is isolated"
    );
    context.enforcer()?.release(container.id())?;
    context.sink.wait_for_more(address, 5).context("after the release")?;
    ensure!(
        context.enforcer()?.container(container.id())?.isolated.is_none(),
        "the status still says that it is isolated"
    );
    Ok(())
}

fn release(context: &mut Context) -> Result<()> {
    let container = beacon(context, context.sink.port())?;
    let address = address4(&container)?;
    context.sink.wait_for_more(address, 5)?;
    let at = violate(context, &container)?;
    nothing_later(context, address, at)?;
    context.enforcer()?.release(container.id())?;
    context.sink.wait_for_more(address, 5).context("after the release")?;
    // Released, not exempt.
    let again = now();
    container.exec(["cat", "/etc/shadow"])?;
    let matches = of(&container, RULE);
    let event =
        context.journal.wait_for("the second violation", |event| matches(event) && event.kernel_time_ns >= again)?;
    nothing_later(context, address, cut_at(&event))
}

fn unharmed(context: &mut Context) -> Result<()> {
    let (bad, good) = (beacon(context, context.sink.port())?, beacon(context, context.sink.port())?);
    let at = violate(context, &bad)?;
    nothing_later(context, address4(&bad)?, at)?;
    context.sink.wait_for_more(address4(&good)?, 100)
}
