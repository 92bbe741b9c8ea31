//! What user space does with rules: `cargo bench -p ringfence-policy`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringfence_abi::{Op, flag};
use ringfence_policy::{
    Catalogue, Enforced, Labels, Mitigation, Observed, Operator, PodFacts, Policy, Requirement, Rule, RuleId, Ruleset,
    Selector, Source, Subject, compile, read, resolve,
};

/// The catalogue, `times` over: the same lines under other ids.
fn rules(times: u16) -> Vec<Arc<Rule>> {
    let originals: Vec<_> = Catalogue::builtin().rules().collect();
    let copies = (0..times).flat_map(|_| &originals);
    let numbered = copies.zip(0_u16..);
    numbered
        .map(|(rule, number)| Arc::new(Rule { id: RuleId::new(number).expect("three digits"), ..Rule::clone(rule) }))
        .collect()
}

/// Rulesets of which every `each`-th selects the labels of [`LABELS`], by their application or by an expression.
fn rulesets(count: usize, each: usize) -> Vec<Ruleset> {
    let rules: Vec<_> = Catalogue::builtin().rules().map(|rule| (rule.id, Mitigation::Log)).collect();
    let ruleset = |i: usize| {
        let application = format!("app-{}", i % each);
        let selector = if i.is_multiple_of(2) {
            Selector {
                match_labels: Labels::from([("app".to_owned(), application), ("tier".to_owned(), "front".to_owned())]),
                match_expressions: Vec::new(),
            }
        } else {
            let operator = Operator::In(vec![application, "other".to_owned()]);
            let requirement = Requirement { key: "app".to_owned(), operator };
            Selector { match_labels: Labels::new(), match_expressions: vec![requirement] }
        };
        Ruleset {
            name: format!("set-{i}"),
            selector,
            rules: rules.iter().skip(i % 7).step_by(3).map(|&(rule, mitigation)| (rule, mitigation.into())).collect(),
            ..Ruleset::default()
        }
    };
    (0..count).map(ruleset).collect()
}

/// A policy that names all of them.
fn enforced(rulesets: Vec<Ruleset>) -> Enforced {
    let policy = Policy { name: "main".to_owned(), ..Policy::everything(&rulesets) };
    Enforced::new("ringfence", Some(policy), rulesets)
}

fn labels() -> Labels {
    let labels = [("app", "app-3"), ("tier", "front"), ("pod-template-hash", "7d4b9c"), ("version", "12")];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn resolving(c: &mut Criterion) {
    let mut group = c.benchmark_group("resolve a pod among rulesets");
    let (labels, of_namespace) = (labels(), Labels::from([("team".to_owned(), "a".to_owned())]));
    let pod = PodFacts {
        namespace: "shop",
        name: "web-1",
        labels: &labels,
        namespace_labels: &of_namespace,
        is_static: false,
        standing: None,
    };
    for count in [1, 10, 100, 1000] {
        // One in a hundred selects it, or one in five.
        for (each, what) in [(100, "few"), (5, "many")] {
            let enforced = enforced(rulesets(count, each));
            group.bench_with_input(BenchmarkId::new(what, count), &enforced, |b, enforced| {
                b.iter(|| black_box(enforced).resolve(black_box(pod)));
            });
        }
    }
    group.finish();
    let resolved = resolve(&rulesets(100, 10), Subject::without_namespace(&labels));
    c.bench_function("hash of a resolved ruleset", |b| b.iter(|| black_box(&resolved).hash()));
}

fn compiling(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    // The catalogue fills a good tenth of the class open; five times it is what fits.
    for times in [1, 5] {
        let rules = rules(times);
        group.bench_with_input(BenchmarkId::from_parameter(format!("catalogue x{times}")), &rules, |b, rules| {
            b.iter(|| compile(black_box(rules)).expect("it fits"));
        });
    }
    group.finish();
    let resolved = resolve(&rulesets(100, 10), Subject::without_namespace(&labels()));
    let tables = compile(Catalogue::builtin().rules()).expect("the catalogue compiles");
    c.bench_function("vectors of a resolved ruleset", |b| b.iter(|| tables.ruleset_vectors(black_box(&resolved))));
}

fn matching(c: &mut Criterion) {
    let open = Observed {
        path: b"/usr/lib/x86_64-linux-gnu/libc.so.6".to_vec(),
        exe: b"/usr/bin/bash".to_vec(),
        flags: flag::READ | flag::REGULAR,
        ancestors: ["bash", "sshd", "sshd"].map(|name| name.as_bytes().to_vec()).into(),
        ..Observed::new(Op::Open)
    };
    let mut group = c.benchmark_group("match an open");
    for times in [1, 5] {
        let rules = rules(times);
        let tables = compile(&rules).expect("it fits");
        group.bench_function(format!("tables, catalogue x{times}"), |b| b.iter(|| tables.matches(black_box(&open))));
        group.bench_function(format!("lines, catalogue x{times}"), |b| {
            b.iter(|| {
                rules
                    .iter()
                    .flat_map(|rule| &rule.lines)
                    .filter(|line| line.verdict(black_box(&open)) == ringfence_policy::Verdict::Yes)
                    .count()
            });
        });
    }
    group.finish();
}

fn reading(c: &mut Criterion) {
    let one = "apiVersion: ringfence.dev/v1alpha1\nkind: RuntimeRuleset\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  rules:\n";
    let rules: Vec<_> =
        Catalogue::builtin().rules().map(|rule| format!("  - {{rule: {}, mitigation: log}}", rule.id)).collect();
    let source = [Source { name: "web.yaml".into(), text: format!("{one}{}", rules.join("\n")) }];
    c.bench_function("read a ruleset of the whole catalogue", |b| {
        b.iter(|| read(black_box(&source), Catalogue::builtin()).expect("it is valid"));
    });
}

criterion_group!(benches, resolving, compiling, matching, reading);
criterion_main!(benches);
