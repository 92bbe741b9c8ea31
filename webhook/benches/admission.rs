//! The pure part of an admission, from the request's bytes to the answer's: `cargo bench -p ringfence-webhook`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringfence_policy::{Index, Labels};
use ringfence_webhook::Snapshot;
use ringfence_webhook::mutate;
use ringfence_webhook::review::parse;
use serde_json::json;

/// So many rulesets, of which this many select the pod of [`review`].
fn snapshot(rulesets: usize, selecting: usize) -> Snapshot {
    let mut index = Index::new("ringfence", "main");
    let names: Vec<String> = (0..rulesets).map(|i| format!("set-{i:04}")).collect();
    for (i, name) in names.iter().enumerate() {
        let selector = if i < selecting {
            json!({"matchLabels": {"tier": "front"}})
        } else {
            json!({"matchLabels": {"app": format!("app-{i}")}})
        };
        let ruleset = json!({
            "apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimeRuleset", "metadata": {"name": name},
            "spec": {"selector": selector, "rules": [
                {"rule": "Credential Access", "mitigation": "log"}, {"rule": "RF-901", "mitigation": "isolate"},
            ]},
        });
        index.put_ruleset(name, ruleset.to_string());
    }
    let policy = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimePolicy", "metadata": {"name": "main"},
        "spec": {"rulesets": names},
    });
    index.put_policy("main", policy.to_string());
    Snapshot::new(index, [("shop".to_owned(), Arc::new(Labels::from([("team".to_owned(), "a".to_owned())])))].into())
}

/// A pod with two containers, as API servers send it.
fn review() -> Vec<u8> {
    let environment: Vec<_> = (0..12).map(|i| json!({"name": format!("SETTING_{i}"), "value": "some value"})).collect();
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example/web/{name}:1.2.3"), "env": environment,
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1},
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        })
    };
    let labels: BTreeMap<_, _> =
        [("app", "web"), ("tier", "front"), ("pod-template-hash", "7d4b9c5f6"), ("version", "12")].into();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "web-7d4b9c5f6-", "namespace": "shop", "labels": labels},
        "spec": {"containers": [container("server"), container("proxy")], "restartPolicy": "Always"},
    });
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": "shop",
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "object": pod,
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["a", "b"]},
        },
    });
    review.to_string().into_bytes()
}

fn admission(c: &mut Criterion) {
    let review = review();
    let mut group = c.benchmark_group("mutate a pod among rulesets");
    for (rulesets, selecting) in [(1, 1), (10, 2), (100, 2), (1000, 2), (1000, 100)] {
        let snapshot = snapshot(rulesets, selecting);
        let id = BenchmarkId::new(format!("{selecting} select it"), rulesets);
        group.bench_with_input(id, &snapshot, |b, snapshot| {
            b.iter(|| {
                let request = parse(black_box(&review)).expect("it is right");
                let answer = mutate::answer(&request, black_box(snapshot)).expect("it is a pod");
                answer.into_json(&request.uid)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, admission);
criterion_main!(benches);
