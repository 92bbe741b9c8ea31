//! An accomplice on the pod's own bridge: what it and the isolated pod can still tell each other by frames that look
//! like the node's probes.

use crate::{
    frame::{
        arp, tcp,
        tcp::{ACK, SYN},
        to_hex,
    },
    scenarios::{SLOT, Scene},
    stage::{Stage, mac},
};
use std::net::Ipv4Addr;

const NODE: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);
const POD: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 3);

pub async fn spoofing(scene: &Scene<'_>) {
    let mut stage = Stage::new();
    stage.wire_bridge();
    let mut enforcer = scene.start(&stage).await;
    scene.arm(&stage, &mut enforcer).await;
    let (node_mac, pod_mac, other_mac) = (mac("br0"), stage.pod.mac(), stage.other.mac());
    let (pod, other, node) = (&mut stage.pod, &mut stage.other, &mut stage.node);
    let frame = |frame: &[u8]| format!("frame eth0 {}", to_hex(frame));
    pod.must("sniff");
    other.must("sniff");
    pod.must("listen [::]:8080");

    // Frames of every kind below get through as long as nobody is isolated.
    let syn = |text: &str| frame(&tcp((node_mac, (NODE, 5000)), (pod_mac, (POD, 8080)), SYN, text));
    other.must(&syn("mark-syn"));
    pod.must("sniffed mark-syn");
    let ask = |target, text: &str| frame(&arp((pod_mac, POD), target, text));
    pod.must(&ask(OTHER, "mark-arp"));
    other.must("sniffed mark-arp");

    enforcer.switch.isolate(SLOT).unwrap();
    // The node's probe works across the bridge too.
    node.must("connect 10.97.0.2:8080");
    let probe = pod.must("accept");
    node.must("write GET");
    assert_eq!(pod.must("read"), "GET");
    let port: u16 = probe.rsplit_once(':').unwrap().1.parse().unwrap();

    // A connection that only claims to come from the node, and an "answer" to it.
    other.must(&syn("mark-spoofed"));
    let answer = |to, port, text: &str| frame(&tcp((pod_mac, (POD, 8080)), (to, (NODE, port)), ACK, text));
    pod.must(&answer(other_mac, 5000, "mark-answer-to-spoofed"));
    pod.must(&answer(node_mac, 5000, "mark-answer-to-nobody"));
    // Within the real probe: from the neighbour instead of the node, and past the node to the neighbour.
    let within = tcp((node_mac, (NODE, port)), (pod_mac, (POD, 8080)), ACK, "mark-within");
    other.must(&frame(&within));
    pod.must(&answer(other_mac, port, "mark-answer-past-the-node"));
    // A question about a neighbour, and one about the node that says more than it has to.
    pod.must(&ask(OTHER, "mark-arp-neighbour"));
    pod.must(&ask(NODE, "mark-arp-that-is-longer-than-any"));
    // What may pass, as the last one: the shortest question about the node.
    pod.must(&ask(NODE, "mark-arp-node"));
    let sniffed = other.must("sniffed mark-arp-node");
    assert_eq!(
        sniffed, "mark-spoofed mark-within mark-arp-node",
        "besides the other's own, only one frame may be here"
    );

    enforcer.switch.release(SLOT).unwrap();
    other.must(&syn("mark-released"));
    let sniffed = pod.must("sniffed mark-released");
    assert!(!sniffed.contains("mark-spoofed"), "the spoofed connection came through: {sniffed}");
    assert!(!sniffed.contains("mark-within"), "the neighbour came through as the node: {sniffed}");
}
