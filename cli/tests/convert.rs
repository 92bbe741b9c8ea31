//! `ringfence convert`, run as a user runs it, on files as users have them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ringfence_policy::yaml::{self, Node, Value};
use tempfile::TempDir;

/// What the chart's tests render with both Helms, and lint.
const CONVERTED: &str = include_str!("../../integration/src/chart/overrides/converted.yaml");

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migration").join(name)
}

fn convert(words: &[&str], file: &Path) -> Output {
    let mut ringfence = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    ringfence.arg("convert").args(words).arg(file).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Lines of standard error without the file's name.
fn said(output: &Output, file: &Path) -> Vec<String> {
    let text = std::str::from_utf8(&output.stderr).unwrap();
    let prefix = format!("{}:", file.display());
    text.lines().map(|line| line.strip_prefix(&prefix).unwrap_or(line).to_owned()).collect()
}

/// Converts a file with that text.
fn of_text(what: &str, text: &str) -> (Output, Vec<String>) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file.yaml");
    fs::write(&file, text).unwrap();
    let output = convert(&[what], &file);
    let said = said(&output, &file);
    (output, said)
}

#[test]
fn overrides_become_those_of_our_chart() {
    let file = sample("overrides.yaml");
    let output = convert(&["overrides", "--platform", "k3s"], &file);
    assert_eq!(output.status.code(), Some(0));
    let values = CONVERTED.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(stdout(&output).lines().collect::<Vec<_>>(), values.collect::<Vec<_>>());
}

#[test]
fn every_key_is_told_of_and_no_value() {
    let file = sample("overrides.yaml");
    let output = convert(&["overrides", "--platform", "k3s"], &file);
    let said = said(&output, &file);
    for line in [
        "3:3: visionOne.bootstrapToken: left out: nothing outside of the cluster takes part",
        "10:5: visionOne.admissionController.failurePolicy: now webhook.failurePolicy",
        "23:5: visionOne.policyOperator.clusterPolicyName: now policy.active",
        "37:3: tolerations.defaults: now webhook.tolerations; runtimeSecurity.tolerations comes from a more specific key",
        "79:3: proxy.httpsProxy: kept",
    ] {
        assert!(said.contains(&line.to_owned()), "{line:?} is not in {said:#?}");
    }
    // Whatever has a value is named itself, or by what it is part of.
    let documents = yaml::documents(&fs::read_to_string(&file).unwrap()).unwrap();
    let mut paths = Vec::new();
    leaves(&documents[0], "", &mut paths);
    assert!(paths.len() > 40, "{paths:?}");
    for path in paths {
        let told = |line: &String| {
            let field = line.split(": ").nth(1).unwrap_or_default();
            path == field || path.strip_prefix(field).is_some_and(|rest| rest.starts_with('.'))
        };
        assert!(said.iter().any(told), "{path} is not in {said:#?}");
    }
    assert!(!String::from_utf8_lossy(&output.stderr).contains("not-a-"), "a secret is told");
}

/// Paths of everything that is no map.
fn leaves(node: &Node, path: &str, paths: &mut Vec<String>) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            for (key, node) in entries {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(node, &format!("{path}{dot}{}", key.text), paths);
            }
        }
        _ => paths.push(path.to_owned()),
    }
}

#[test]
fn openshift_has_namespaces_by_prefix() {
    let output = convert(&["overrides", "--platform", "openshift"], &sample("overrides.yaml"));
    let list = "  excludedNamespaces:\n  - kube-system\n  - monitoring\n  - openshift*\n  - kube*\n";
    assert!(stdout(&output).contains(list), "{}", stdout(&output));
    assert!(stdout(&output).contains("platform: openshift\n"));
}

#[test]
fn unknown_and_wrong_values_are_named_and_nothing_is_made() {
    for (text, expected) in [
        (
            "visionOne:\n  runtimeSecurity:\n    enabeld: true\n",
            "3:5: visionOne.runtimeSecurity.enabeld: neither chart knows this key; did you mean 'enabled'?",
        ),
        ("tolerations:\n  scuot: []\n", "2:3: tolerations.scuot: neither chart knows this key; did you mean 'scout'?"),
        ("mine:\n  x: 1\n", "1:1: mine: neither chart knows this key; take it out, if it is yours"),
        (
            "cloudOne:\n  runtimeSecurity:\n    enabled: 'yes'\n",
            "3:14: cloudOne.runtimeSecurity.enabled: true or false is expected, this is 'yes'",
        ),
        (
            "visionOne:\n  admissionController:\n    failurePolicy: fail\n",
            "3:20: visionOne.admissionController.failurePolicy: Ignore or Fail is expected, this is 'fail'",
        ),
        ("tolerations:\n  defaults:\n    key: a\n", "3:5: tolerations.defaults: a list is expected, this is a map"),
        ("visionOne: true\n", "1:1: visionOne: a map of values is expected, this is a number or truth value"),
        (
            "visionOne: {}\ncloudOne: {}\n",
            "2:1: cloudOne: it is there beside visionOne: one chart knows only one of them",
        ),
        ("", "1:1: there is nothing in it"),
        ("- 1\n", "1:1: a map of values is expected, this is a list"),
    ] {
        let (output, said) = of_text("overrides", text);
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""), "{text}");
        assert_eq!(said, [expected], "{text}");
    }
    let (output, said) = of_text("overrides", "a: [\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(said[0].contains("not YAML"), "{said:?}");
}

