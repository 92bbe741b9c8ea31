//! From the kernel's record to the line that is written: `cargo bench -p ringfence-enforcer`.

use std::hint::black_box;
use std::mem::offset_of;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringfence_abi::{Class, EVENT_FIXED, Event, EventHeader, Op, Tier};
use ringfence_containers::{Container, ContainerKey, Kind, Pod};
use ringfence_enforcer::kernel;
use ringfence_enforcer::report::{self, Owner, Scene};
use ringfence_policy::{Catalogue, Labels, Mitigation, Ruleset, Subject, resolve};

/// What the rule is about.
const PATH: &[u8] = b"/etc/shadow";
const RULE: &str = "RF-501";

/// As it comes out of the ring buffer: `cat /etc/shadow`.
fn record() -> Vec<u8> {
    let args = b"cat\0/etc/shadow\0";
    let mut bytes = vec![0; EVENT_FIXED];
    let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
    put(offset_of!(EventHeader, class), &[Class::Open as u8]);
    put(offset_of!(EventHeader, op), &[Op::Open as u8]);
    put(offset_of!(EventHeader, tier), &[Tier::Lsm as u8]);
    put(offset_of!(EventHeader, slot), &1_u32.to_ne_bytes());
    put(offset_of!(EventHeader, comm), b"cat");
    put(offset_of!(EventHeader, path_len), &11_u16.to_ne_bytes());
    put(offset_of!(EventHeader, exe_len), &8_u16.to_ne_bytes());
    put(offset_of!(EventHeader, args_len), &16_u16.to_ne_bytes());
    put(offset_of!(Event, path), PATH);
    put(offset_of!(Event, exe), b"/bin/cat");
    bytes.extend(args);
    bytes
}

/// A pod's container, and a ruleset that logs every rule.
fn owner() -> Owner {
    let rules = Catalogue::builtin().rules().map(|rule| (rule.id, Mitigation::Log.into())).collect();
    let ruleset = Ruleset { name: "everything".to_owned(), rules, ..Ruleset::default() };
    let pod = Pod {
        name: "web-7d4b9c-x2x4z".to_owned(),
        namespace: "shop".to_owned(),
        uid: "0c4f1f0e-5a3b-4a53-9f2b-4f1f8f3f7a10".to_owned(),
        ..Pod::default()
    };
    let container = Container {
        key: ContainerKey::new("k8s.io", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        name: "web".to_owned(),
        kind: Kind::PodContainer,
        pod: Some(pod),
        labels: Labels::new(),
        image: "registry.example/shop/web:1.2.3".to_owned(),
        image_digest: Some("sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae".to_owned()),
        snapshotter: "overlayfs".to_owned(),
        cgroups_path: String::new(),
        host_network: false,
        netns: None,
        pid: Some(1),
    };
    Owner::new(container, Arc::new(resolve(&[ruleset], Subject::without_namespace(&Labels::new()))))
}

fn records(c: &mut Criterion) {
    let (bytes, owner) = (record(), owner());
    let rule = Catalogue::builtin().rules().find(|rule| rule.id.to_string() == RULE).expect("it is in the catalogue");
    let decision = &owner.resolved.rules[&rule.id];
    let node = "node-1".into();
    let scene = Scene { node: &node, policy: Some("main"), owner: &owner, member: None, lost: 0 };
    let mut event = kernel::zeroed();
    kernel::read(&bytes, &mut event).expect("a record");
    let mut group = c.benchmark_group("a violation");
    group.throughput(Throughput::Elements(1));
    group.bench_function("read its record", |b| {
        b.iter(|| kernel::read(black_box(&bytes), &mut event).expect("a record"));
    });
    group.bench_function("decode", |b| b.iter(|| report::violation(black_box(&event), rule, decision, &scene)));
    let violation = report::violation(&event, rule, decision, &scene);
    assert_eq!(violation.object_file_path.as_ref().map(|path| path.as_str().as_bytes()), Some(PATH));
    let mut line = Vec::new();
    group.bench_function("encode as JSON", |b| {
        b.iter(|| {
            line.clear();
            black_box(&violation).write_json(&mut line);
        });
    });
    group.finish();
}

criterion_group!(benches, records);
criterion_main!(benches);
