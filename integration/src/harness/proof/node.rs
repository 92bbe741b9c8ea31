//! The node: streams, networks, privileges, and that it leaves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};

use super::super::cni::Network;
use super::super::{cgroup, sweep};
use super::{IMAGE, is_alive, node_with_image, sleeper};
use crate::harness::{Output, Spec};

/// Both streams, apart; exit statuses; signals.
pub fn streams_and_status() -> Result<()> {
    let node = node_with_image()?;
    let container = node.run(&Spec::new(IMAGE, ["sh", "-c", "echo out; echo err >&2; exit 7"]))?;
    let status = container.wait()?;
    let told = (status, container.stdout(), container.stderr());
    ensure!(told == (7, "out\n".into(), "err\n".into()), "{told:?}");

    let container = node.run(&sleeper())?;
    let output = container.exec(["sh", "-c", "echo $((6*7)); echo no >&2; exit 3"])?;
    ensure!(output == Output { status: 3, stdout: "42\n".into(), stderr: "no\n".into() }, "{output:?}");
    let output = container.exec(["sh", "-c", "kill -9 $$"])?;
    ensure!(output.status == 137, "{output:?}");
    let missing = container.exec(["no-such-program"]);
    ensure!(missing.is_err(), "{missing:?}");
    ensure!(container.is_running()?, "it should run");
    container.kill(9)?;
    ensure!(container.wait()? == 137, "killed");
    ensure!(!container.is_running()?, "it should have ended");
    // More than a pipe holds.
    let container = node.run(&Spec::new(IMAGE, ["sh", "-c", "yes | head -c 1000000"]))?;
    ensure!(container.wait()? == 0 && container.stdout().len() == 1_000_000, "{} bytes", container.stdout().len());
    Ok(())
}

/// A terminal is one to the program, and standard input reaches it.
pub fn terminal_and_input() -> Result<()> {
    let node = node_with_image()?;
    let script = "[ -t 0 ] && [ -t 1 ] && echo terminal || echo none";
    let container = node.run(&Spec::new(IMAGE, ["sh", "-c", script]).tty())?;
    container.wait()?;
    ensure!(container.stdout() == "terminal\r\n", "{:?}", container.stdout());
    let mut container = node.run(&Spec::new(IMAGE, ["sh", "-c", "read line; echo got $line; cat"]).stdin())?;
    container.write(b"one\n")?;
    container.wait_for_output("got one")?;
    container.write(b"two\n")?;
    container.close_stdin()?;
    ensure!(container.wait()? == 0 && container.stdout() == "got one\ntwo\n", "{:?}", container.stdout());
    let container = node.run(&sleeper())?;
    ensure!(container.exec_tty(["sh", "-c", script])?.stdout == "terminal\r\n", "exec with a terminal");
    ensure!(container.exec(["sh", "-c", script])?.stdout == "none\n", "exec without one");
    Ok(())
}

/// Drift is told by the overlay's upper layer: the root must be an overlay.
pub fn root_is_overlay() -> Result<()> {
    let node = node_with_image()?;
    let container = node.run(&sleeper())?;
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", container.pid()))?;
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).context("no root")?;
    ensure!(root.contains(" - overlay overlay ") && root.contains("upperdir="), "{root}");
    let output = container.exec(["sh", "-c", "cp /bin/busybox /tmp/busybox && /tmp/busybox echo runs"])?;
    ensure!(output.stdout == "runs\n", "{output:?}");
    Ok(())
}

