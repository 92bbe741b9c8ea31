//! The compiled tables and the lines themselves, read independently, give the same answer for every event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use ringfence_abi::{Class, Facet, Op, PATH_PREFIX, Vector, flag};
use ringfence_policy::line::{FlagTest, LONGEST_NAME, LONGEST_PATH, Network, Pattern, Test, has_facet, has_flag};
use ringfence_policy::{Catalogue, CompileError, Line, Observed, Rule, RuleId, Verdict, compile};

const TEXT_FACETS: [Facet; 9] = [
    Facet::ObjectPath,
    Facet::ObjectName,
    Facet::ExePath,
    Facet::ExeName,
    Facet::ParentPath,
    Facet::ParentName,
    Facet::AncestorName,
    Facet::NoAncestorName,
    Facet::Arg,
];

/// Flags from each of the three bytes.
const FLAGS: [u32; 5] = [flag::DRIFTED, flag::BLOCK_DEVICE, flag::READ, flag::ENTRY, flag::FAILED];

fn rule_with(number: u16, lines: Vec<Line>) -> Arc<Rule> {
    let template = Catalogue::builtin().rules().next().expect("the catalogue is not empty");
    let id = RuleId::new(number).expect("three digits");
    Arc::new(Rule { id, lines, ..Rule::clone(template) })
}

fn ops_of(class: Class) -> Vec<Op> {
    Op::ALL.into_iter().filter(|op| op.class() == class).collect()
}

/// Names of which many are beginnings of others, and some as long as can just be compared or longer.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[ab]{1,3}",
        3 => "a{1,5}",
        2 => (LONGEST_NAME - 1..LONGEST_NAME + 2).prop_map(|length| "a".repeat(length)),
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "/a{1,5}",
        3 => vec("[ab]{1,2}", 1..4).prop_map(|parts| format!("/{}", parts.join("/"))),
        2 => select(vec![PATH_PREFIX, PATH_PREFIX + 1, LONGEST_PATH, LONGEST_PATH + 1, LONGEST_PATH + 20])
            .prop_map(|length| format!("/{}", "a".repeat(length - 1))),
    ]
}

/// An exact text or one of its beginnings, as short as the tables need it.
fn pattern(text: impl Strategy<Value = String>, exact: usize, prefix: usize) -> impl Strategy<Value = Pattern> {
    (text, any::<Option<Index>>()).prop_map(move |(text, cut)| match cut {
        None => Pattern::Exact(text[..text.len().min(exact)].trim_end_matches('/').into()),
        Some(cut) => Pattern::Prefix(text[..=cut.index(text.len().min(prefix))].into()),
    })
}

fn test<T: std::fmt::Debug + Clone>(value: impl Strategy<Value = T> + Clone) -> impl Strategy<Value = Test<T>> {
    let listed = || prop_oneof![2 => vec(value.clone(), 0..1), 1 => vec(value.clone(), 1..4)];
    (listed(), listed()).prop_map(|(any, none)| Test { any, none })
}

fn text_test(facet: Facet) -> BoxedStrategy<Test<Pattern>> {
    let whole = match facet {
        Facet::ObjectPath | Facet::ExePath | Facet::ParentPath => {
            test(pattern(path(), LONGEST_PATH, PATH_PREFIX).boxed()).boxed()
        }
        _ => test(pattern(name(), LONGEST_NAME, LONGEST_NAME).boxed()).boxed(),
    };
    let sided = whole.prop_map(move |mut test| {
        match facet {
            Facet::AncestorName | Facet::Arg => test.none.clear(),
            Facet::NoAncestorName => test.any.clear(),
            _ => {}
        }
        test
    });
    // Most lines ask for few facets.
    prop_oneof![2 => Just(Test::default()), 1 => sided].boxed()
}

