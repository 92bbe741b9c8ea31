//! Networks as CNI plug-ins make them. What a container would be isolated by there stands in status before anything
//! happens; then it is proven by traffic. The table of docs/operations.md is this one.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_containers::cgroups::Hierarchies;
use ringfence_control::{ContainerStatus, Done};
use ringfence_policy::Mitigation;

use super::Part;
use super::context::{Context, cut_at, of};
use super::isolation::{RULE, nothing_later};
use super::report::Report;
use crate::cases::Needs;
use crate::harness::{Network, Plugin, Stack};

pub const PART: Part = Part::Made { names, run };

/// Networks, and the names of their tests.
const NETWORKS: [(&str, Plugin); 4] = [
    ("bridge", Plugin::Bridge),
    ("ptp", Plugin::PointToPoint),
    ("macvlan", Plugin::Macvlan),
    ("ipvlan", Plugin::Ipvlan),
];

const STACKS: [(&str, Stack); 3] = [("ipv4", Stack::V4), ("ipv6", Stack::V6), ("dual", Stack::Dual)];

/// What ip(8) says of devices that the kernel does not have.
const UNKNOWN: &str = "Unknown device type";

/// Subnets of the first one; the node's own networks have higher numbers.
const FIRST: u8 = 60;

/// Microseconds between two packets: what sends is not to keep the one processor of a VM from whoever violates.
const PAUSE: u32 = 2000;

/// Datapaths, and the options that leave only these. A node whose cgroups are all of v1 has but interfaces anyway.
/// All of them last: what comes after these tests goes on with them.
const DATAPATHS: [(&str, &[&str]); 2] = [("interfaces", &["--datapath", "tcx", "--datapath", "clsact"]), ("all", &[])];

/// What status says of a container before it violates, and so what becomes of a violation that asks for isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Covered {
    /// Its sockets, and every frame at the host side of its veth.
    Whole,
    /// Every frame at the host side of its veth.
    ByInterface,
    /// Its sockets alone.
    BySockets,
    /// It is terminated instead.
    Not,
}

/// `None`: the node's own network.
fn expected(plugin: Option<Plugin>, sockets: bool) -> Covered {
    match (plugin, sockets) {
        (Some(Plugin::Bridge | Plugin::PointToPoint), true) => Covered::Whole,
        (Some(Plugin::Bridge | Plugin::PointToPoint), false) => Covered::ByInterface,
        (Some(Plugin::Macvlan | Plugin::Ipvlan) | None, true) => Covered::BySockets,
        (Some(Plugin::Macvlan | Plugin::Ipvlan) | None, false) => Covered::Not,
    }
}

/// One test.
struct Place {
    name: String,
    datapath: &'static str,
    /// Subnets' number as well; `None`: the node's own network.
    network: Option<(Plugin, Stack, u8)>,
}

fn places() -> Vec<Place> {
    let mut places = Vec::new();
    for (datapath, _) in DATAPATHS {
        let mut number = FIRST;
        for (network, plugin) in NETWORKS {
            for (family, stack) in STACKS {
                let name = format!("networks/{family}/{datapath}/{network}");
                places.push(Place { name, datapath, network: Some((plugin, stack, number)) });
                number += 1;
            }
        }
        places.push(Place { name: format!("networks/dual/{datapath}/host"), datapath, network: None });
    }
    places
}

fn names() -> Vec<String> {
    places().into_iter().map(|place| place.name).collect()
}

fn run(context: &mut Context, report: &mut Report) {
    let places = places();
    // One for both datapaths.
    let mut made: Vec<(u8, Result<Network>)> = Vec::new();
    for (datapath, options) in DATAPATHS {
        let wanted: Vec<_> =
            places.iter().filter(|place| place.datapath == datapath && report.wants(&place.name)).collect();
        if wanted.is_empty() {
            continue;
        }
        let started = context.restart_with(options);
        for place in wanted {
            if let Some((plugin, stack, number)) = place.network
                && made.iter().all(|(other, _)| *other != number)
            {
                made.push((number, context.node.network(plugin, stack, number)));
            }
            let network = place.network.and_then(|(.., wanted)| made.iter().find(|(number, _)| *number == wanted));
            if let Some((_, Err(error))) = network
                && format!("{error:#}").contains(UNKNOWN)
            {
                report.skip(&place.name, &format!("this kernel has no such devices: {error:#}"));
                continue;
            }
            report.check(&place.name, || {
                if let Err(error) = &started {
                    bail!("the enforcer did not start with {options:?}: {error:#}");
                }
                match network {
                    None => holds(context, place, None),
                    Some((_, Ok(network))) => holds(context, place, Some(network)),
                    Some((_, Err(error))) => bail!("{error:#}"),
                }
            });
        }
    }
}