/// What an ordinary container may not, a privileged one may.
pub fn privileges() -> Result<()> {
    let node = node_with_image()?;
    let script = "mount -t tmpfs none /mnt && echo mounted; [ -b /dev/vda ] || ls /dev | wc -l; cat /proc/self/status | grep CapEff";
    let image_with_mnt = |spec: Spec| spec.tmpfs("/mnt");
    let ordinary = node.run(&image_with_mnt(sleeper()))?.exec(["sh", "-c", script])?;
    let privileged = node.run(&image_with_mnt(sleeper()).privileged())?.exec(["sh", "-c", script])?;
    ensure!(
        !ordinary.stdout.contains("mounted") && privileged.stdout.contains("mounted"),
        "{ordinary:?} {privileged:?}"
    );
    let one = node.run(&image_with_mnt(sleeper()).capability("CAP_SYS_ADMIN"))?.exec(["sh", "-c", script])?;
    ensure!(one.stdout.contains("mounted"), "{one:?}");
    let user = node.run(&sleeper().user(65534, 65534))?.exec(["id", "-u"])?;
    ensure!(user.stdout == "65534\n", "{user:?}");
    Ok(())
}

/// The bridge's network.
pub fn bridge() -> Result<()> {
    let node = node_with_image()?;
    reach(&node, node.bridge())
}

/// The network of veth pairs.
pub fn point_to_point() -> Result<()> {
    let node = node_with_image()?;
    reach(&node, node.ptp())
}

/// Ping and TCP to the node, IPv4 and IPv6, at once, and between containers.
fn reach(node: &crate::harness::Node, network: &Network) -> Result<()> {
    let container = node.run(&sleeper().network(network))?;
    ensure!(container.addresses().len() == 2, "{:?}", container.addresses());
    for gateway in [IpAddr::from(network.gateway4()), network.gateway6().into()] {
        let output = container.exec(["ping", "-c", "1", "-W", "2", &gateway.to_string()])?;
        ensure!(output.status == 0, "{output:?}");
        let listener = node.within(|| TcpListener::bind(SocketAddr::new(gateway, 0)))?;
        let port = listener.local_addr()?.port().to_string();
        let peer = thread::spawn(move || -> Result<String> {
            let (mut stream, _) = listener.accept()?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        let script = format!("echo hello | nc -w 5 {gateway} {port}");
        let output = container.exec(["sh", "-c", &script])?;
        ensure!(output.status == 0, "{output:?}");
        ensure!(peer.join().ok().context("panicked")?? == "hello\n", "through {gateway}");
    }
    let second = node.run(&sleeper().network(network))?;
    for address in container.addresses() {
        let output = second.exec(["ping", "-c", "1", "-W", "2", &address.to_string()])?;
        ensure!(output.status == 0, "{output:?}");
    }
    let interface = container.host_interface().context("no host interface")?.to_owned();
    let links =
        || -> Result<String> { Ok(String::from_utf8(node.command("ip").args(["-o", "link"]).output()?.stdout)?) };
    ensure!(links()?.contains(&format!(" {interface}@")), "{interface} is not on the node");
    container.remove()?;
    ensure!(!links()?.contains(&format!(" {interface}@")), "{interface} is still on the node");
    Ok(())
}

/// The node's network is not the machine's, and a container with it shares it.
pub fn host_network() -> Result<()> {
    let node = node_with_image()?;
    let machine = fs::read_link("/proc/self/ns/net")?;
    let own = node.within(|| fs::read_link("/proc/thread-self/ns/net"))?;
    ensure!(own != machine, "the node is in the machine's network namespace");
    let container = node.run(&sleeper().host_network())?;
    ensure!(fs::read_link(format!("/proc/{}/ns/net", container.pid()))? == own, "another namespace");
    ensure!(
        node.command("readlink").arg("/proc/self/ns/net").output()?.stdout.trim_ascii()
            == own.as_os_str().as_encoded_bytes(),
        "command"
    );
    let listener = node.within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let port = listener.local_addr()?.port();
    // busybox's nc ends when its peer does.
    let accepted = thread::spawn(move || listener.accept().map(drop));
    let script = format!("echo hi | nc -w 5 127.0.0.1 {port}");
    let output = container.exec(["sh", "-c", &script])?;
    ensure!(output.status == 0, "{output:?}");
    ensure!(accepted.join().is_ok_and(|result| result.is_ok()), "nobody connected");
    // The machine's loopback is another one.
    ensure!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "the machine reaches the node's loopback");
    Ok(())
}

/// Everything that bears a node's name, and mounts, and interfaces of the machine.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    mounts: BTreeSet<String>,
    interfaces: BTreeSet<PathBuf>,
    named: BTreeSet<PathBuf>,
}

