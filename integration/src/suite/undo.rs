//! An isolated container whose root has all capabilities, and nothing of the node's but what every container has, tries
//! to get packets out all the same.
//!
//! Each attempt is made twice: before the isolation its packets arrive, or it would prove nothing; after it none does.

mod gaps;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_policy::Mitigation;

use super::Part;
use super::context::{Context, address4};
use super::isolation::{RULE, violate};
use super::report::Report;
use crate::cases::Needs;
use crate::harness::{Output, PREFIX4};
use crate::wait;

pub const PART: Part = Part::Made { names, run };

/// One way to get packets out. Scripts know `{to}` (address and port of the sink), `{gateway}`, `{own}` (the container's
/// address) and `{other}` (one of the same network that nobody has).
struct Attempt {
    name: &'static str,
    /// What is made ready before the isolation.
    before: &'static str,
    /// Sends stamped packets for a while.
    send: &'static str,
    /// Whose address they come from.
    from: From,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Own,
    Other,
}

const fn attempt(name: &'static str, send: &'static str) -> Attempt {
    Attempt { name, before: "true", send, from: From::Own }
}

const ATTEMPTS: [Attempt; 13] = [
    attempt("undo/new-udp-socket", "actor flood --proto udp --to {to} --lasting 300 --pause 300"),
    attempt("undo/new-tcp-connection", "timeout 2 actor flood --proto tcp --to {to} --lasting 300 --pause 300"),
    attempt("undo/new-raw-socket", "actor flood --proto raw --to {to} --lasting 300 --pause 300"),
    Attempt {
        before: NEXT_HOP,
        ..attempt(
            "undo/new-packet-socket",
            "actor flood --proto packet --to {to} --mac $(cat /tmp/mac) --lasting 300 --pause 300",
        )
    },
    Attempt {
        before: NEXT_HOP,
        ..attempt(
            "undo/new-xdp-socket",
            "actor flood --proto xdp --to {to} --mac $(cat /tmp/mac) --lasting 300 --pause 300",
        )
    },
    attempt(
        "undo/root-cgroup-v2",
        "mkdir -p /tmp/v2; grep -q ' /tmp/v2 ' /proc/mounts || mount -t cgroup2 none /tmp/v2 || exit 9; \
         echo 0 > /tmp/v2/cgroup.procs || exit 9; actor flood --proto udp --to {to} --lasting 300 --pause 300",
    ),
    attempt(
        "undo/root-cgroups-all",
        "for c in pids memory net_cls,net_prio devices; do mkdir -p /tmp/$c; \
         grep -q \" /tmp/$c \" /proc/mounts || mount -t cgroup -o $c none /tmp/$c && echo 0 > /tmp/$c/cgroup.procs; done; \
         mkdir -p /tmp/v2; grep -q ' /tmp/v2 ' /proc/mounts || mount -t cgroup2 none /tmp/v2 || exit 9; \
         echo 0 > /tmp/v2/cgroup.procs || exit 9; actor flood --proto udp --to {to} --lasting 300 --pause 300",
    ),
    Attempt {
        name: "undo/interface-with-another-address-and-name",
        before: "true",
        send: "I=$(ls /sys/class/net | grep -e eth0 -e changed); ip link set $I down; ip link set $I name changed; \
               ip link set changed address 02:00:00:00:77:01; ip addr flush dev changed; \
               ip addr add {other}/{bits} dev changed; ip link set changed up || exit 9; \
               actor flood --proto udp --to {to} --lasting 300 --pause 300",
        from: From::Other,
    },
    Attempt {
        before: "unshare -n sleep 600 > /dev/null 2>&1 & echo $! > /tmp/holder; {holder} \
                 ip link set eth0 netns $H && nsenter -t $H -n sh -c \
                 'ip addr add {own}/{bits} dev eth0; ip link set eth0 up; ip link set lo up; ip route add default via {gateway}'",
        ..attempt(
            "undo/interface-moved-to-another-namespace",
            "nsenter -t $(cat /tmp/holder) -n actor flood --proto udp --to {to} --lasting 300 --pause 300",
        )
    },
    Attempt {
        before: "ping -c 1 {gateway} > /dev/null; ip neigh | grep '^{gateway} ' | sed 's/.*lladdr //;s/ .*//' > /tmp/mac; \
                 unshare -n sleep 600 > /dev/null 2>&1 & echo $! > /tmp/holder; {holder} \
                 ip link set eth0 netns $H && nsenter -t $H -n sh -c \
                 'ip addr add {own}/{bits} dev eth0; ip link set eth0 up; ip route add default via {gateway}' && \
                 sleep 2",
        ..attempt(
            // After the enforcer has looked where that interface is now.
            "undo/packet-socket-on-a-moved-interface",
            "nsenter -t $(cat /tmp/holder) -n actor flood --proto packet --to {to} --mac $(cat /tmp/mac) \
             --lasting 300 --pause 300",
        )
    },
    Attempt {
        name: "undo/macvlan-in-another-namespace",
        before: "unshare -n sleep 600 > /dev/null 2>&1 & echo $! > /tmp/holder; {holder} \
                 ip link add link eth0 name mv0 type macvlan && ip link set mv0 netns $H && nsenter -t $H -n sh -c \
                 'ip addr add {other}/{bits} dev mv0; ip link set mv0 up; ip link set lo up'",
        send: "nsenter -t $(cat /tmp/holder) -n actor flood --proto udp --to {to} --lasting 300 --pause 300",
        from: From::Other,
    },
    Attempt {
        name: "undo/forwarded-from-another-namespace",
        before: "unshare -n sleep 600 > /dev/null 2>&1 & echo $! > /tmp/holder; {holder} \
                 ip link add v0 type veth && ip link set $(ls /sys/class/net | grep veth) name v1 && \
                 ip link set v1 netns $H && \
                 ip addr add 169.254.7.1/24 dev v0 && ip link set v0 up && ip route add {other}/32 dev v0 && \
                 echo 1 > /proc/sys/net/ipv4/ip_forward && nsenter -t $H -n sh -c \
                 'ip addr add 169.254.7.2/24 dev v1; ip addr add {other}/32 dev v1; ip link set v1 up; \
                  ip route add {gateway}/32 via 169.254.7.1 src {other}'",
        send: "nsenter -t $(cat /tmp/holder) -n actor flood --proto udp --to {to} --lasting 300 --pause 300",
        from: From::Other,
    },
    Attempt {
        name: "undo/forwarded-from-a-tunnel",
        before: "echo 1 > /proc/sys/net/ipv4/ip_forward; mkdir -p /dev/net; \
                 test -c /dev/net/tun || mknod /dev/net/tun c 10 200",
        send: "actor flood --proto tunnel --from {other} --to {to} --lasting 300 --pause 300",
        from: From::Other,
    },
];