/// Kinds of what covers the container.
fn covered(status: &ContainerStatus) -> Result<Covered> {
    let kinds: Vec<&str> = status.datapaths.iter().map(|datapath| datapath.kind.as_str()).collect();
    let whole = status.gaps.is_empty();
    Ok(match (&status.no_datapath, &kinds[..], whole) {
        (None, ["cgroup_skb", "tcx" | "clsact"], true) => Covered::Whole,
        (None, ["tcx" | "clsact"], true) => Covered::ByInterface,
        (None, ["cgroup_skb"], _) => Covered::BySockets,
        (Some(_), [], _) => Covered::Not,
        _ => bail!("covered by {kinds:?}, not by {:?}, gaps {:?}", status.no_datapath, status.gaps),
    })
}

/// Sends from the container all the while, to the node or the world outside, with each of its families.
fn holds(context: &mut Context, place: &Place, network: Option<&Network>) -> Result<()> {
    context.enforcer()?;
    let gateways: [IpAddr; 2] = match network {
        Some(network) => [network.gateway4().into(), network.gateway6().into()],
        None => [context.places.gateway4.parse()?, context.places.gateway6.parse()?],
    };
    let targets = match place.network.map_or(Stack::Dual, |(_, stack, _)| stack) {
        Stack::V4 => &gateways[..1],
        Stack::V6 => &gateways[1..],
        Stack::Dual => &gateways[..],
    };
    let flood = |to: &IpAddr| {
        let to = SocketAddr::new(*to, context.sink.port());
        format!("actor flood --proto udp --to {to} --lasting 600000 --pause {PAUSE} & ")
    };
    let script = targets.iter().map(flood).collect::<String>() + "wait";
    let spec = context.spec(Needs::Nothing, RULE, Mitigation::Isolate, ["sh", "-c", &script]);
    let spec = match network {
        Some(network) => spec.network(network),
        None => spec.host_network(),
    };
    // Who sends from the node's own network has the address that it sends to.
    for target in targets {
        context.sink.forget(*target);
    }
    let container = context.run(&spec)?;
    let senders: Vec<IpAddr> = match network {
        Some(_) => container.addresses().to_vec(),
        None => targets.to_vec(),
    };
    ensure!(senders.len() == targets.len(), "it has the addresses {senders:?}");
    for sender in &senders {
        context.sink.wait_for_more(*sender, 5)?;
    }

    let plugin = place.network.map(|(plugin, ..)| plugin);
    let sockets = place.datapath == "all" && Hierarchies::detect()?.v2().is_some();
    let (status, expected) = (context.enforcer()?.container(container.id())?, expected(plugin, sockets));
    ensure!(covered(&status)? == expected, "{:?}, not {expected:?}: {status:?}", covered(&status)?);
    if let Some(plugin @ (Plugin::Macvlan | Plugin::Ipvlan)) = plugin {
        let gap = format!("eth0 is a {} device: it has no host side to be seen", plugin.name());
        ensure!(status.gaps.iter().any(|found| found.as_str() == gap), "gaps {:?}", status.gaps);
    }

    // It may be dead before the command is over.
    let output = container.exec(["cat", "/etc/shadow"]);
    let event = context.journal.wait_for(&format!("the violation ({output:?})"), of(&container, RULE))?;
    let did = |done| event.mitigation_done.contains(&done);
    let (isolated, terminated) = (did(Done::Isolated), did(Done::Terminated));
    if expected == Covered::Not {
        ensure!(terminated && !isolated, "did {:?}", event.mitigation_done);
        let why = "no datapath covers this container: it is terminated instead of isolated";
        ensure!(event.mitigation_failed == [why], "{:?}", event.mitigation_failed);
        let status = container.wait()?;
        ensure!(status == 137, "it ended with {status}, not by SIGKILL");
        return Ok(());
    }
    ensure!(isolated && !terminated, "did {:?}", event.mitigation_done);
    for sender in &senders {
        nothing_later(context, *sender, cut_at(&event))?;
    }
    context.enforcer()?.release(container.id())?;
    senders.iter().try_for_each(|sender| context.sink.wait_for_more(*sender, 5)).context("after the release")
}
