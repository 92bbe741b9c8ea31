//! Whole files and what is said about them.

use super::*;
use crate::catalogue::Catalogue;
use crate::document::Source;
use crate::selector::Labels;

fn source(name: &str, text: &str) -> Source {
    Source { name: name.into(), text: text.into() }
}

fn problems(text: &str) -> Vec<String> {
    match read(&[source("f.yaml", text)], Catalogue::builtin()) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics.0.iter().map(ToString::to_string).collect(),
    }
}

/// A ruleset with the given `spec`, each line of which is indented by two.
fn with_spec(spec: &str) -> String {
    format!("apiVersion: ringfence.dev/v1alpha1\nkind: RuntimeRuleset\nmetadata:\n  name: web\nspec:\n{spec}")
}

const RULE: &str = "  rules:\n  - rule: RF-901\n    mitigation: log\n";

#[test]
fn a_good_file_is_read() {
    let text = "\
# two rulesets
apiVersion: ringfence.dev/v1alpha1
kind: RuntimeRuleset
metadata:
  name: web
  labels: {team: a}
spec:
  description: For the web servers
  selector:
    matchLabels: {app: web}
    matchExpressions:
    - {key: tier, operator: In, values: [front, back]}
    - {key: debug, operator: DoesNotExist}
  rules:
  - rule: TM-00000006
    mitigation: log
  - rule: Impact
    mitigation: terminate
  - rule: Known Cryptominer Process Executed
    mitigation: isolate
---
apiVersion: ringfence.dev/v1alpha1
kind: RuntimeRuleset
metadata: {name: base}
spec:
  rules: [{rule: RF-901, mitigation: block}]
";
    let rulesets = read(&[source("f.yaml", text)], Catalogue::builtin()).unwrap();
    let [web, base] = &rulesets[..] else { panic!("{rulesets:?}") };
    assert_eq!((web.name.as_str(), web.description.as_str()), ("web", "For the web servers"));
    let rules: Vec<_> = web.rules.iter().map(|(rule, wish)| format!("{rule} {}", wish.mitigation)).collect();
    assert_eq!(rules, ["RF-101 log", "RF-801 isolate", "RF-802 terminate"], "a named rule beats its tactic");
    let labels: Labels = [("app", "web"), ("tier", "back")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert!(web.selector.matches(&labels));
    assert_eq!(base.selector, Selector::default());
    assert_eq!(base.description, "");
}

#[test]
fn empty_documents_are_nothing() {
    assert_eq!(problems(""), [""; 0]);
    assert_eq!(problems("# nothing\n---\n---\n"), [""; 0]);
}

#[test]
fn every_problem_is_reported_at_its_place() {
    let text = "\
apiVersion: ringfence.dev/v1
kind: RuntimeRuleset
metadata:
  name: Web
  nam: x
spec:
  descripton: x
  selector:
    matchLabels:
      app: 1
      bad key: x
    matchExpressions:
    - {key: a, operator: in, values: [x]}
    - {key: a, operator: In}
    - {key: a, operator: Exists, values: [x]}
    - {operator: NotIn, values: ['b c']}
  rules:
  - rule: RF-902x
    mitigation: log
  - rule: RF-901
    mitigation: termnate
  - rule: Drop and execute new binary in container
    mitigation: log
  - rule: Defense Evasion
    mitigation: log
  - rule: Executon
    mitigation: log
  - rule: RF-101
    tactic: Execution
    mitigation: log
  - mitigation: log
  - rule: RF-105
";
    assert_eq!(
        problems(text),
        [
            "f.yaml:1:13: apiVersion 'ringfence.dev/v1' is not known here: use 'ringfence.dev/v1alpha1'",
            "f.yaml:4:9: 'Web' cannot be a ruleset's name of at most 63 characters: use lower-case letters, digits, \
             '-' and '.', beginning and ending with a letter or digit",
            "f.yaml:5:3: unknown field of 'metadata' 'nam': did you mean 'name'?",
            "f.yaml:7:3: unknown field of 'spec' 'descripton': did you mean 'description'?",
            "f.yaml:10:12: a label's value must be a text: put 1 in quotes",
            "f.yaml:11:7: 'bad key' is not a label key: a name has 1 to 63 letters, digits, '-', '_' and '.', and \
             begins and ends with a letter or digit",
            "f.yaml:13:26: unknown operator 'in': did you mean 'In'?",
            "f.yaml:14:26: operator 'In' needs 'values'",
            "f.yaml:15:34: operator 'Exists' takes no 'values'",
            "f.yaml:16:7: an expression needs 'key'",
            "f.yaml:16:34: 'b c' is not a label value: a value is empty or has up to 63 letters, digits, '-', '_' \
             and '.', and begins and ends with a letter or digit",
            "f.yaml:18:11: unknown rule 'RF-902x', did you mean 'RF-902'?",
            "f.yaml:21:17: unknown mitigation 'termnate': did you mean 'terminate'?",
            "f.yaml:22:11: rule RF-901 is there twice (here as 'Drop and execute new binary in container'): first \
             at 20:11",
            "f.yaml:24:11: ATT&CK 19 has split 'Defense Evasion' into 'Stealth' and 'Defense Impairment'",
            "f.yaml:26:11: unknown rule 'Executon', did you mean 'Execution'?",
            "f.yaml:29:5: unknown field of an entry of 'rules' 'tactic': use 'rule', 'mitigation' or 'exceptions'",
            "f.yaml:31:5: an entry of 'rules' needs 'rule'",
            "f.yaml:32:5: an entry of 'rules' needs 'mitigation'",
        ]
    );
}

#[test]
fn what_is_missing_or_of_the_wrong_kind_is_named() {
    for (text, expected) in [
        ("a: 1\n", "f.yaml:1:1: a ruleset needs 'kind'"),
        ("- a\n", "f.yaml:1:1: a ruleset must be a map, this is a list"),
        ("kind: Pod\nspec: {containers: []}\n", "f.yaml:1:7: kind 'Pod' is not known here: use 'RuntimeRuleset'"),
        (&with_spec("  description: x\n"), "f.yaml:6:3: 'spec' needs 'rules'"),
        (&with_spec("  rules:\n"), "f.yaml:6:3: 'spec' needs 'rules'"),
        (&with_spec("  rules: []\n"), "f.yaml:6:10: 'rules' is empty: a ruleset needs at least one rule"),
        (&with_spec("  rules: RF-901\n"), "f.yaml:6:10: 'rules' must be a list, this is a text"),
        (&with_spec("  rules: [RF-901]\n"), "f.yaml:6:11: an entry of 'rules' must be a map, this is a text"),
        (
            &with_spec("  rules: [{rule: Exfiltration, mitigation: log}]\n"),
            "f.yaml:6:18: no rule of the catalogue has the tactic 'Exfiltration'",
        ),
        (
            &with_spec("  rules: [{rule: Impact, mitigation: log}, {rule: Impact, mitigation: block}]\n"),
            "f.yaml:6:51: tactic 'Impact' is there twice: first at 6:18",
        ),
        (&with_spec(&format!("  selector: {{matchLabel: {{a: b}}}}\n{RULE}")), "did you mean 'matchLabels'?"),
        (&with_spec(&format!("  description: 5\n{RULE}")), "'description' must be a text: put 5 in quotes"),
        (&with_spec(&format!("{RULE}{RULE}")), "f.yaml:9:3: 'rules' is there twice in 'spec'"),
        (&with_spec(RULE).replace("  name: web", "  labels: {}"), "f.yaml:4:3: 'metadata' needs 'name'"),
        (&with_spec(RULE).replace("name: web", "name: 5"), "f.yaml:4:9: 'name' must be a text: put 5 in quotes"),
        ("a: [1\n", "f.yaml:1:4: not YAML: "),
        ("a:\n\tb: 1\n", "f.yaml:2:2: not YAML: tabs disallowed within this context (block indentation)"),
    ] {
        let found = problems(text);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{text}\n{found:#?}");
    }
}

#[test]
fn exceptions_are_read_and_held_against_the_rule() {
    let of = |rule: &str, exceptions: &str| {
        let text =
            with_spec(&format!("  rules:\n  - rule: {rule}\n    mitigation: log\n    exceptions: {exceptions}\n"));
        read(&[source("f.yaml", &text)], Catalogue::builtin())
            .map(|mut rulesets| rulesets.remove(0))
            .map_err(|problems| problems.0.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>())
    };
    let read = of("RF-212", "[{processes: [/usr/bin/tool], paths: ['/usr/local/bin/*']}]").unwrap();
    let exceptions = &read.rules.values().next().unwrap().exceptions;
    assert_eq!(
        serde_json::to_string(exceptions).unwrap(),
        r#"[{"processes":["/usr/bin/tool"],"paths":["/usr/local/bin/*"]}]"#
    );
    // Of a tactic, each rule gets what it can be about.
    let read = of("Credential Access", "[{paths: [/etc/shadow]}]").unwrap();
    assert!(read.rules.values().any(|wish| !wish.exceptions.is_empty()), "{read:?}");
    for (rule, exceptions, problem) in [
        ("RF-901", "[{}]", "an exception says what it is for: use processes, ancestors, paths, destinations, ports"),
        ("RF-901", "[{path: [/a]}]", "unknown field of an exception 'path': did you mean 'paths'?"),
        ("RF-901", "[{paths: [tmp/x]}]", "'tmp/x' in 'not_path' can never match: paths are absolute"),
        ("RF-901", "[{ports: [80]}]", "it never applies: no event of RF-901 has ports"),
        ("Impact", "[{ports: [80]}]", "it never applies: no event of RF-801 has ports"),
        ("RF-510", "[{destinations: [10.0.0.0/33]}]", "'10.0.0.0/33' is not an address or an address range; right"),
        ("RF-510", "[{ports: [0]}]", "an entry of 'ports' is no port: use a number from 1 to 65535"),
    ] {
        let problems = of(rule, exceptions).unwrap_err();
        assert!(problems.iter().any(|found| found.starts_with(problem)), "{rule} {exceptions}: {problems:?}");
    }
}

#[test]
fn names_are_unique_over_all_files() {
    let files = [source("a.yaml", &with_spec(RULE)), source("b.yaml", &with_spec(RULE))];
    let diagnostics = read(&files, Catalogue::builtin()).unwrap_err();
    assert_eq!(diagnostics.to_string(), "b.yaml:4:9: ruleset 'web' is there already: a.yaml:4:9");
    let twice = format!("{}---\n{}", with_spec(RULE), with_spec(RULE));
    assert_eq!(problems(&twice), ["f.yaml:13:9: ruleset 'web' is there already: f.yaml:4:9"]);
}

#[test]
fn a_broken_file_does_not_hide_the_others() {
    let files = [source("a.yaml", "a: ["), source("b.yaml", "kind: Pod\n")];
    let diagnostics = read(&files, Catalogue::builtin()).unwrap_err();
    let files: Vec<_> = diagnostics.0.iter().map(|diagnostic| diagnostic.file.as_str()).collect();
    assert_eq!(files, ["a.yaml", "b.yaml"]);
}

#[test]
fn renames_are_noticed() {
    let ruleset = |name: &str, text: &str| {
        let text = with_spec(text).replace("name: web", &format!("name: {name}"));
        read(&[source("f.yaml", &text)], Catalogue::builtin()).unwrap().remove(0)
    };
    let other = "  rules:\n  - rule: RF-902\n    mitigation: log\n";
    let (old, new) = (ruleset("old", RULE), ruleset("new", RULE));
    let rename = Rename { from: "old".into(), to: "new".into() };
    let (before, after) = ([old.clone()], [new.clone()]);
    assert_eq!(renames(&before, &after), [rename]);
    assert_eq!(renames(&before, &[old, new]), [], "a copy is not a rename");
    assert_eq!(renames(&before, &[ruleset("new", other)]), [], "another ruleset is not a rename");
}
