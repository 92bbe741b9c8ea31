//! What user space does with rules: `cargo bench -p ringfence-policy`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringfence_abi::{Op, flag};
use ringfence_policy::{
    Catalogue, Labels, Mitigation, Observed, Rule, RuleId, Ruleset, Selector, Source, Subject, compile, read, resolve,
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

/// Rulesets of which one in ten selects the labels.
fn rulesets(count: usize) -> Vec<Ruleset> {
    let rules: Vec<_> = Catalogue::builtin().rules().map(|rule| (rule.id, Mitigation::Log)).collect();
    let ruleset = |i: usize| Ruleset {
        name: format!("set-{i}"),
        selector: Selector {
            match_labels: Labels::from([("app".to_owned(), format!("app-{}", i % 10))]),
            match_expressions: Vec::new(),
        },
        rules: rules.iter().skip(i % 7).step_by(3).map(|&(rule, mitigation)| (rule, mitigation.into())).collect(),
        ..Ruleset::default()
    };
    (0..count).map(ruleset).collect()
}

fn resolving(c: &mut Criterion) {
    let mut group = c.benchmark_group("resolve");
    let labels = Labels::from([("app".to_owned(), "app-3".to_owned()), ("tier".to_owned(), "front".to_owned())]);
    for count in [10, 100, 1000] {
        let rulesets = rulesets(count);
        group.bench_with_input(BenchmarkId::from_parameter(count), &rulesets, |b, rulesets| {
            b.iter(|| resolve(black_box(rulesets), Subject::without_namespace(black_box(&labels))));
        });
    }
    group.finish();
    let resolved = resolve(&rulesets(100), Subject::without_namespace(&labels));
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
    let resolved =
        resolve(&rulesets(100), Subject::without_namespace(&Labels::from([("app".to_owned(), "app-3".to_owned())])));
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
