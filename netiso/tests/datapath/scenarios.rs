//! What has to be true on every datapath.

use crate::{
    bridge, frame, namespaces, neighbours,
    stage::{Actor, Stage, mac},
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap},
    util::KernelVersion,
};
use ipnet::IpNet;
use ringfence_abi::{ExceptionPorts, PortRange, Slot, slot_flag};
use ringfence_netiso::{Datapaths, Error, Hook, Keep, Netns, Options, Switch, Watch, leftovers, open, uninstall};
use std::{
    fs,
    net::Ipv4Addr,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::Duration,
};

pub const SLOT: u32 = 1;

/// Protocol number.
const UDP: u16 = 17;

fn everything(network: &str) -> (IpNet, ExceptionPorts) {
    (network.parse().unwrap(), ExceptionPorts::ALL)
}

/// Maps that outlive an enforcer.
const MAPS: [&str; 9] = [
    "ATTACHED",
    "CGROUPS",
    "EXCEPTIONS",
    "ISOLATED",
    "NEIGHBOUR_AT",
    "NODE_ADDRESSES",
    "PROBE_FLOWS",
    "SLOTS",
    "VETHS",
];

/// Which datapath is alone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Only {
    Cgroup,
    Tcx,
    Clsact,
}

/// An enforcer, as far as this crate is concerned.
pub struct Enforcer {
    ebpf: Ebpf,
    pub switch: Switch,
    pub datapaths: Datapaths,
}

/// Runs those whose names hold `filter` and says how each went; whether none failed.
pub async fn run(object: &Path, bpffs: &Path, filter: &str) -> bool {
    let code = fs::read(object).unwrap_or_else(|error| panic!("{}: {error}", object.display()));
    let mut report = Report { filter, passed: 0, failed: 0, skipped: 0 };
    for only in [Only::Cgroup, Only::Tcx, Only::Clsact] {
        if only == Only::Tcx && KernelVersion::current().unwrap() < KernelVersion::new(6, 6, 0) {
            println!("skipped datapath/tcx: this kernel has none (Linux 6.6)");
            report.skipped += 1;
            continue;
        }
        let scene = Scene { only, code: &code, bpffs };
        scene.check(&mut report, "isolation", Box::pin(scene.isolation())).await;
        scene.check(&mut report, "exceptions", Box::pin(scene.exceptions())).await;
        scene.check(&mut report, "probes", Box::pin(scene.probes())).await;
        scene.check(&mut report, "restart", Box::pin(scene.restart())).await;
        if only != Only::Cgroup {
            scene.check(&mut report, "late-veth", Box::pin(scene.late_veth())).await;
            scene.check(&mut report, "bridge", Box::pin(bridge::spoofing(&scene))).await;
            scene.check(&mut report, "moved", Box::pin(namespaces::moved(&scene))).await;
            scene.check(&mut report, "gaps", Box::pin(namespaces::gaps(&scene))).await;
        }
        match only {
            Only::Cgroup => {}
            Only::Tcx => scene.check(&mut report, "neighbours", Box::pin(neighbours::tcx(&scene))).await,
            Only::Clsact => scene.check(&mut report, "neighbours", Box::pin(neighbours::clsact(&scene))).await,
        }
    }
    println!("{} passed, {} failed, {} skipped", report.passed, report.failed, report.skipped);
    report.failed == 0
}

/// How it went.
struct Report<'a> {
    filter: &'a str,
    passed: u32,
    failed: u32,
    skipped: u32,
}

pub struct Scene<'a> {
    only: Only,
    pub code: &'a [u8],
    bpffs: &'a Path,
}