/// Learns the next hop's hardware address.
const NEXT_HOP: &str =
    "ping -c 1 {gateway} > /dev/null; ip neigh | grep '^{gateway} ' | sed 's/.*lladdr //;s/ .*//' > /tmp/mac";

/// A helper process of another container, which is not isolated, sends over a socket that the isolated one made.
const PASSED: &str = "undo/socket-passed-to-another-container";

fn names() -> Vec<String> {
    ATTEMPTS.iter().map(|attempt| attempt.name).chain([PASSED]).map(str::to_owned).chain(gaps::names()).collect()
}

fn run(context: &mut Context, report: &mut Report) {
    for attempt in &ATTEMPTS {
        report.check(attempt.name, || try_it(context, attempt));
    }
    report.check(PASSED, || passed(context));
    gaps::run(context, report);
}

/// Waits until the process is in its namespace, and calls it H.
const HOLDER: &str = "H=$(cat /tmp/holder); \
                      until [ $(readlink /proc/$H/ns/net) != $(readlink /proc/self/ns/net) ]; do sleep 0.02; done;";

/// An address of the network that none of its containers gets: the plug-ins count up, and this is one of the last.
fn unused(own: IpAddr) -> Result<Ipv4Addr> {
    let IpAddr::V4(own) = own else { anyhow::bail!("{own} is no IPv4 address") };
    let [a, b, ..] = own.octets();
    Ok(Ipv4Addr::new(a, b, 255, 251))
}