impl Machine {
    fn look(name: &str) -> Result<Self> {
        let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut named: BTreeSet<PathBuf> =
            entries(Path::new(sweep::DIRECTORY)).filter(|path| path.ends_with(name)).collect();
        for own in [name.to_owned(), sweep::daemon_cgroup(name)] {
            named.extend(cgroup::directories(&own)?);
        }
        Ok(Self {
            mounts: fs::read_to_string("/proc/self/mountinfo")?.lines().map(str::to_owned).collect(),
            interfaces: entries(Path::new("/sys/class/net")).collect(),
            named,
        })
    }
}

/// After the node is stopped, with containers still running.
pub fn nothing_is_left() -> Result<()> {
    let before = Machine::look("none")?;
    let node = node_with_image()?;
    let name = node.namespace().to_owned();
    let plain = node.run(&sleeper().network(node.bridge()))?;
    let fork = Spec::new(IMAGE, ["sh", "-c", "sleep 600 & sleep 600 & echo ready; wait"]);
    let forking = node.run(&fork.network(node.ptp()))?;
    forking.wait_for_output("ready")?;
    let pids = [super::pids(&plain)?, super::pids(&forking)?].concat();
    let during = Machine::look(&name)?;
    ensure!(
        during.mounts == before.mounts && during.interfaces == before.interfaces,
        "the machine sees it: {during:?}"
    );
    ensure!(!during.named.is_empty() && pids.len() >= 3, "{during:?} {pids:?}");
    node.stop()?;
    ensure!(Machine::look(&name)? == before, "left: {:?}", Machine::look(&name)?);
    let alive: Vec<u32> = pids.into_iter().filter(|&pid| is_alive(pid)).collect();
    ensure!(alive.is_empty(), "still alive: {alive:?}");
    Ok(())
}

/// A failing test unwinds.
pub fn nothing_is_left_after_a_panic() -> Result<()> {
    let before = Machine::look("none")?;
    let mut name = String::new();
    let mut pid = 0;
    let panicked = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
        let node = node_with_image()?;
        let container = node.run(&sleeper().network(node.bridge()))?;
        (name, pid) = (node.namespace().to_owned(), container.pid());
        std::panic::resume_unwind(Box::new("as a failing assertion would"));
    }));
    ensure!(panicked.is_err() && pid != 0, "it should have panicked: {panicked:?}");
    ensure!(Machine::look(&name)? == before && !is_alive(pid), "left: {:?}", Machine::look(&name)?);
    Ok(())
}

/// What a killed run leaves: processes in cgroups by its name, and a folder.
pub fn stale_remains_are_swept() -> Result<()> {
    // A pid that was given away and is free again.
    let mut gone = Command::new("true").spawn()?;
    let name = format!("{}{}-1", sweep::PREFIX, gone.id());
    gone.wait()?;
    fs::create_dir_all(Path::new(sweep::DIRECTORY).join(&name).join("root"))?;
    let mut left = Vec::new();
    for cgroup in [format!("{name}/c1"), sweep::daemon_cgroup(&name)] {
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::piped()).spawn()?;
        let confined = cgroup::confine(&cgroup, child.id());
        if confined.is_err() {
            child.kill()?;
        }
        confined?;
        left.push(child);
    }
    let swept = sweep::stale();
    for child in &mut left {
        // Ends at once if it was swept away, and must not outlive this test otherwise.
        let _ = child.stdin.take().map(|mut input| input.flush());
        if is_alive(child.id()) {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("process {} outlived the sweep", child.id());
        }
        child.wait()?;
    }
    swept?;
    let after = Machine::look(&name)?;
    ensure!(after.named.is_empty(), "left: {:?}", after.named);
    Ok(())
}
