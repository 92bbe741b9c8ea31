//! An isolated container with `CAP_NET_ADMIN` in the node's user namespace makes itself an interface on a device of the
//! node. No program of ours sees its frames: the container is terminated.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::net::if_::if_nametoindex;
use ringfence_actor::now;
use ringfence_control::Status;
use ringfence_policy::Mitigation;

use super::super::context::{Context, address4};
use super::super::isolation::{RULE, violate};
use super::super::report::Report;
use super::{HOLDER, unused};
use crate::cases::Needs;
use crate::enforcer::Enforcer;
use crate::harness::{Container, Output, PREFIX4};
use crate::wait;

type Test = fn(&mut Context) -> Result<()>;

const TESTS: [(&str, Test); 6] = [
    ("undo/macvlan-on-the-node", on_the_node),
    ("undo/macvlan-on-the-node-in-another-namespace", elsewhere),
    ("undo/macvlan-on-the-node-without-enforcer", without_enforcer),
    ("undo/macvlan-on-the-node-before", before),
    ("undo/macvlan-on-the-node-isolated-by-hand", by_hand),
    ("undo/interfaces-of-its-own", of_its_own),
];

pub fn names() -> impl Iterator<Item = String> {
    TESTS.iter().map(|(name, _)| (*name).to_owned())
}

pub fn run(context: &mut Context, report: &mut Report) {
    for (name, test) in TESTS {
        report.check(name, || test(context));
    }
}

/// A network card of the node, which leads to the sink: one end of a veth, the other end of which is the world outside.
struct Card {
    index: u32,
    /// Hardware address of the world outside.
    next: String,
}

impl Card {
    /// There is one for all tests. It goes with the node.
    fn of(context: &Context) -> Result<Self> {
        const NAME: &str = "card0";
        let ip = |words: &str| -> Result<String> {
            let output = context.node.command("ip").args(words.split(' ')).output()?;
            ensure!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(String::from_utf8(output.stdout)?)
        };
        if context.node.within(|| if_nametoindex(NAME)).is_err() {
            ip(&format!("link add {NAME} type veth peer name outside0"))?;
            ip(&format!("link set {NAME} up"))?;
            ip("link set outside0 up")?;
        }
        let index = context.node.within(|| if_nametoindex(NAME))?;
        let outside = ip("-o link show outside0")?;
        let next = outside.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        Ok(Self { index, next: next.context("no hardware address")?.to_owned() })
    }
}

/// A container that root runs in.
struct Scene {
    container: Container,
    card: Card,
    from: IpAddr,
    to: String,
    other: String,
}

impl Scene {
    fn set(context: &mut Context) -> Result<Self> {
        context.enforcer()?;
        let sleeping = ["actor", "sleep", "600000"];
        let container = context.run(&context.spec(Needs::Privileged, RULE, Mitigation::Isolate, sleeping))?;
        context.enforcer()?.container(container.id())?;
        let from = address4(&container)?;
        let other = unused(from)?.to_string();
        let to = format!("{}:{}", context.places.gateway4, context.sink.port());
        Ok(Self { card: Card::of(context)?, container, from, to, other })
    }

    fn run(&self, script: &str) -> Result<Output> {
        let script = script
            .replace("{holder}", HOLDER)
            .replace("{make}", &format!("actor link mv0 --kind macvlan --on {} --of 0", self.card.index))
            .replace("{flood}", "actor flood --proto packet --interface mv0 --pause 300")
            .replace("{there}", &format!("--to {} --mac {}", self.to, self.card.next))
            .replace("{other}", &self.other)
            .replace("{bits}", &PREFIX4.to_string());
        self.container.exec(["sh", "-c", &script])
    }

    fn must(&self, script: &str) -> Result<Output> {
        let output = self.run(script)?;
        ensure!(output.status == 0, "{script}: {output:?}");
        Ok(output)
    }