/// IPv4, IPv6 and IPv4-mapped addresses that share beginnings.
fn address() -> impl Strategy<Value = [u8; 16]> {
    (any::<bool>(), vec(0_u8..3, 4)).prop_map(|(v4, tail)| {
        let mut address = [0; 16];
        if v4 {
            address[10..12].fill(0xff);
        }
        address[12..].copy_from_slice(&tail);
        address
    })
}

fn network() -> impl Strategy<Value = Network> {
    (address(), prop_oneof![Just(0_u8), 90_u8..=128]).prop_map(|(address, bits)| Network::new(address, bits))
}

fn small_set() -> impl Strategy<Value = BTreeSet<u8>> {
    prop_oneof![2 => Just(BTreeSet::new()), 1 => proptest::collection::btree_set(0_u8..4, 1..3)]
}

fn flag_test() -> impl Strategy<Value = FlagTest> {
    vec(0_u8..4, FLAGS.len()).prop_map(|wishes| {
        let bits = |wish| FLAGS.iter().zip(&wishes).filter(|(_, w)| **w == wish).fold(0, |bits, (flag, _)| bits | flag);
        FlagTest { required: bits(1), refused: bits(2) }
    })
}

prop_compose! {
    fn line(class: Class)(
        ops in subsequence(ops_of(class), 1..=ops_of(class).len().min(2)),
        flags in flag_test(),
        texts in TEXT_FACETS.map(text_test),
        destination in test(network().boxed()),
        port in test((0_u16..3).boxed()),
        number in test((0_u64..3).boxed()),
        families in small_set(),
        socket_types in small_set(),
    ) -> Line {
        let ops = BTreeSet::from_iter(ops);
        let has = |facet| ops.iter().all(|op| has_facet(*op, facet));
        let texts: BTreeMap<_, _> =
            TEXT_FACETS.into_iter().zip(texts).filter(|(facet, test)| test.cares() && has(*facet)).collect();
        let network = class == Class::Network;
        Line {
            // A flag that these operations never have is not asked for.
            flags: FlagTest {
                required: FLAGS.iter().filter(|flag| ops.iter().all(|op| has_flag(*op, **flag))).fold(0, |bits, flag| bits | flag) & flags.required,
                ..flags
            },
            texts,
            destination: if has(Facet::Destination) { destination } else { Test::default() },
            port: if has(Facet::Port) { port } else { Test::default() },
            number: if has(Facet::Number) { number } else { Test::default() },
            families: if network { families } else { BTreeSet::new() },
            socket_types: if network && !ops.contains(&Op::Packet) { socket_types } else { BTreeSet::new() },
            ops,
        }
    }
}

/// Lines of one class, and events of it.
fn lines_and_events() -> impl Strategy<Value = (Vec<Line>, Vec<Observed>)> {
    select(Class::ALL.to_vec()).prop_flat_map(|class| (vec(line(class), 1..12), vec(event(class), 1..8)))
}

/// A path, or none.
fn maybe_path() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => Just(String::new()), 6 => path()].prop_map(String::into_bytes)
}

prop_compose! {
    fn event(class: Class)(
        op in select(ops_of(class)),
        flags in subsequence(FLAGS.to_vec(), 0..=FLAGS.len()),
        (path, exe, parent) in (maybe_path(), maybe_path(), maybe_path()),
        other_names in vec(name().prop_map(String::into_bytes), 0..3),
        // More than are looked at.
        ancestors in vec(name().prop_map(String::into_bytes), 0..6),
        args in vec(prop_oneof![name(), "[ab]{1,2}[ =,'\"\t\n][ab]{1,2}"], 0..4),
        address in address(),
        port in 0_u16..4,
        number in 0_u64..4,
        (family, socket_type) in (0_u8..5, 0_u8..5),
    ) -> Observed {
        let has = |facet| has_facet(op, facet);
        let network = class == Class::Network;
        Observed {
            flags: flags.iter().fold(0, |bits, flag| bits | flag),
            path: if has(Facet::ObjectPath) { path } else { Vec::new() },
            other_names: if op == Op::Exec { other_names } else { Vec::new() },
            exe: if has(Facet::ExePath) { exe } else { Vec::new() },
            parent: if has(Facet::ParentPath) { parent } else { Vec::new() },
            ancestors: if has(Facet::AncestorName) { ancestors } else { Vec::new() },
            args: if has(Facet::Arg) { args.iter().flat_map(|arg| format!("{arg}\0").into_bytes()).collect() } else { Vec::new() },
            address: if has(Facet::Destination) { address } else { [0; 16] },
            port: if has(Facet::Port) { port } else { 0 },
            number: if has(Facet::Number) { number } else { 0 },
            family: if network { family } else { 0 },
            socket_type: if network { socket_type } else { 0 },
            ..Observed::new(op)
        }
    }
}

