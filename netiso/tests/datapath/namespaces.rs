//! Other network namespaces of a pod: what it hides there, and what leads out of them.

use crate::{
    frame,
    scenarios::{SLOT, Scene},
    stage::{Actor, ip, mac},
};
use nix::net::if_::if_nametoindex;
use ringfence_netiso::{Gap, Netns, Watch};
use std::{collections::BTreeSet, net::Ipv4Addr};

/// The pod moves its interface to where only a process of its own is: the programs stay on the node's end.
pub async fn moved(scene: &Scene<'_>) {
    let (mut stage, mut enforcer) = scene.set().await;
    let mut elsewhere = Actor::start(Some(&stage.cgroup.pod()), "new");
    stage.node.must("bind 0.0.0.0:7000");
    stage.pod.ip(&format!("link set eth0 netns {}", elsewhere.pid()));
    elsewhere.ip("addr add 10.99.0.2/24 dev eth0");
    elsewhere.ip("link set eth0 up");
    let (from, to) =
        ((elsewhere.mac(), (Ipv4Addr::new(10, 99, 0, 2), 4242)), (mac("pod0"), (Ipv4Addr::new(10, 99, 0, 1), 7000)));
    let packet = |text: &str| format!("frame eth0 {}", frame::to_hex(&frame::udp(from, to, text)));
    elsewhere.must(&packet("before"));
    assert_eq!(stage.node.must("receive"), "before");

    let armed = enforcer.datapaths.coverage(SLOT).unwrap().clone();
    enforcer.datapaths.verify().await.unwrap();
    assert_eq!(*enforcer.datapaths.coverage(SLOT).unwrap(), armed);
    enforcer.switch.isolate(SLOT).unwrap();
    elsewhere.must(&packet("leak"));
    // Looked into, it is no way that nobody knows.
    enforcer.datapaths.also_in(SLOT, &[Netns::of_pid(elsewhere.pid()).unwrap()]);
    enforcer.datapaths.verify().await.unwrap();
    assert_eq!(*enforcer.datapaths.coverage(SLOT).unwrap(), armed);
    elsewhere.must(&packet("leak"));
    enforcer.switch.release(SLOT).unwrap();
    elsewhere.must(&packet("released"));
    assert_eq!(stage.node.must("receive"), "released");
}

/// Interfaces on devices of the node, here and there; and those that lead nowhere.
pub async fn gaps(scene: &Scene<'_>) {
    let (stage, mut enforcer) = scene.set().await;
    ip("link add card0 type veth peer name outside0");
    let card = if_nametoindex("card0").unwrap();
    let slots = BTreeSet::from([SLOT]);
    let mut watch = Watch::start().unwrap();
    assert_eq!(enforcer.datapaths.coverage(SLOT).unwrap().gaps, []);

    // The node hears of it although the interface is in the pod.
    stage.pod.ip(&format!("link add mv0 link-netnsid 0 link if{card} type macvlan"));
    while enforcer.datapaths.coverage(SLOT).unwrap().gaps.is_empty() {
        let change = watch.next().await.unwrap();
        if change.is_of_interfaces() {
            enforcer.datapaths.look_at(&slots).await.unwrap();
        }
    }
    let macvlan = Gap {
        text: "mv0 is a macvlan device: it has no host side to be seen".to_owned(),
        way: format!("macvlan on {card} of 0"),
        leads_out: true,
    };
    assert_eq!(enforcer.datapaths.coverage(SLOT).unwrap().gaps, [macvlan]);
    stage.pod.ip("link del mv0");

    // In another namespace it is seen if that is looked into.
    let elsewhere = Actor::start(Some(&stage.cgroup.pod()), "new");
    let pid = elsewhere.pid();
    stage.pod.ip(&format!("link add mv0 link-netnsid 0 link if{card} type macvlan"));
    stage.pod.ip(&format!("link set mv0 netns {pid}"));
    // These lead back to the pod.
    stage.pod.ip("link add link eth0 name own0 type macvlan");
    stage.pod.ip(&format!("link set own0 netns {pid}"));
    stage.pod.ip(&format!("link add v0 type veth peer name v1 netns {pid}"));
    let texts = |enforcer: &crate::scenarios::Enforcer| -> Vec<(String, bool)> {
        let gaps = &enforcer.datapaths.coverage(SLOT).unwrap().gaps;
        gaps.iter().map(|gap| (gap.text.clone(), gap.leads_out)).collect()
    };
    enforcer.datapaths.verify().await.unwrap();
    let unseen = "the other end of v0 is not in the node's network namespace".to_owned();
    assert_eq!(texts(&enforcer), [(unseen.clone(), false)]);
    let there = Netns::of_pid(pid).unwrap();
    enforcer.datapaths.also_in(SLOT, &[Netns::of_pid(stage.pod.pid()).unwrap(), there.clone()]);
    enforcer.datapaths.look_at(&slots).await.unwrap();
    let another = |text: &str| (format!("in another network namespace of its processes: {text}"), true);
    let found = another("mv0 is a macvlan device: it has no host side to be seen");
    assert_eq!(texts(&enforcer), [found]);
    elsewhere.ip("link del mv0");

    // So is an end of a veth there that the node has the other one of. The node's own namespace is nobody's.
    ip(&format!("link add toward0 type veth peer name eth9 netns {pid}"));
    enforcer.datapaths.also_in(SLOT, &[there, Netns::current().unwrap()]);
    enforcer.datapaths.verify().await.unwrap();
    assert_eq!(texts(&enforcer), [another("a veth's other end is the node's toward0")]);
    enforcer.datapaths.also_in(SLOT, &[]);
    enforcer.datapaths.verify().await.unwrap();
    assert_eq!(texts(&enforcer), [(unseen, false)]);
}
