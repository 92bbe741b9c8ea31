//! What the scenarios play on: a node with two pods, all of it made here and gone afterwards.
//!
//! ```text
//!   pod (governed, slot 1)      node                        other (not governed)
//!   eth0 10.99.0.2, fd99::2 --- pod0 10.99.0.1, fd99::1
//!                               other0 10.98.0.1 ---------- eth0 10.98.0.2
//! ```

use crate::frame::Mac;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// The object's path, or what is missing.
pub fn requirements() -> Result<PathBuf, String> {
    let object = env::var_os("RINGFENCE_EBPF_OBJECT")
        .ok_or("RINGFENCE_EBPF_OBJECT does not name the built eBPF object (cargo xtask test sets it)")?;
    if !nix::unistd::geteuid().is_root() {
        return Err("not root".to_owned());
    }
    cgroup2().ok_or("no cgroup v2 is mounted")?;
    Command::new("ip").arg("-V").output().map_err(|error| format!("ip: {error}"))?;
    Ok(object.into())
}

/// A directory with a bpf file system that only this process sees.
pub struct Bpffs(PathBuf);

impl Bpffs {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // Its mount goes with our mount namespace anyway; the directory does not.
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}

/// Network and mounts of our own: what is made in them goes with this process.
pub fn enter_own_namespaces() -> Bpffs {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("own namespaces");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("private mounts");
    let directory = env::temp_dir().join(format!("ringfence-netiso-{}", std::process::id()));
    fs::create_dir(&directory).expect("a directory");
    mount(Some("bpf"), &directory, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a bpf file system");
    ip("link set lo up");
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding");
    Bpffs(directory)
}

fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (path, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| path.into())
    })
}

/// Runs `ip` in our namespace.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A cgroup, removed at the end.
pub struct Cgroup(PathBuf);

impl Cgroup {
    pub fn new() -> Self {
        let path = cgroup2().expect("checked").join(format!("ringfence-netiso-{}", std::process::id()));
        fs::create_dir(&path).expect("a cgroup");
        fs::create_dir(path.join("pod")).expect("a cgroup");
        Self(path)
    }

    pub fn parent(&self) -> &Path {
        &self.0
    }

    pub fn pod(&self) -> PathBuf {
        self.0.join("pod")
    }

    /// What the kernel side knows the pod's cgroup by.
    pub fn pod_key(&self) -> u64 {
        fs::metadata(self.pod()).expect("its cgroup").ino()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in [self.pod(), self.0.clone()] {
            // A process that was just killed leaves its cgroup a moment later.
            for _ in 0..100 {
                if fs::remove_dir(&path).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

/// An actor's process.
pub struct Actor {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Actor {
    pub fn start(cgroup: Option<&Path>, namespace: &str) -> Self {
        let mut child = Command::new("/proc/self/exe")
            .arg("actor")
            .arg(cgroup.unwrap_or(Path::new("-")))
            .arg(namespace)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("an actor");
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut actor = Self { child, to, from: BufReader::new(from) };
        assert_eq!(actor.answer(), Ok("ready".to_owned()));
        actor
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it answers to a command; an error is the error it met.
    pub fn try_do(&mut self, command: &str) -> Result<String, String> {
        writeln!(self.to, "{command}").expect("the actor lives");
        self.answer()
    }

    /// What it answers to a command that has to work.
    pub fn must(&mut self, command: &str) -> String {
        self.try_do(command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("the actor lives");
        let line = line.trim_end();
        match line.split_once(' ') {
            Some(("ok", text)) => Ok(text.to_owned()),
            Some(("error", text)) => Err(text.to_owned()),
            _ => match line {
                "ok" => Ok(String::new()),
                other => panic!("the actor said {other:?}"),
            },
        }
    }

    /// The hardware address of its interface.
    pub fn mac(&self) -> Mac {
        parse_mac(self.ip("-o link show eth0").as_bytes())
    }

    /// Runs `ip` in its namespace.
    pub fn ip(&self, arguments: &str) -> String {
        let pid = self.pid().to_string();
        let output = Command::new("nsenter")
            .args(["-t", &pid, "-n", "ip"])
            .args(arguments.split(' '))
            .output()
            .expect("nsenter");
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The node and its pods.
pub struct Stage {
    pub pod: Actor,
    pub other: Actor,
    /// On the node itself, not governed.
    pub node: Actor,
    /// Last: it can be removed once the pod's process is gone.
    pub cgroup: Cgroup,
}

impl Stage {
    pub fn new() -> Self {
        let cgroup = Cgroup::new();
        let pod = Actor::start(Some(&cgroup.pod()), "new");
        let other = Actor::start(None, "new");
        let node = Actor::start(None, "-");
        let stage = Self { pod, other, node, cgroup };
        stage.pod.ip("link set lo up");
        stage.other.ip("link set lo up");
        stage
    }

    /// Gives the pod its veth.
    pub fn wire_pod(&self) {
        wire("pod0", &self.pod);
        ip("addr add 10.99.0.1/24 dev pod0");
        ip("addr add fd99::1/64 dev pod0 nodad");
        self.pod.ip("addr add 10.99.0.2/24 dev eth0");
        self.pod.ip("addr add fd99::2/64 dev eth0 nodad");
        self.pod.ip("route add default via 10.99.0.1");
    }

    /// Both on one bridge of the node: 10.97.0.1 and `fd97::1`; the pod .2, the other .3.
    pub fn wire_bridge(&self) {
        ip("link add br0 type bridge");
        ip("link set br0 up");
        ip("addr add 10.97.0.1/24 dev br0");
        ip("addr add fd97::1/64 dev br0 nodad");
        for (name, actor, number) in [("pod0", &self.pod, 2), ("other0", &self.other, 3)] {
            wire(name, actor);
            ip(&format!("link set {name} master br0"));
            actor.ip(&format!("addr add 10.97.0.{number}/24 dev eth0"));
            actor.ip(&format!("addr add fd97::{number}/64 dev eth0 nodad"));
        }
    }

    pub fn wire_other(&self) {
        wire("other0", &self.other);
        ip("addr add 10.98.0.1/24 dev other0");
        self.other.ip("addr add 10.98.0.2/24 dev eth0");
        self.other.ip("route add default via 10.98.0.1");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The namespaces live on until the kernel has cleaned up; the names are wanted again before that.
        for name in ["pod0", "other0", "br0", "card0", "toward0"] {
            let _ = Command::new("ip").args(["link", "del", name]).output();
        }
    }
}

fn wire(name: &str, actor: &Actor) {
    ip(&format!("link add {name} type veth peer name eth0 netns {}", actor.pid()));
    ip(&format!("link set {name} up"));
    actor.ip("link set eth0 up");
}

/// The hardware address of an interface of the node.
pub fn mac(name: &str) -> Mac {
    parse_mac(&Command::new("ip").args(["-o", "link", "show", name]).output().expect("ip").stdout)
}

fn parse_mac(output: &[u8]) -> Mac {
    let text = String::from_utf8_lossy(output).into_owned();
    let (_, rest) = text.split_once("link/ether ").expect("an Ethernet device");
    let bytes = rest.split([':', ' ']).take(6).map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal"));
    bytes.collect::<Vec<_>>().try_into().expect("six of them")
}