/// The event with one facet's values taken away.
fn hide(event: &Observed, facet: Facet) -> Observed {
    let mut hidden = event.clone();
    match facet {
        Facet::ObjectName => hidden.other_names.clear(),
        Facet::ParentPath | Facet::ParentName => {
            hidden.parent.clear();
            hidden.unknown.extend([Facet::ParentPath, Facet::ParentName]);
        }
        Facet::AncestorName | Facet::NoAncestorName => {
            hidden.ancestors.truncate(1);
            hidden.unknown.extend([Facet::AncestorName, Facet::NoAncestorName]);
        }
        Facet::Arg => hidden.args.truncate(event.args.iter().position(|byte| *byte == 0).map_or(0, |end| end + 1)),
        _ => return hidden,
    }
    hidden.unknown.insert(facet);
    hidden
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Lines are spread over two rules, so that numbering is exercised too.
    #[test]
    fn tables_and_lines_agree((lines, events) in lines_and_events(), cut in any::<Index>()) {
        let (first, second) = lines.split_at(cut.index(lines.len()));
        let tables = compile(&[rule_with(2, second.to_vec()), rule_with(1, first.to_vec())]).expect("lines are valid");
        for event in &events {
            let matched = tables.matches(event);
            for (number, line) in lines.iter().enumerate() {
                let by_table = matched[number / 64] & (1 << (number % 64)) != 0;
                prop_assert_eq!(by_table, line.verdict(event) == Verdict::Yes, "line {}: {}\n{:?}", number, line, event);
            }
            prop_assert!((lines.len()..256).all(|number| matched[number / 64] & (1 << (number % 64)) == 0));
        }
    }

    /// Arguments of which the beginning is known: what is satisfied stays so, and everything that all of them satisfy
    /// is a candidate, or satisfied.
    #[test]
    fn candidates_are_all_that_the_rest_may_satisfy(
        (lines, events) in lines_and_events(),
        facet in select(vec![Facet::Arg, Facet::ObjectName]),
    ) {
        let tables = compile(&[rule_with(1, lines.clone())]).expect("lines are valid");
        for event in &events {
            let beginning = hide(event, facet);
            let (satisfied, candidates) = (tables.matches(&beginning), tables.candidates(&beginning));
            for (number, line) in lines.iter().enumerate() {
                let has = |vector: &Vector| vector[number / 64] & (1 << (number % 64)) != 0;
                let (partly, whole) = (line.verdict(&beginning), line.verdict(event));
                prop_assert!(!(has(&satisfied) && has(&candidates)));
                prop_assert!(!has(&satisfied) || whole == Verdict::Yes, "line {number}: {line}\n{event:?}");
                prop_assert!(whole == Verdict::No || has(&satisfied) || has(&candidates), "line {number}: {line}\n{event:?}");
                prop_assert!(partly != Verdict::Unknown || has(&satisfied) || has(&candidates), "line {number}: {line}\n{event:?}");
            }
        }
    }

    /// What is said about an event of which a part is not known stays true when it becomes known.
    #[test]
    fn unknown_facets_never_lie((lines, events) in lines_and_events(), facet in select(TEXT_FACETS.to_vec())) {
        for event in &events {
            let hidden = hide(event, facet);
            for line in &lines {
                let (known, partly) = (line.verdict(event), line.verdict(&hidden));
                prop_assert_ne!(known, Verdict::Unknown);
                prop_assert!(partly == Verdict::Unknown || partly == known, "{line}: {partly:?}, in truth {known:?}\n{event:?}");
            }
        }
    }
}

