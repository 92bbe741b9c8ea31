//! Union of rulesets, the strictest mitigation, and the hash.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use ringfence_abi::{Class, RulesetVectors};
use ringfence_policy::{
    Catalogue, Enforced, Exceptions, Labels, Limit, Mitigation, Operator, PodFacts, Policy, Requirement,
    ResolvedRuleset, RuleException, RuleId, Ruleset, Selector, Subject, Wish, compile, resolve,
};

fn rule(number: u16) -> RuleId {
    RuleId::new(number).expect("three digits")
}

fn ruleset(name: &str, app: Option<&str>, rules: &[(u16, Mitigation)]) -> Ruleset {
    let match_labels = app.into_iter().map(|app| ("app".to_owned(), app.to_owned())).collect();
    Ruleset {
        name: name.into(),
        selector: Selector { match_labels, match_expressions: Vec::new() },
        rules: rules.iter().map(|(number, mitigation)| (rule(*number), (*mitigation).into())).collect(),
        ..Ruleset::default()
    }
}

fn resolved<'a>(rulesets: impl IntoIterator<Item = &'a Ruleset>, labels: &Labels) -> ResolvedRuleset {
    resolve(rulesets, Subject::without_namespace(labels))
}

fn labels(app: &str) -> Labels {
    Labels::from([("app".to_owned(), app.to_owned())])
}

