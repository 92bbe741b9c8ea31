//! Others who work at the same interfaces: they may come before us, take away what we stand on, or rename it. What is
//! theirs stays.

use std::process::Command;

use crate::{
    scenarios::{Enforcer, SLOT, Scene},
    stage::{Stage, ip},
};
use aya::{
    EbpfLoader,
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use ringfence_netiso::Watch;

/// Runs `tc` in our namespace.
fn tc(arguments: &[&str]) -> String {
    let output = Command::new("tc").args(arguments).output().expect("tc");
    assert!(output.status.success(), "tc {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Follows changes until what is isolated stays so: nothing but what is sent after the release arrives.
async fn until_cut(stage: &mut Stage, enforcer: &mut Enforcer, watch: &mut Watch, what: &str) {
    loop {
        let change = watch.next().await.unwrap();
        enforcer.datapaths.apply(change).await.unwrap();
        let before = enforcer.switch.isolation(SLOT).unwrap().dropped;
        let _ = stage.pod.try_do("send 10.99.0.1:7000 passes-or-not");
        if enforcer.switch.isolation(SLOT).unwrap().dropped > before {
            break;
        }
        assert_eq!(stage.node.must("receive"), "passes-or-not", "{what}");
    }
    release(stage, enforcer, what);
    enforcer.switch.isolate(SLOT).unwrap();
}

fn release(stage: &mut Stage, enforcer: &mut Enforcer, what: &str) {
    let _ = stage.pod.try_do("send 10.99.0.1:7000 leak");
    enforcer.switch.release(SLOT).unwrap();
    stage.pod.must(&format!("send 10.99.0.1:7000 {what}"));
    assert_eq!(stage.node.must("receive"), what);
}

/// A stage whose pod could send, and is isolated now.
async fn isolated(scene: &Scene<'_>) -> (Stage, Enforcer, Watch) {
    let (mut stage, mut enforcer) = scene.set().await;
    let watch = Watch::start().unwrap();
    stage.node.must("bind 0.0.0.0:7000");
    stage.pod.must("send 10.99.0.1:7000 before");
    assert_eq!(stage.node.must("receive"), "before");
    enforcer.switch.isolate(SLOT).unwrap();
    (stage, enforcer, watch)
}

/// Somebody's filter that lets everything pass, first of its priority; and the queueing discipline is removed under us.
pub async fn clsact(scene: &Scene<'_>) {
    let (mut stage, mut enforcer, mut watch) = isolated(scene).await;

    let everything = ["bytecode", "1,6 0 0 4294967295,", "classid", "1:1"];
    let theirs = ["filter", "add", "dev", "pod0", "ingress", "prio", "1", "protocol", "all", "bpf"];
    tc(&[&theirs[..], &everything].concat());
    // It is one: what is isolated gets by.
    stage.pod.must("send 10.99.0.1:7000 by");
    assert_eq!(stage.node.must("receive"), "by");
    until_cut(&mut stage, &mut enforcer, &mut watch, "before-their-filter").await;
    assert!(tc(&["filter", "show", "dev", "pod0", "ingress"]).contains("bytecode"), "their filter is gone");

    tc(&["qdisc", "del", "dev", "pod0", "clsact"]);
    until_cut(&mut stage, &mut enforcer, &mut watch, "after-the-discipline-went").await;
    renamed(&mut stage, &mut enforcer, &mut watch).await;
}

/// Somebody's program, put before ours.
pub async fn tcx(scene: &Scene<'_>) {
    let (mut stage, mut enforcer, mut watch) = isolated(scene).await;

    let mut other = EbpfLoader::new().load(scene.code).unwrap();
    let theirs: &mut SchedClassifier = other.program_mut("veth_ingress").unwrap().try_into().unwrap();
    theirs.load().unwrap();
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    theirs.attach_with_options("pod0", TcAttachType::Ingress, first).unwrap();
    let id = theirs.info().unwrap().id();
    let order = || -> Vec<bool> {
        let (_, programs) = SchedClassifier::query_tcx("pod0", TcAttachType::Ingress).unwrap();
        programs.iter().map(|program| program.id() == id).collect()
    };
    assert_eq!(order(), [true, false], "theirs is not the first");
    // The kernel announces no such thing; the enforcer looks once a second.
    enforcer.datapaths.verify().await.unwrap();
    assert_eq!(order(), [false, true], "ours is not the first again, or theirs is gone");
    release(&mut stage, &mut enforcer, "before-their-program");
    enforcer.switch.isolate(SLOT).unwrap();
    renamed(&mut stage, &mut enforcer, &mut watch).await;
}

/// The interface gets another name.
async fn renamed(stage: &mut Stage, enforcer: &mut Enforcer, watch: &mut Watch) {
    // Else the pod may forget it while the link is down, and a packet that it keeps until it is asked for leaves late.
    stage.pod.ip("neigh change 10.99.0.1 dev eth0 nud permanent");
    ip("link set dev pod0 down");
    ip("link set dev pod0 name pod9");
    ip("link set dev pod9 up");
    while !enforcer.datapaths.coverage(SLOT).unwrap().to_string().contains("pod9") {
        let change = watch.next().await.unwrap();
        enforcer.datapaths.apply(change).await.unwrap();
    }
    release(stage, enforcer, "renamed");
}