impl Scene<'_> {
    async fn check(&self, report: &mut Report<'_>, name: &str, scenario: impl Future<Output = ()>) {
        let name = format!("datapath/{}/{name}", format!("{:?}", self.only).to_lowercase());
        if !name.contains(report.filter) {
            return;
        }
        let result = futures_util::FutureExt::catch_unwind(AssertUnwindSafe(scenario)).await;
        if result.is_ok() {
            println!("ok {name}");
            report.passed += 1;
        } else {
            println!("FAILED {name}: see above");
            report.failed += 1;
        }
        // A failed scenario must not make the next one fail.
        let _ = uninstall(&self.pins(), &Keep::default()).await;
        let _ = fs::remove_dir_all(self.bpffs.join("maps"));
        let _ = fs::remove_dir_all(self.pins());
    }

    fn pins(&self) -> PathBuf {
        self.bpffs.join("net")
    }

    /// Starts the enforcer: anew, or again on what is pinned.
    pub async fn start(&self, stage: &Stage) -> Enforcer {
        let maps = self.bpffs.join("maps");
        fs::create_dir_all(&maps).unwrap();
        fs::create_dir_all(self.pins()).unwrap();
        let mut loader = EbpfLoader::new();
        for name in MAPS {
            loader.map_pin_path(name, maps.join(name));
        }
        let mut ebpf = loader.load(self.code).unwrap();
        HashMap::<_, u64, u32>::try_from(ebpf.map_mut("CGROUPS").unwrap())
            .unwrap()
            .insert(stage.cgroup.pod_key(), SLOT, 0)
            .unwrap();
        let hook = (self.only == Only::Clsact).then_some(Hook::Clsact);
        let (switch, mut datapaths) = open(&mut ebpf, &self.pins(), Options { hook }).await.unwrap();
        if self.only == Only::Cgroup {
            datapaths.cover_cgroups(stage.cgroup.parent()).unwrap();
        }
        let mut enforcer = Enforcer { ebpf, switch, datapaths };
        enforcer.set_flags(0);
        enforcer
    }

    /// A stage with its enforcer, the pod armed.
    pub async fn set(&self) -> (Stage, Enforcer) {
        let stage = Stage::new();
        stage.wire_pod();
        stage.wire_other();
        let mut enforcer = self.start(&stage).await;
        self.arm(&stage, &mut enforcer).await;
        (stage, enforcer)
    }

    pub async fn arm(&self, stage: &Stage, enforcer: &mut Enforcer) {
        if self.only == Only::Cgroup {
            return;
        }
        let coverage = enforcer.datapaths.arm(SLOT, Netns::of_pid(stage.pod.pid()).unwrap()).await.unwrap();
        let hook = if self.only == Only::Tcx { Hook::Tcx } else { Hook::Clsact };
        assert_eq!(coverage.to_string(), format!("{hook} on pod0"));
        assert!(coverage.is_complete());
    }

    /// TCP established, UDP, raw and packet sockets, both families, both ways; and that all of it comes back.
    async fn isolation(&self) {
        let (mut stage, mut enforcer) = self.set().await;
        let (pods, nodes) = (Ipv4Addr::new(10, 99, 0, 2), Ipv4Addr::new(10, 99, 0, 1));
        let (pod_mac, node_mac) = (stage.pod.mac(), mac("pod0"));
        let packet = |text: &str| {
            let frame = frame::udp((pod_mac, (pods, 4242)), (node_mac, (nodes, 7000)), text);
            format!("frame eth0 {}", frame::to_hex(&frame))
        };
        let (pod, node, other) = (&mut stage.pod, &mut stage.node, &mut stage.other);
        node.must("bind [::]:7000");
        pod.must("bind [::]:7001");
        node.must("listen [::]:7002");
        pod.must("connect 10.99.0.1:7002");
        node.must("accept");
        let all_pass = |pod: &mut Actor, node: &mut Actor, round: &str| {
            pod.must(&format!("send 10.99.0.1:7000 v4-{round}"));
            assert_eq!(node.must("receive"), format!("v4-{round}"));
            pod.must(&format!("send [fd99::1]:7000 v6-{round}"));
            assert_eq!(node.must("receive"), format!("v6-{round}"));
            pod.must(&format!("raw 10.99.0.1 7000 raw-{round}"));
            assert_eq!(node.must("receive"), format!("raw-{round}"));
            pod.must(&packet(&format!("packet-{round}")));
            assert_eq!(node.must("receive"), format!("packet-{round}"));
            node.must(&format!("send [fd99::2]:7001 in-{round}"));
            assert_eq!(pod.must("receive"), format!("in-{round}"));
        };
        all_pass(pod, node, "before");
        pod.must("write before");
        assert_eq!(node.must("read"), "before");
        node.must("write back");
        assert_eq!(pod.must("read"), "back");

        enforcer.switch.isolate(SLOT).unwrap();
        // The socket side answers EPERM, the veth drops in silence; both are fine.
        for command in ["send 10.99.0.1:7000 leak", "send [fd99::1]:7000 leak", "raw 10.99.0.1 7000 leak"] {
            let _ = pod.try_do(command);
        }
        if self.only != Only::Cgroup {
            pod.must(&packet("leak"));
        }
        // DNS is nothing special.
        let _ = pod.try_do("send 10.98.0.2:53 leak");
        pod.must("write late");
        node.must("silence");
        node.must("write in-late");
        pod.must("silence");
        node.must("send 10.99.0.2:7001 leak");
        node.must("send [fd99::2]:7001 leak");
        other.must("send 10.99.0.2:7001 leak");
        pod.must("connect-in-vain 10.99.0.1:7002");
        pod.must("connect-in-vain [fd99::1]:7002");
        for own in ["127.0.0.1", "::1", "10.99.0.2", "fd99::2"] {
            pod.must(&format!("loopback {own}"));
        }
        // Nobody else is touched.
        other.must("send 10.98.0.1:7000 ungoverned");
        assert_eq!(node.must("receive"), "ungoverned", "what the isolated pod sent came first");
        let isolation = enforcer.switch.isolation(SLOT).unwrap();
        assert!(isolation.dropped >= 8, "{isolation:?}");
        enforcer.switch.isolate(SLOT).unwrap();
        assert_eq!(enforcer.switch.isolation(SLOT).unwrap().since, isolation.since, "isolating again keeps the time");

        assert_eq!(enforcer.switch.release(SLOT).unwrap().since, isolation.since);
        assert_eq!(enforcer.switch.isolation(SLOT).unwrap().since, 0);
        // Nothing that was sent during the isolation comes before what is sent now.
        all_pass(pod, node, "after");
        // A new connection; the old one's is up to TCP's own timers.
        pod.must("connect 10.99.0.1:7002");
        node.must("accept");
        pod.must("write again");
        assert_eq!(node.must("read"), "again");
    }

    /// Listed networks pass both ways, and only they; `strict` closes them too.
    async fn exceptions(&self) {
        let (mut stage, mut enforcer) = self.set().await;
        let (pod, node, other) = (&mut stage.pod, &mut stage.node, &mut stage.other);
        other.must("bind 0.0.0.0:7000");
        other.must("listen 0.0.0.0:7002");
        pod.must("bind 0.0.0.0:7001");
        node.must("bind 0.0.0.0:7000");
        enforcer.switch.isolate(SLOT).unwrap();
        let _ = pod.try_do("send 10.98.0.2:7000 leak");
        pod.must("connect-in-vain 10.98.0.2:7002");

        enforcer.switch.set_exceptions([everything("10.98.0.0/24")]).unwrap();
        pod.must("send 10.98.0.2:7000 listed");
        assert_eq!(other.must("receive"), "listed");
        other.must("send 10.99.0.2:7001 listed");
        assert_eq!(pod.must("receive"), "listed");
        pod.must("connect 10.98.0.2:7002");
        let _ = pod.try_do("send 10.99.0.1:7000 leak");

        enforcer.set_flags(slot_flag::STRICT);
        let _ = pod.try_do("send 10.98.0.2:7000 leak");
        other.must("send 10.99.0.2:7001 leak");
        enforcer.set_flags(0);
        enforcer.switch.set_exceptions([everything("10.98.0.2/32")]).unwrap();
        pod.must("send 10.98.0.2:7000 narrower");
        assert_eq!(other.must("receive"), "narrower");
        other.must("send 10.99.0.2:7001 narrower");
        assert_eq!(pod.must("receive"), "narrower");

        let ports = |first, last| {
            let range = PortRange { protocol: UDP, first, last };
            [("10.98.0.0/24".parse().unwrap(), ExceptionPorts::new(&[range]).unwrap())]
        };
        enforcer.switch.set_exceptions(ports(6000, 6999)).unwrap();
        let _ = pod.try_do("send 10.98.0.2:7000 leak");
        pod.must("connect-in-vain 10.98.0.2:7002");
        enforcer.switch.set_exceptions(ports(6999, 7000)).unwrap();
        pod.must("send 10.98.0.2:7000 by-port");
        assert_eq!(other.must("receive"), "by-port");
        other.must("send 10.99.0.2:7001 leak");
        other.must("send-bound 10.99.0.2:7001 by-port");
        assert_eq!(pod.must("receive"), "by-port");
        // The same range of another protocol.
        pod.must("connect-in-vain 10.98.0.2:7000");

        enforcer.switch.set_exceptions([]).unwrap();
        let _ = pod.try_do("send 10.98.0.2:7000 leak");
        enforcer.switch.release(SLOT).unwrap();
        pod.must("send 10.98.0.2:7000 released");
        assert_eq!(other.must("receive"), "released");
        pod.must("send 10.99.0.1:7000 released");
        assert_eq!(node.must("receive"), "released");
    }

    /// The node may open TCP connections to the pod, nobody else may, and the pod may open none.
    async fn probes(&self) {
        let (mut stage, mut enforcer) = self.set().await;
        let (pod, node, other) = (&mut stage.pod, &mut stage.node, &mut stage.other);
        pod.must("listen [::]:8080");
        node.must("listen [::]:7002");
        enforcer.switch.isolate(SLOT).unwrap();
        for address in ["10.99.0.2:8080", "[fd99::2]:8080"] {
            node.must(&format!("connect {address}"));
            pod.must("accept");
            node.must("write GET");
            assert_eq!(pod.must("read"), "GET");
            pod.must("write 200");
            assert_eq!(node.must("read"), "200");
        }
        // By UDP the node is nobody special.
        pod.must("bind 0.0.0.0:7001");
        node.must("send 10.99.0.2:7001 leak");
        other.must("connect-in-vain 10.99.0.2:8080");
        pod.must("connect-in-vain 10.99.0.1:7002");
        // Not even from the port, and to the address, that a probe came from.
        enforcer.set_flags(slot_flag::STRICT);
        node.must("connect-in-vain 10.99.0.2:8080");
        enforcer.set_flags(0);
        node.must("connect 10.99.0.2:8080");
        // Neighbour entries expire; probes go on.
        crate::stage::ip("neigh flush dev pod0");
        stage.pod.ip("neigh flush dev eth0");
        let (pod, node) = (&mut stage.pod, &mut stage.node);
        node.must("connect 10.99.0.2:8080");
        pod.must("accept");
        node.must("connect [fd99::2]:8080");
        enforcer.switch.release(SLOT).unwrap();
        node.must("send 10.99.0.2:7001 released");
        assert_eq!(pod.must("receive"), "released");
    }

    /// An enforcer that dies leaves the pod isolated, and the next one takes over. In the end nothing is left.
    async fn restart(&self) {
        let (mut stage, mut enforcer) = self.set().await;
        stage.node.must("bind 0.0.0.0:7000");
        enforcer.switch.isolate(SLOT).unwrap();
        drop(enforcer);
        let _ = stage.pod.try_do("send 10.99.0.1:7000 leak");

        let mut enforcer = self.start(&stage).await;
        let _ = stage.pod.try_do("send 10.99.0.1:7000 leak");
        assert_ne!(enforcer.switch.isolation(SLOT).unwrap().since, 0);
        self.arm(&stage, &mut enforcer).await;
        enforcer.datapaths.prune().await.unwrap();
        assert_eq!(enforcer.datapaths.verify().await.unwrap(), [0; 0]);
        let before = enforcer.switch.isolation(SLOT).unwrap().dropped;
        let _ = stage.pod.try_do("send 10.99.0.1:7000 leak");
        assert!(enforcer.switch.isolation(SLOT).unwrap().dropped > before, "the new programs count in the old maps");
        enforcer.switch.release(SLOT).unwrap();
        stage.pod.must("send 10.99.0.1:7000 released");
        assert_eq!(stage.node.must("receive"), "released");

        drop(enforcer);
        assert!(!leftovers(&self.pins()).await.unwrap().is_empty());
        let removed = uninstall(&self.pins(), &Keep::default()).await.unwrap();
        assert_eq!(removed.len(), 2, "{removed:?}");
        assert_eq!(leftovers(&self.pins()).await.unwrap(), [""; 0]);
        let output = std::process::Command::new("tc").args(["qdisc", "show", "dev", "pod0"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&output.stdout).contains("clsact"), "the clsact that we added is gone too");
    }

    /// A veth that comes after the pod, and one that goes.
    async fn late_veth(&self) {
        let mut stage = Stage::new();
        let mut watch = Watch::start().unwrap();
        let mut enforcer = self.start(&stage).await;
        let netns = Netns::of_pid(stage.pod.pid()).unwrap();
        let coverage = enforcer.datapaths.arm(SLOT, netns).await.unwrap();
        assert_eq!(coverage.to_string(), "no interface besides the loopback");
        stage.wire_pod();
        while enforcer.datapaths.coverage(SLOT).unwrap().veths.is_empty() {
            let change = watch.next().await.unwrap();
            enforcer.datapaths.apply(change).await.unwrap();
        }
        stage.node.must("bind 0.0.0.0:7000");
        // Resolves the neighbour first: a datagram that waits for that is not yet on its way.
        stage.pod.must("send 10.99.0.1:7000 before");
        assert_eq!(stage.node.must("receive"), "before");
        enforcer.switch.isolate(SLOT).unwrap();
        let _ = stage.pod.try_do("send 10.99.0.1:7000 leak");
        enforcer.switch.release(SLOT).unwrap();
        stage.pod.must("send 10.99.0.1:7000 released");
        assert_eq!(stage.node.must("receive"), "released");

        crate::stage::ip("link del pod0");
        while !enforcer.datapaths.coverage(SLOT).unwrap().veths.is_empty() {
            let change = watch.next().await.unwrap();
            enforcer.datapaths.apply(change).await.unwrap();
        }
        let hosts = Netns::current().unwrap();
        let coverage = enforcer.datapaths.arm(2, hosts).await.unwrap();
        assert!(coverage.host_network && !coverage.is_covered());
        assert!(matches!(enforcer.datapaths.arm(0, Netns::current().unwrap()).await, Err(Error::Slot(0))));
        // The kernel lets the links go some time after their pins.
        for _ in 0..250 {
            if leftovers(&self.pins()).await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("left of an interface that went: {:?}", leftovers(&self.pins()).await.unwrap());
    }
}

impl Enforcer {
    fn set_flags(&mut self, flags: u32) {
        Array::<_, Slot>::try_from(self.ebpf.map_mut("SLOTS").unwrap())
            .unwrap()
            .set(SLOT, Slot { flags, ..Slot::default() }, 0)
            .unwrap();
    }
}