    /// It can't be done any more: the container is ended meanwhile, and by what it did.
    fn must_not(&self, script: &str) -> Result<()> {
        match self.run(script) {
            Ok(output) if output.status == 9 => bail!("it could not be tried: {output:?}"),
            Ok(output) if output.status == 0 => bail!("it went on to its end: {output:?}"),
            // The runtime may find the container gone.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn gaps(&self, context: &mut Context) -> Result<Vec<String>> {
        let found = context.enforcer()?.container(self.container.id())?;
        Ok(found.gaps.iter().map(ToString::to_string).collect())
    }

    /// The container is dead, the enforcer has said why, and nothing leaves any more.
    fn is_ended(&self, context: &mut Context, from: IpAddr) -> Result<()> {
        let status = self.container.wait()?;
        ensure!(status == 137, "it ended with {status}, not by SIGKILL");
        let ended = now();
        thread::sleep(Duration::from_millis(200));
        let last = context.sink.from(from).last;
        ensure!(last <= ended, "a packet of {} ns after the termination arrived", last - ended);
        let lines = said(context.enforcer()?, &self.container);
        let [line] = &lines[..] else { bail!("the enforcer said of it {lines:?}") };
        ensure!(line.contains("and is terminated") && line.contains("mv0 is a macvlan device"), "{line}");
        Ok(())
    }
}

/// What the enforcer has said of ways past a container's isolation.
fn said(enforcer: &Enforcer, container: &Container) -> Vec<String> {
    let messages = enforcer.messages();
    let lines = messages.lines().filter(|line| line.contains(container.id()) && line.contains("past that"));
    lines.map(str::to_owned).collect()
}

/// Waits until the enforcer says so.
fn until(context: &mut Context, what: &str, holds: impl Fn(&mut Context) -> Result<bool>) -> Result<()> {
    wait::until(what, || holds(context)).with_context(|| context.enforcer_says())
}

fn warned(status: &Status, scene: &Scene) -> bool {
    let name = format!("container {}: isolated", scene.container.id());
    status.warnings.iter().any(|warning| warning.contains(&name) && warning.contains("mv0 is a macvlan device"))
}

/// By it packets get out; it is taken away again before the container is isolated, and made anew after that.
fn on_the_node(context: &mut Context) -> Result<()> {
    let scene = Scene::set(context)?;
    context.sink.forget(scene.from);
    scene.must("{make} && ip link set mv0 up && {flood} {there} --lasting 300")?;
    until(context, "what it sent by the macvlan", |context| Ok(context.sink.from(scene.from).count > 0))?;
    until(context, "the gap in status", |context| {
        let gaps = scene.gaps(context)?;
        Ok(gaps == ["mv0 is a macvlan device: it has no host side to be seen"])
    })?;
    scene.must("ip link del mv0")?;
    until(context, "its end in status", |context| Ok(scene.gaps(context)?.is_empty()))?;
    violate(context, &scene.container)?;
    scene.must_not("{make} || exit 9; ip link set mv0 up; {flood} {there} --lasting 60000")?;
    scene.is_ended(context, scene.from)
}

/// One in a network namespace that only a process of the container is in. Before the violation nobody looks there; then
/// it is what it did not have.
fn elsewhere(context: &mut Context) -> Result<()> {
    let scene = Scene::set(context)?;
    let from: IpAddr = scene.other.parse()?;
    context.sink.forget(from);
    scene.must(
        "unshare -n sleep 600 > /dev/null 2>&1 & echo $! > /tmp/holder; {holder} {make} && ip link set mv0 netns $H && \
         nsenter -t $H -n sh -c 'ip addr add {other}/{bits} dev mv0; ip link set mv0 up'",
    )?;
    scene.must("nsenter -t $(cat /tmp/holder) -n {flood} {there} --lasting 300")?;
    until(context, "what it sent by the macvlan", |context| Ok(context.sink.from(from).count > 0))?;
    // It may be dead before that is over.
    let _ = scene.run("cat /etc/shadow; sleep 60");
    scene.is_ended(context, from)?;
    let lines = said(context.enforcer()?, &scene.container);
    ensure!(lines.iter().all(|line| line.contains("in another network namespace of its processes: mv0")), "{lines:?}");
    Ok(())
}

/// Nobody looks when it is made. The next enforcer knows that the container did not have it.
fn without_enforcer(context: &mut Context) -> Result<()> {
    let scene = Scene::set(context)?;
    violate(context, &scene.container)?;
    context.take_enforcer()?.crash()?;
    scene.must("{make} && ip link set mv0 up")?;
    context.enforcer()?;
    scene.is_ended(context, scene.from)
}

/// What it had when it was isolated it had. It is in status.
fn before(context: &mut Context) -> Result<()> {
    let scene = Scene::set(context)?;
    scene.must("{make}")?;
    until(context, "the gap in status", |context| Ok(!scene.gaps(context)?.is_empty()))?;
    violate(context, &scene.container)?;
    witness(context)?;
    ensure!(scene.container.is_running()?, "it was terminated");
    ensure!(!scene.gaps(context)?.is_empty(), "status does not show the gap");
    ensure!(said(context.enforcer()?, &scene.container).is_empty(), "something was said of it");
    Ok(())
}

/// Who was only isolated because somebody asked for that lives on, and it is told. With a violation that ends.
fn by_hand(context: &mut Context) -> Result<()> {
    let scene = Scene::set(context)?;
    context.enforcer()?.isolate(scene.container.id())?;
    scene.must("{make}")?;
    until(context, "the warning", |context| Ok(warned(&context.enforcer()?.status()?, &scene)))?;
    // An enforcer that is started meanwhile knows it too.
    context.take_enforcer()?.crash()?;
    until(context, "the warning of the next one", |context| Ok(warned(&context.enforcer()?.status()?, &scene)))?;
    let lines = said(context.enforcer()?, &scene.container);
    ensure!(lines.len() == 1 && lines[0].contains("because it was isolated by hand"), "{lines:?}");
    ensure!(scene.container.is_running()?, "it was terminated");
    // It is dead before the command is over, or right after that.
    let _ = scene.run("cat /etc/shadow");
    let status = scene.container.wait()?;
    ensure!(status == 137, "it ended with {status}, not by SIGKILL");
    until(context, "the end of the warning", |context| Ok(!warned(&context.enforcer()?.status()?, &scene)))
}

/// What leads nowhere, or to its own interface, it may make.
fn of_its_own(context: &mut Context) -> Result<()> {
    let scene = Scene::set(context)?;
    violate(context, &scene.container)?;
    scene.must(
        "unshare -n sleep 600 > /dev/null 2>&1 & echo $! > /tmp/holder; {holder} \
         ip link add p0 type veth && ip link set $(ls /sys/class/net | grep veth) name p1 && \
         ip link set p0 up && ip link set p1 up && \
         ip link add b0 type bridge && ip link set b0 up && \
         ip link add link eth0 name own0 type macvlan && ip link set own0 up && \
         ip link add link eth0 name own1 type macvlan && ip link set own1 netns $H && \
         ip link add q0 type veth && ip link set $(ls /sys/class/net | grep veth) netns $H",
    )?;
    // Not every kernel has these.
    scene.run("ip link add d0 type dummy && ip link set d0 up")?;
    scene.run(
        "mkdir -p /dev/net; test -c /dev/net/tun || mknod /dev/net/tun c 10 200; \
         actor flood --proto tunnel --from {other} --to 192.0.2.1:9 --lasting 100",
    )?;
    witness(context)?;
    ensure!(scene.container.is_running()?, "it was terminated: {:?}", said(context.enforcer()?, &scene.container));
    ensure!(said(context.enforcer()?, &scene.container).is_empty(), "something was said of it");
    Ok(())
}

/// Another container is terminated: whatever was to be found until now has been looked at by then.
fn witness(context: &mut Context) -> Result<()> {
    let scene = Scene::set(context)?;
    violate(context, &scene.container)?;
    scene.must_not("{make} || exit 9; sleep 60")?;
    scene.is_ended(context, scene.from)
}
