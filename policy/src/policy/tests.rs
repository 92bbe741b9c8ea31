//! Policies as they are written, and what they make of pods.

use super::*;
use crate::catalogue::Catalogue;
use crate::document::Source;
use crate::resolve::Decision;
use crate::ruleset::read;

fn policy(spec: &str) -> Result<Policy, String> {
    let text =
        format!("apiVersion: ringfence.dev/v1alpha1\nkind: RuntimePolicy\nmetadata: {{name: p}}\nspec: {spec}\n");
    read_policy(&Source { name: "p.yaml".to_owned(), text }).map_err(|diagnostics| {
        let shown = diagnostics.0.iter().map(|diagnostic| format!("{}: {}", diagnostic.field, diagnostic.message));
        shown.collect::<Vec<_>>().join("\n")
    })
}

fn enforced(spec: &str) -> Enforced {
    let text = "\
apiVersion: ringfence.dev/v1alpha1
kind: RuntimeRuleset
metadata: {name: web, generation: 3}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{rule: RF-901, mitigation: terminate}]
---
apiVersion: ringfence.dev/v1alpha1
kind: RuntimeRuleset
metadata: {name: prod}
spec:
  namespaceSelector: {matchLabels: {env: prod}}
  rules: [{rule: RF-801, mitigation: isolate}]
";
    let rulesets = read(&[Source { name: "r".to_owned(), text: text.to_owned() }], Catalogue::builtin()).unwrap();
    Enforced::new("ringfence", Some(policy(spec).unwrap()), rulesets)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn ask(enforced: &Enforced, namespace: &str, app: &str, env: &str, is_static: bool) -> Result<Vec<String>, Exempt> {
    let (labels, namespace_labels) = (labels(&[("app", app)]), labels(&[("env", env)]));
    let facts = PodFacts {
        namespace,
        name: "pod",
        labels: &labels,
        namespace_labels: &namespace_labels,
        is_static,
        standing: None,
    };
    let resolved = enforced.resolve(facts)?;
    Ok(resolved.rules.iter().map(|(rule, decision)| format!("{rule} {}", decision.mitigation)).collect())
}

#[test]
fn what_is_not_said_is_as_the_schema_has_it() {
    let schema: ringfence_api::RuntimePolicySpec = serde_saphyr::from_str("rulesets: [web]").unwrap();
    let policy = policy("{rulesets: [web]}").unwrap();
    assert_eq!(policy.rulesets, schema.rulesets);
    assert_eq!(policy.max_mitigation, schema.max_mitigation);
    let excluded: Vec<_> = policy.excluded_namespaces.iter().map(|pattern| pattern.0.clone()).collect();
    assert_eq!(excluded, schema.excluded_namespaces);
    assert_eq!((policy.suspend, policy.strict), (schema.limits.suspend, schema.isolation.strict));
    let Limits { max_terminations, window, min_ready_replicas } = policy.limits;
    let limits = schema.limits;
    assert_eq!(
        (max_terminations, window, min_ready_replicas),
        (limits.max_terminations, limits.termination_window_seconds, limits.min_ready_replicas)
    );
}

#[test]
fn a_limit_isolates_instead_of_terminating_and_says_so() {
    let limited = enforced("{rulesets: [web, prod], limits: {maxTerminations: 2, minReadyReplicas: 1}}");
    let (labels, namespace_labels) = (labels(&[("app", "web")]), labels(&[("env", "prod")]));
    let ask = |standing: Option<Standing>| {
        let facts = PodFacts {
            namespace: "shop",
            name: "pod",
            labels: &labels,
            namespace_labels: &namespace_labels,
            is_static: false,
            standing,
        };
        let resolved = limited.resolve(facts).unwrap();
        let held: Vec<_> = resolved.rules.values().filter_map(Decision::held).collect();
        let decisions = resolved.rules.iter().map(|(rule, decision)| format!("{rule} {}", decision.mitigation));
        (decisions.collect::<Vec<_>>(), held)
    };
    let free = vec!["RF-801 isolate".to_owned(), "RF-901 terminate".to_owned()];
    let held = vec!["RF-801 isolate".to_owned(), "RF-901 isolate".to_owned()];
    let standing = Standing { ready_replica: true, spare: Some(1), ..Standing::default() };
    assert_eq!(ask(None), (free.clone(), vec![]));
    assert_eq!(ask(Some(standing)), (free, vec![]));
    let none_spare = Standing { spare: Some(0), ..standing };
    assert_eq!(ask(Some(none_spare)), (held.clone(), vec![(Mitigation::Terminate, Limit::MinReadyReplicas)]));
    let many = Standing { in_window: 2, ..standing };
    assert_eq!(ask(Some(many)), (held, vec![(Mitigation::Terminate, Limit::MaxTerminations)]));
    let dry = enforced("{rulesets: [web], maxMitigation: log}");
    let facts = PodFacts {
        namespace: "shop",
        name: "pod",
        labels: &labels,
        namespace_labels: &namespace_labels,
        is_static: false,
        standing: Some(none_spare),
    };
    let resolved = dry.resolve(facts).unwrap();
    let held: Vec<_> = resolved.rules.values().filter_map(Decision::held).collect();
    assert_eq!(held, [(Mitigation::Terminate, Limit::MaxMitigation)], "the dry run says what it held back");
}