/// A line about one path, so that classes can be filled.
fn numbered_line(number: usize) -> Line {
    let test = Test { any: vec![Pattern::Exact(format!("/{number}"))], none: Vec::new() };
    Line { ops: BTreeSet::from([Op::Open]), texts: BTreeMap::from([(Facet::ObjectPath, test)]), ..Line::default() }
}

#[test]
fn a_class_holds_256_lines_and_says_when_it_is_full() {
    let rule = |number, lines: std::ops::Range<usize>| rule_with(number, lines.map(numbered_line).collect());
    let full = [rule(1, 0..200), rule(2, 200..256)];
    let tables = compile(&full).unwrap();
    let event = Observed { path: b"/255".to_vec(), ..Observed::new(Op::Open) };
    let rules: Vec<_> = tables.rules_of(Class::Open, &tables.matches(&event)).map(|rule| rule.id.to_string()).collect();
    assert_eq!(rules, ["RF-002"]);

    let error = compile(full.iter().chain([&rule(3, 256..258)])).unwrap_err();
    assert_eq!(error, CompileError::Full { class: Class::Open, lines: 258, rule: RuleId::new(3).unwrap() });
    assert_eq!(
        error.to_string(),
        "class Open is full: the rules have 258 lines of it, 256 fit; the rule that did not is RF-003"
    );
}

#[test]
fn a_path_that_is_too_long_is_named_with_its_rule() {
    let mut line = numbered_line(0);
    line.texts.get_mut(&Facet::ObjectPath).unwrap().any =
        vec![Pattern::Exact(format!("/{}", "x".repeat(LONGEST_PATH)))];
    let error = compile(&[rule_with(7, vec![numbered_line(1), line])]).unwrap_err().to_string();
    assert!(error.starts_with("RF-007, line 2: '/xxx"), "{error}");
    assert!(error.ends_with("in 'path' has 252 bytes; at most 251 can be compared"), "{error}");
}

#[test]
fn a_rule_is_compiled_once() {
    let rule = rule_with(1, vec![numbered_line(1)]);
    assert_eq!(compile([&rule, &rule]).unwrap_err(), CompileError::Twice(rule.id));
}

/// A text that is longer than a key must not satisfy a line by its beginning, except where a prefix is asked for.
#[test]
fn texts_longer_than_a_key_are_not_cut_to_match() {
    for (facet, limit) in
        [(Facet::ObjectPath, LONGEST_PATH), (Facet::ExePath, LONGEST_PATH), (Facet::ExeName, LONGEST_NAME)]
    {
        let text = format!("/{}", "a".repeat(limit));
        let text = if limit == LONGEST_NAME { &text[1..] } else { &text[..limit] };
        let with = |pattern: Pattern| {
            let texts = BTreeMap::from([(facet, Test { any: vec![pattern], none: Vec::new() })]);
            Line { ops: BTreeSet::from([Op::Open]), texts, ..Line::default() }
        };
        let prefix = text[..limit.min(PATH_PREFIX)].to_owned();
        let lines = vec![with(Pattern::Exact(text.to_owned())), with(Pattern::Prefix(prefix))];
        let tables = compile(&[rule_with(1, lines)]).unwrap();
        for (more, expected) in [("", 0b11), ("a", 0b10)] {
            let value = format!("{}{text}{more}", if limit == LONGEST_NAME { "/" } else { "" }).into_bytes();
            let mut event = Observed::new(Op::Open);
            *(if facet == Facet::ObjectPath { &mut event.path } else { &mut event.exe }) = value;
            assert_eq!(tables.matches(&event), [expected, 0, 0, 0], "{facet:?}{more}");
        }
    }
}