fn rulesets() -> impl Strategy<Value = Vec<Ruleset>> {
    let selector = prop_oneof![
        Just(Selector::default()),
        select(vec!["web", "db"]).prop_map(|app| Selector { match_labels: labels(app), match_expressions: Vec::new() }),
        Just(Selector {
            match_labels: Labels::new(),
            match_expressions: vec![Requirement { key: "app".into(), operator: Operator::NotIn(vec!["db".into()]) }],
        }),
    ];
    let rules = btree_map((0_u16..6).prop_map(rule), select(Mitigation::ALL.to_vec()).prop_map(Wish::from), 1..5);
    vec((selector, rules), 0..6).prop_map(|all| {
        let named = all.into_iter().enumerate();
        let ruleset =
            |(i, (selector, rules))| Ruleset { name: format!("set-{i}"), selector, rules, ..Ruleset::default() };
        named.map(ruleset).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_strictest_of_those_that_select_wins(rulesets in rulesets(), app in select(vec!["web", "db", "other"])) {
        let resolved = resolved(&rulesets, &labels(app));
        let mut expected: BTreeMap<RuleId, Mitigation> = BTreeMap::new();
        for ruleset in &rulesets {
            if ruleset.selector.matches(&labels(app)) {
                for (&rule, wish) in &ruleset.rules {
                    let strictest = expected.get(&rule).copied().unwrap_or(Mitigation::Log).max(wish.mitigation);
                    expected.insert(rule, strictest);
                }
            }
        }
        let mitigations: BTreeMap<_, _> = resolved.rules.iter().map(|(rule, decision)| (*rule, decision.mitigation)).collect();
        prop_assert_eq!(&mitigations, &expected);
        for (rule, decision) in &resolved.rules {
            prop_assert!(decision.decisive().next().is_some());
            for asked in &decision.asked_by {
                let ruleset = rulesets.iter().find(|ruleset| *ruleset.name == *asked.ruleset).expect("it was given");
                prop_assert_eq!(ruleset.rules.get(rule).map(|wish| wish.mitigation), Some(asked.mitigation));
            }
        }
    }

    #[test]
    fn the_order_of_rulesets_does_not_matter(rulesets in rulesets()) {
        let reversed: Vec<_> = rulesets.iter().rev().collect();
        let (one, other) = (resolved(&rulesets, &labels("web")), resolved(reversed, &labels("web")));
        prop_assert_eq!(one.hash(), other.hash());
        prop_assert_eq!(one, other);
    }

    #[test]
    fn the_hash_tells_what_is_enforced(one in rulesets(), other in rulesets()) {
        let (one, other) = (resolved(&one, &labels("web")), resolved(&other, &labels("web")));
        let same = one.rules.keys().eq(other.rules.keys())
            && one.rules.keys().all(|rule| one.mitigation(*rule) == other.mitigation(*rule));
        prop_assert_eq!(one.hash() == other.hash(), same);
    }
    /// However the rulesets are found, and whoever asked or not: the same is enforced.
    #[test]
    fn what_is_enforced_is_what_is_resolved(
        mut rulesets in rulesets(), app in select(vec!["web", "db", "other"]), cap in select(Mitigation::ALL.to_vec()),
        excepted in 0_usize..6, unnamed in 0_usize..6,
    ) {
        let tool = RuleException { paths: ["/tmp/tool".to_owned()].into(), ..RuleException::default() };
        if let Some(ruleset) = rulesets.get_mut(excepted) {
            ruleset.rules.values_mut().for_each(|wish| wish.exceptions = Exceptions::new(vec![tool.clone()]));
        }
        let mut policy = Policy { max_mitigation: cap, ..Policy::everything(&rulesets) };
        if unnamed < policy.rulesets.len() {
            policy.rulesets.remove(unnamed);
        }
        let named = rulesets.iter().filter(|ruleset| policy.rulesets.contains(&ruleset.name));
        let mut expected = resolved(named, &labels(app));
        expected.cap(cap, Limit::MaxMitigation);

        let enforced = Enforced::new("", Some(policy), rulesets.clone());
        let (labels, none) = (labels(app), Labels::new());
        let pod = PodFacts {
            namespace: "shop", name: "pod", labels: &labels, namespace_labels: &none, is_static: false, standing: None,
        };
        let found = enforced.resolve(pod);
        prop_assert_eq!(found.as_ref(), Ok(&expected));
        let (governing, effect) = enforced.governing(pod).expect("it is governed");
        let names: Vec<_> = governing.iter().map(|ruleset| ruleset.name.clone()).collect();
        prop_assert_eq!(&names, &expected.rulesets);
        prop_assert_eq!(&effect, &expected.effect());
        let terminates = expected.rules.values().any(|decision| decision.mitigation == Mitigation::Terminate);
        prop_assert_eq!(effect.terminates(), terminates);
    }
}

#[test]
fn it_says_who_asked() {
    let rulesets = [
        ruleset("b", None, &[(901, Mitigation::Isolate)]),
        ruleset("a", Some("web"), &[(901, Mitigation::Isolate), (101, Mitigation::Log)]),
        ruleset("c", None, &[(901, Mitigation::Log)]),
        ruleset("d", Some("db"), &[(901, Mitigation::Terminate)]),
    ];
    let resolved = resolved(&rulesets, &labels("web"));
    assert_eq!(resolved.rulesets, ["a", "b", "c"]);
    let decision = &resolved.rules[&rule(901)];
    assert_eq!(decision.mitigation, Mitigation::Isolate);
    assert_eq!(decision.decisive().map(AsRef::as_ref).collect::<Vec<&str>>(), ["a", "b"]);
    let asked: Vec<_> = decision.asked_by.iter().map(|asked| asked.ruleset.as_ref()).collect();
    assert_eq!(asked, ["a", "b", "c"]);
}

#[test]
fn who_excepts_something_asks_only_for_the_rest() {
    let except = |paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Exceptions::new(vec![RuleException { paths, ..RuleException::default() }])
    };
    let mut strict = ruleset("strict", None, &[(901, Mitigation::Terminate)]);
    strict.rules.get_mut(&rule(901)).unwrap().exceptions = except(&["/tmp/tool"]);
    let rulesets = [strict, ruleset("lax", None, &[(901, Mitigation::Log)])];
    let resolved = resolved(&rulesets, &Labels::new());
    let decision = &resolved.rules[&rule(901)];
    assert_eq!(decision.mitigation, Mitigation::Terminate);
    assert_eq!(decision.mitigation_with(&except(&["/tmp/tool"])), Some(Mitigation::Terminate));
    assert_eq!(decision.mitigation_with(Exceptions::none()), Some(Mitigation::Log));
    assert_eq!(decision.mitigation_with(&except(&["/tmp/other"])), None);
    let excepted = decision.of_those_with(&[Exceptions::none()]);
    assert_eq!(
        (excepted.mitigation, excepted.decisive().map(AsRef::as_ref).collect::<Vec<&str>>()),
        (Mitigation::Log, vec!["lax"])
    );
    let mut capped = resolved.clone();
    capped.cap(Mitigation::Isolate, Limit::MaxMitigation);
    let capped = &capped.rules[&rule(901)];
    assert_eq!(capped.mitigation_with(&except(&["/tmp/tool"])), Some(Mitigation::Isolate));

    let builtin = Catalogue::builtin();
    let policy = Policy::everything(&rulesets);
    let enforced = Enforced::new("", Some(policy), rulesets.to_vec());
    let tables = enforced.compile(builtin).unwrap();
    let lines = builtin.get(rule(901)).unwrap().lines.iter().filter(|line| line.class() == Class::Exec).count();
    let vectors = &tables.ruleset_vectors(&resolved)[Class::Exec as usize];
    let count = |vector: &ringfence_abi::Vector| vector.iter().map(|word| word.count_ones() as usize).sum::<usize>();
    assert_eq!((count(&vectors.enabled), count(&vectors.terminate)), (2 * lines, lines));

    let plain = [ruleset("strict", None, &[(901, Mitigation::Terminate)]), rulesets[1].clone()];
    assert_ne!(resolve(&plain, Subject::without_namespace(&Labels::new())).hash(), resolved.hash());
}

/// Nodes and versions compare hashes: it must not change. The value is SHA-256 of "RF-101 log\nRF-901 isolate\n".
#[test]
fn the_hash_is_stable() {
    let rulesets = [ruleset("a", None, &[(901, Mitigation::Isolate), (101, Mitigation::Log)])];
    let hash = resolved(&rulesets, &Labels::new()).hash().to_string();
    assert_eq!(hash, "bfab1d4b2c4caf24b537cae722b2351c99b458fcc09e5c7068a98cf2b7205572");
}

#[test]
fn vectors_hold_every_line_of_each_enabled_rule() {
    let tables = compile(Catalogue::builtin().rules()).unwrap();
    let asked =
        [(901, Mitigation::Terminate), (101, Mitigation::Log), (115, Mitigation::Block), (107, Mitigation::Isolate)];
    let resolved = resolved(&[ruleset("a", None, &asked)], &Labels::new());
    let vectors = tables.ruleset_vectors(&resolved);
    let rules = |lines| tables.rules_of(Class::Exec, lines).map(|rule| rule.id).collect::<Vec<_>>();
    let exec = &vectors[Class::Exec as usize];
    assert_eq!(rules(&exec.enabled), [101, 107, 115, 901].map(rule));
    assert_eq!(rules(&exec.block), [rule(115)]);
    assert_eq!(rules(&exec.isolate), [rule(107)]);
    assert_eq!(rules(&exec.terminate), [rule(901)]);
    let lines = |rule_id| Catalogue::builtin().get(rule_id).unwrap().lines.len();
    let bits: u32 = vectors.iter().flat_map(|of_class| of_class.enabled).map(u64::count_ones).sum();
    assert_eq!(bits as usize, [101, 107, 115, 901].map(rule).map(lines).iter().sum::<usize>());
    assert_eq!(vectors[Class::Network as usize], RulesetVectors::default());
}