#[test]
fn limits_are_numbers_within_bounds() {
    let good =
        policy("{rulesets: [a], limits: {maxTerminations: 3, terminationWindowSeconds: 60, minReadyReplicas: 2}}");
    let Limits { max_terminations, window, min_ready_replicas } = good.unwrap().limits;
    assert_eq!((max_terminations, window, min_ready_replicas), (Some(3), 60, 2));
    let problems =
        policy("{rulesets: [a], limits: {maxTerminations: 0, terminationWindowSeconds: 1.5, minReadyReplicas: '1'}}");
    assert_eq!(
        problems.unwrap_err().lines().collect::<Vec<_>>(),
        [
            "spec.limits.maxTerminations: 0 can't be 'maxTerminations': use a whole number of pods, 1 to 1000",
            "spec.limits.terminationWindowSeconds: 1.5 can't be 'terminationWindowSeconds': use a whole number of \
             seconds, 1 to 86400",
            "spec.limits.minReadyReplicas: '1' can't be 'minReadyReplicas': use a whole number of pods, 0 to 1000",
        ]
    );
    let problem = policy("{rulesets: [a], limits: {maxTermination: 3}}").unwrap_err();
    assert!(problem.contains("did you mean 'maxTerminations'?"), "{problem}");
}

#[test]
fn labels_of_pods_and_namespaces_select() {
    let both = enforced("{rulesets: [web, prod]}");
    assert_eq!(ask(&both, "shop", "web", "prod", false).unwrap(), ["RF-801 isolate", "RF-901 terminate"]);
    assert_eq!(ask(&both, "shop", "db", "prod", false).unwrap(), ["RF-801 isolate"]);
    assert_eq!(ask(&both, "shop", "web", "test", false).unwrap(), ["RF-901 terminate"]);
    let one = enforced("{rulesets: [web, gone]}");
    assert_eq!(ask(&one, "shop", "db", "prod", false).unwrap(), [""; 0], "not named by the policy");
    assert_eq!(one.missing().collect::<Vec<_>>(), ["gone"]);
}

#[test]
fn without_a_cluster_every_ruleset_counts() {
    let rulesets: Vec<Ruleset> = ["log", "isolate", "terminate"]
        .into_iter()
        .map(|name| Ruleset { name: name.to_owned(), ..Ruleset::default() })
        .collect();
    let policy = Some(Policy::everything(&rulesets));
    let all = Enforced::new("", policy, rulesets);
    assert_eq!((all.rulesets().count(), all.missing().count()), (3, 0), "in whatever order they come");
}

#[test]
fn a_dry_run_logs() {
    let dry = enforced("{rulesets: [web, prod], maxMitigation: log}");
    assert_eq!(ask(&dry, "shop", "web", "prod", false).unwrap(), ["RF-801 log", "RF-901 log"]);
    let capped = enforced("{rulesets: [web, prod], maxMitigation: isolate}");
    assert_eq!(ask(&capped, "shop", "web", "prod", false).unwrap(), ["RF-801 isolate", "RF-901 isolate"]);
}

#[test]
fn exempt_pods() {
    let some = enforced("{rulesets: [web], excludedNamespaces: [kube-system, openshift-*]}");
    assert_eq!(ask(&some, "kube-system", "web", "", false), Err(Exempt::Namespace));
    assert_eq!(ask(&some, "openshift-dns", "web", "", false), Err(Exempt::Namespace));
    assert!(ask(&some, "openshift", "web", "", false).is_ok());
    assert_eq!(ask(&some, "ringfence", "web", "", false), Err(Exempt::Own));
    assert_eq!(ask(&some, "shop", "web", "", true), Err(Exempt::Static));
    let named = enforced("{rulesets: [web], limits: {governStaticPods: [shop/pod]}}");
    assert!(ask(&named, "shop", "web", "", true).is_ok());
    let suspended = enforced("{rulesets: [web], limits: {suspend: true}}");
    assert_eq!(ask(&suspended, "shop", "web", "", false), Err(Exempt::Suspended));
    assert_eq!(ask(&Enforced::default(), "shop", "web", "", false), Err(Exempt::NoPolicy));
}

#[test]
fn every_problem_is_reported_with_its_field() {
    let problems = policy(
        "{rulesets: [Web, a, a], maxMitigation: kill, excludedNamespaces: [a.b, 'x*y'], \
         limits: {suspend: 1, governStaticPods: [x]}, isolation: {exceptions: [{cidr: 1.2.3}, {port: 1}, \
         {cidr: 10.0.0.0/8, ports: [{port: 0}, {port: 2, endPort: 1}, {port: 1, protocol: tcp}, {}]}]}, more: 1}",
    )
    .unwrap_err();
    let fields: Vec<_> = problems.lines().map(|line| line.split_once(": ").unwrap().0).collect();
    assert_eq!(
        fields,
        [
            "spec.rulesets[0]",
            "spec.rulesets[2]",
            "spec.maxMitigation",
            "spec.excludedNamespaces[0]",
            "spec.excludedNamespaces[1]",
            "spec.limits.suspend",
            "spec.limits.governStaticPods[0]",
            "spec.isolation.exceptions[0].cidr",
            "spec.isolation.exceptions[1]",
            "spec.isolation.exceptions[1].port",
            "spec.isolation.exceptions[2].ports[0].port",
            "spec.isolation.exceptions[2].ports[1].endPort",
            "spec.isolation.exceptions[2].ports[2].protocol",
            "spec.isolation.exceptions[2].ports[3]",
            "spec.more",
        ],
        "{problems}"
    );
    assert!(policy("{}").unwrap_err().contains("needs 'rulesets'"));
}
