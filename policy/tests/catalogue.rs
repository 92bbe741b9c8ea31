//! The managed catalogue: well-formed, and what its documentation says.

use std::collections::BTreeSet;

use ringfence_abi::{Class, Facet};
use ringfence_policy::{Catalogue, DecidedBy, TACTICS, catalogue, compile, coverage};

/// Techniques of ATT&CK 19's platform "Containers".
const CONTAINERS: [&str; 42] = [
    "T1078",
    "T1078.001",
    "T1078.003",
    "T1133",
    "T1190",
    "T1053.007",
    "T1059",
    "T1059.013",
    "T1204.003",
    "T1609",
    "T1610",
    "T1098",
    "T1098.006",
    "T1136.001",
    "T1525",
    "T1543",
    "T1543.005",
    "T1068",
    "T1611",
    "T1036",
    "T1036.005",
    "T1036.010",
    "T1070",
    "T1612",
    "T1685",
    "T1110",
    "T1110.001",
    "T1110.003",
    "T1110.004",
    "T1528",
    "T1552",
    "T1552.001",
    "T1552.007",
    "T1046",
    "T1069",
    "T1613",
    "T1550.001",
    "T1485",
    "T1490",
    "T1496",
    "T1496.001",
    "T1496.002",
];

/// Rules that have to be there.
const EXPECTED: [&str; 29] = [
    "RF-101", "RF-105", "RF-107", "RF-108", "RF-115", "RF-117", "RF-210", "RF-211", "RF-212", "RF-305", "RF-307",
    "RF-309", "RF-312", "RF-314", "RF-317", "RF-326", "RF-401", "RF-409", "RF-501", "RF-508", "RF-510", "RF-513",
    "RF-801", "RF-802", "RF-901", "RF-902", "RF-903", "RF-905", "RF-906",
];

#[test]
fn every_rule_is_well_formed() {
    let technique = |id: &str| {
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        let Some(id) = id.strip_prefix('T') else { return false };
        id.split_once('.').map_or_else(|| digits(id, 4), |(id, sub)| digits(id, 4) && digits(sub, 3))
    };
    for rule in Catalogue::builtin().rules() {
        let id = rule.id;
        assert!(TACTICS.contains(&rule.tactic.as_ref()), "{id}: tactic {}", rule.tactic);
        assert!(!rule.techniques.is_empty(), "{id}: no technique");
        for given in rule.techniques.iter() {
            assert!(technique(given), "{id}: {given}");
        }
        let containers = rule.techniques.iter().any(|given| CONTAINERS.contains(&given.as_str()));
        assert_eq!(rule.containers_matrix, containers, "{id}: containers_matrix");
        assert!(!rule.lines.is_empty() && !rule.benign.is_empty(), "{id}: no lines or no benign causes");
        assert!(rule.description.ends_with('.') && !rule.name.ends_with('.'), "{id}: name or description");
        for alias in &rule.aliases.trend {
            assert!(alias.len() == 11 && alias.starts_with("TM-"), "{id}: {alias}");
        }
        if let Some(misses) = &rule.misses {
            let continues = !misses.starts_with(|c: char| c.is_uppercase()) || misses.starts_with("LD_");
            assert!(continues && misses.ends_with('.'), "{id}: {misses}");
        }
    }
}

#[test]
fn the_first_rules_are_there() {
    let ids: BTreeSet<String> = Catalogue::builtin().rules().map(|rule| rule.id.to_string()).collect();
    assert!(EXPECTED.iter().all(|id| ids.contains(*id)), "{ids:?}");
}

#[test]
fn rules_are_found_by_id_alias_tactic_and_technique() {
    let catalogue = Catalogue::builtin();
    let found = |name: &str| catalogue.find(name).map(|rule| rule.id.to_string());
    assert_eq!(found("RF-901").as_deref(), Some("RF-901"));
    assert_eq!(found("TM-00000006").as_deref(), Some("RF-101"));
    assert_eq!(found("Clear Log Activities").as_deref(), Some("RF-401"));
    assert_eq!(found("RF-1"), None);
    assert_eq!(catalogue.nearest("RF9O1").as_deref(), Some("RF-901"));
    assert!(catalogue.by_technique("T1059").any(|rule| rule.id.to_string() == "RF-107"), "sub-techniques are included");
    assert!(!catalogue.by_technique("T105").any(|_| true));
    assert!(catalogue.by_tactic("Impact").all(|rule| *rule.tactic == *"Impact"));
}

/// Most rules are decided where they are mitigated.
#[test]
fn nine_of_ten_rules_are_decided_in_the_kernel() {
    let rules = Catalogue::builtin().rules();
    let all = rules.len();
    let kernel = rules.filter(|rule| rule.decided_by == DecidedBy::Kernel).count();
    assert!(kernel * 10 >= all * 9, "{kernel} of {all}");
}

#[test]
fn it_compiles_and_uses_every_class_and_every_facet() {
    let tables = compile(Catalogue::builtin().rules()).unwrap();
    for class in Class::ALL {
        assert!(!tables.lines(class).is_empty(), "{class:?}");
    }
    let lines: Vec<_> = Catalogue::builtin().rules().flat_map(|rule| &rule.lines).collect();
    for facet in Facet::ALL {
        assert!(lines.iter().any(|line| line.cares(facet)), "{facet:?}");
    }
    assert!(lines.iter().any(|line| line.flags.required != 0 && line.flags.refused != 0), "flags");
    assert!(lines.iter().any(|line| !line.families.is_empty()), "family");
    assert!(lines.iter().any(|line| !line.socket_types.is_empty()), "type");
}

/// `cargo run -p ringfence-policy --example rules > docs/rules.md`, and the same with `coverage`.
#[test]
fn the_committed_documents_are_current() {
    let documents =
        [("rules", catalogue::markdown(Catalogue::builtin())), ("coverage", coverage::markdown(Catalogue::builtin()))];
    for (name, current) in documents {
        let path = format!("{}/../docs/{name}.md", env!("CARGO_MANIFEST_DIR"));
        let committed = std::fs::read_to_string(path).expect("it is there");
        assert!(committed == current, "docs/{name}.md is not what the catalogue says");
    }
}