fn try_it(context: &mut Context, attempt: &Attempt) -> Result<()> {
    context.enforcer()?;
    let sleeping = ["actor", "sleep", "600000"];
    let container = context.run(&context.spec(Needs::Privileged, RULE, Mitigation::Isolate, sleeping))?;
    context.enforcer()?.container(container.id())?;
    let own = address4(&container)?;
    let other = unused(own)?;
    let (gateway, port) = (context.places.gateway4.clone(), context.sink.port());
    let run = |script: &str| -> Result<Output> {
        let script = script
            .replace("{holder}", HOLDER)
            .replace("{to}", &format!("{gateway}:{port}"))
            .replace("{gateway}", &gateway)
            .replace("{own}", &own.to_string())
            .replace("{other}", &other.to_string())
            .replace("{bits}", &PREFIX4.to_string());
        container.exec(["sh", "-c", &script])
    };
    let from: IpAddr = if attempt.from == From::Own { own } else { other.into() };
    context.sink.forget(from);
    let ready = run(attempt.before)?;
    ensure!(ready.status == 0, "what it needs could not be made: {ready:?}");
    let sent = run(attempt.send)?;
    ensure!(sent.status == 0 && sent.stdout.contains("sent "), "before the isolation it could not send: {sent:?}");
    let arrived = wait::until("something arrived before the isolation", || Ok(context.sink.from(from).count > 0));
    arrived.with_context(|| format!("{sent:?}"))?;

    let cut = violate(context, &container)?;
    let again = run(attempt.send)?;
    // That it can't even connect is what isolation is for; but it must not have stopped for want of something else.
    ensure!(again.status != 9, "the second time it could not be tried: {again:?}");
    thread::sleep(Duration::from_millis(200));
    let last = context.sink.from(from).last;
    ensure!(last <= cut, "a packet of {} ns after the violation arrived: {again:?}", last - cut);
    Ok(())
}

fn passed(context: &mut Context) -> Result<()> {
    context.enforcer()?;
    let shared = context.node.directory().join("passed-socket");
    fs::create_dir(&shared)?;
    let source = shared.to_str().context("its name is no text")?.to_owned();
    let to = format!("{}:{}", context.places.gateway4, context.sink.port());
    let spec = |mitigation, command: &[&str]| {
        let spec = context.spec(Needs::Privileged, RULE, mitigation, command.iter().copied());
        spec.mount("bind", &source, "/shared", &["rbind", "rw"])
    };
    let (giver, taker) = (
        spec(Mitigation::Isolate, &["actor", "hand", "/shared/socket"]),
        spec(
            Mitigation::Log,
            &[
                "actor",
                "flood",
                "--proto",
                "passed",
                "--through",
                "/shared/socket",
                "--to",
                &to,
                "--lasting",
                "4000",
                "--pause",
                "300",
            ],
        ),
    );
    let giver = context.run(&giver)?;
    giver.wait_for_output("waiting")?;
    let own = address4(&giver)?;
    let taker = context.run(&taker)?;
    context.sink.wait_for_more(own, 20).context("over the passed socket, before the isolation")?;
    let cut = violate(context, &giver)?;
    taker.wait()?;
    let last = context.sink.from(own).last;
    ensure!(last <= cut, "a packet of {} ns after the violation arrived", last - cut);
    ensure!(taker.stdout().contains("sent "), "the helper did not go on: {}", taker.stdout());
    Ok(())
}