#[test]
fn rulesets_become_ours_and_a_policy_names_them() {
    let file = sample("rulesets.yaml");
    let output = convert(&["rulesets", "--policy", "shop", "--max-mitigation", "terminate"], &file);
    assert_eq!(output.status.code(), Some(0));
    let documents: Vec<_> = stdout(&output).split("---\n").filter(|text| !text.is_empty()).collect();
    assert_eq!(documents.len(), 3);
    for (document, parts) in documents.iter().zip([
        [
            "kind: RuntimeRuleset\n",
            "  name: shop-web.v2\n",
            "  - mitigation: isolate\n    rule: RF-401\n",
            "    matchLabels:\n      app: web\n      app.kubernetes.io/part-of: shop\n",
        ],
        [
            "kind: RuntimeRuleset\n",
            "  name: miners\n",
            "  - mitigation: terminate\n    rule: RF-802\n",
            "spec:\n  rules:\n",
        ],
        ["kind: RuntimePolicy\n", "  name: shop\n", "  maxMitigation: terminate\n", "  - shop-web.v2\n  - miners\n"],
    ]) {
        for part in parts {
            assert!(document.contains(part), "{part:?} is not in {document}");
        }
    }
    assert_eq!(
        said(&output, &file),
        [
            "5:3: Shop_Web.v2: converted, as 'shop-web.v2'",
            "21:9: TM-00000003: left out: no managed rule here is its equivalent",
            "23:9: TM-00000006: now RF-101, log",
            "25:9: TM-00000012: now RF-401, log",
            "27:9: TM-00000047: now RF-401, as TM-00000012 is; the stricter mitigation counts: isolate",
            "29:9: TM-00000050: now RF-108, terminate",
            "31:9: CR-shop-1: left out: Falco rules of one's own have no equivalent",
            "35:3: kind: ClusterPolicy: left out: its rules are about specs and images of pods, ours about what runs. \
             Pod Security admission or a policy engine does that",
            "43:3: miners: converted",
            "48:5: TM-00000025: now RF-802, terminate",
            "49:5: TM-00000052: left out: it is not enabled",
        ]
    );
    // It is what `ringfence lint` and the webhook take.
    let folder = TempDir::new().unwrap();
    let rulesets = folder.path().join("rulesets.yaml");
    fs::write(&rulesets, documents[..2].join("---\n")).unwrap();
    let lint = Command::new(env!("CARGO_BIN_EXE_ringfence")).arg("lint").arg(&rulesets).output().unwrap();
    assert_eq!(stdout(&lint), "2 rulesets and 1 file: no problem\n");
}

#[test]
fn a_policy_is_a_dry_run_unless_asked_otherwise() {
    let file = sample("rulesets.yaml");
    let output = convert(&["rulesets"], &file);
    assert!(stdout(&output).contains("  maxMitigation: log\n"));
    let last = said(&output, &file).pop().unwrap();
    assert_eq!(last, "ringfence: the policy is a dry run (maxMitigation: log), whatever the rulesets say");
}

#[test]
fn wrong_rulesets_are_named_and_nothing_is_made() {
    let ruleset = |name: &str, rest: &str| {
        format!(
            "name: {name}\nlabels: [{{key: app, value: web}}]\nrules: [{{ruleID: TM-00000006, mitigation: log}}]\n{rest}"
        )
    };
    for (text, expected) in [
        (ruleset("a", "lables: []\n"), "4:1: lables: it is not known; did you mean 'labels'?"),
        (
            ruleset("a", "").replace("TM-00000006", "TM-0000006"),
            "3:9: TM-0000006: no rule has this id; did you mean 'TM-00000006'?",
        ),
        (
            ruleset("a", "").replace("mitigation: log", "mitigation: kill"),
            "3:43: TM-00000006: its mitigation is to be log, isolate or terminate",
        ),
        (
            ruleset("A_b", "") + "---\n" + &ruleset("a-b", ""),
            "5:7: name: 'a-b' and 'A_b' would both be called 'a-b': rename one",
        ),
        ("kind: Deployment\n".to_owned(), "1:1: kind: 'Deployment' is not converted: RuntimeRuleset is"),
    ] {
        let (output, said) = of_text("rulesets", &text);
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""), "{text}");
        assert_eq!(said, [expected], "{text}");
    }
    let (output, said) = of_text("rulesets", "name: a\nrules: [{ruleID: TM-00000003, mitigation: log}]\n");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(said, ["1:1: there is no ruleset in it that could be converted"]);
}
