//! Requests as the API server sends them, and the decisions.

#![expect(clippy::needless_pass_by_value, reason = "JSON that is written in place")]

use std::sync::Arc;

use ringfence_policy::{Index, Labels};
use serde_json::{Value, json};

use super::*;
use crate::review::parse;
use crate::snapshot::Namespaces;

const HASH: &str = "ringfence.dev/ruleset-hash";
const POLICY: &str = "ringfence.dev/policy";
const SPARE: &str = "ringfence.dev/spare-replicas";
const LEFT: &str = "ringfence.dev/terminations-left";
const TERMINATED: &str = "ringfence.dev/terminated-by";
const ISOLATED: &str = "ringfence.dev/isolated";

fn ruleset(name: &str, selector: &Value, rule: &str) -> Value {
    json!({"apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimeRuleset", "metadata": {"name": name, "generation": 2},
           "spec": {"selector": selector, "rules": [{"rule": "RF-901", "mitigation": "isolate"}, {"rule": rule, "mitigation": "log"}]}})
}

fn policy(name: &str, rulesets: &[&str]) -> Value {
    json!({"apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimePolicy", "metadata": {"name": name},
           "spec": {"rulesets": rulesets}})
}

/// Two rulesets in force, one that only another policy names, one that nobody does.
pub(crate) fn snapshot() -> Snapshot {
    let mut index = Index::new("ringfence", "main");
    let web = json!({"matchLabels": {"app": "web"}});
    index.put_ruleset("web", ruleset("web", &web, "RF-801").to_string());
    index.put_ruleset("base", ruleset("base", &json!({}), "RF-101").to_string());
    index.put_ruleset("spare", ruleset("spare", &json!({}), "RF-101").to_string());
    index.put_ruleset("lonely", ruleset("lonely", &json!({}), "RF-101").to_string());
    index.put_policy("main", policy("main", &["base", "web"]).to_string());
    index.put_policy("other", policy("other", &["spare"]).to_string());
    let namespaces =
        ["shop", "prod", "kube-system", "ringfence"].map(|name| (name.to_owned(), Arc::new(Labels::new())));
    Snapshot::new(index, Namespaces::from(namespaces))
}

fn accounts() -> Accounts {
    Accounts::new("ringfence", "ringfence-webhook", "ringfence-enforcer")
}

fn review(resource: (&str, &str, &str), operation: &str, user: Value, new: Value, old: Value) -> String {
    let name = [&new, &old].into_iter().find_map(|object| object["metadata"]["name"].as_str()).unwrap_or_default();
    let user = if user.is_string() { json!({"username": user}) } else { user };
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1", "operation": operation, "userInfo": user, "name": name, "namespace": "shop",
            "resource": {"group": resource.0, "version": "v1", "resource": resource.1}, "subResource": resource.2,
            "object": new, "oldObject": old,
        },
    })
    .to_string()
}

fn decide(review: &str) -> Verdict {
    let request = parse(review.as_bytes()).unwrap();
    validate(&request, &[Arc::new(snapshot())], &accounts()).unwrap()
}

/// The refusal's code and message; empty: allowed.
fn refusal(verdict: Verdict) -> (u16, String) {
    let (Verdict::Answer(answer) | Verdict::Unless(answer)) = verdict else { panic!("{verdict:?}") };
    answer.refusal.map_or((200, String::new()), |refusal| (refusal.code, refusal.message))
}

fn pod(labels: Value, annotations: Value) -> Value {
    json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": labels, "annotations": annotations},
           "spec": {"nodeName": "node-a", "containers": [{"image": "a"}]}})
}

fn update(user: Value, old: Value, new: Value) -> Verdict {
    decide(&review(("", "pods", ""), "UPDATE", user, new, old))
}

fn enforcer(extra: Value) -> Value {
    json!({"username": "system:serviceaccount:ringfence:ringfence-enforcer", "extra": extra})
}

const ALICE: &str = "alice";

#[test]
fn admit_new_pods_with_the_labels_that_were_computed() {
    let create =
        |labels: Value| decide(&review(("", "pods", ""), "CREATE", json!(ALICE), pod(labels, json!({})), Value::Null));
    let plain = Pod::parse(&pod(json!({"app": "web"}), json!({})).to_string()).unwrap();
    let mut right = snapshot().labels_of("shop", &plain).unwrap();
    let keys: Vec<_> = right.keys().map(String::as_str).collect();
    assert_eq!(keys, [POLICY, HASH, "ruleset.ringfence.dev/base", "ruleset.ringfence.dev/web"]);
    assert_eq!((right[POLICY].as_str(), right["ruleset.ringfence.dev/web"].as_str()), ("main", "2"));
    right.insert("app".to_owned(), "web".to_owned());
    assert_eq!(refusal(create(json!(right))), (200, String::new()));
    assert_eq!(refusal(create(json!({"app": "web"}))), (200, String::new()), "the mutating webhook was away");

    let mut forged = right.clone();
    forged.insert(HASH.to_owned(), "0".repeat(32));
    let (code, message) = refusal(create(json!(forged)));
    let expected =
        format!("metadata.labels[{HASH}]: '{}' is not right, it has to be '{}'", "0".repeat(32), right[HASH]);
    assert_eq!((code, message), (403, expected));
    let (code, message) = refusal(create(json!({"app": "web", ISOLATED: "true"})));
    assert_eq!(
        (code, message.as_str()),
        (403, "metadata.labels[ringfence.dev/isolated]: this pod can't have it, take it out")
    );
    for label in [SPARE, LEFT] {
        let (code, message) = refusal(create(json!({"app": "web", label: "0"})));
        assert_eq!((code, message), (403, format!("metadata.labels[{label}]: this pod can't have it, take it out")));
    }
    right.remove(HASH);
    let (_, message) = refusal(create(json!(right)));
    assert!(message.contains("it is missing beside other labels"), "{message}");
}

#[test]
fn only_a_kubelet_makes_copies_of_static_pods() {
    let mirror = pod(json!({}), json!({"kubernetes.io/config.mirror": "x", "kubernetes.io/config.hash": "y"}));
    let by = |user: Value| refusal(decide(&review(("", "pods", ""), "CREATE", user, mirror.clone(), Value::Null)));
    let (code, message) = by(json!(ALICE));
    assert_eq!(code, 403);
    assert!(message.starts_with("metadata.annotations[kubernetes.io/config.mirror]: only a kubelet"), "{message}");
    assert_eq!(by(json!({"username": "system:node:node-a", "groups": ["system:nodes"]})).0, 200);
}

#[test]
fn an_enforcer_reports_in_our_own_namespace_alone() {
    let own = |namespace: &str, key: &str| {
        let (was, is) = (pod(json!({}), json!({})), pod(json!({}), json!({key: "{}"})));
        let user = enforcer(json!({"authentication.kubernetes.io/node-name": ["node-a"]}));
        let review = review(("", "pods", ""), "UPDATE", user, is, was);
        refusal(decide(&review.replace("\"namespace\":\"shop\"", &format!("\"namespace\":\"{namespace}\"")))).0
    };
    assert_eq!(own("ringfence", "ringfence.dev/report"), 200);
    assert_eq!(own("shop", "ringfence.dev/report"), 403);
    assert_eq!(own("ringfence", "ringfence.dev/policy"), 403);
}

#[test]
fn admit_a_pod_that_was_right_a_moment_ago() {
    let old = Arc::new(snapshot());
    let mut index = (*old.index).clone();
    index.put_policy("main", policy("main", &["base"]).to_string());
    let new = Arc::new(Snapshot::new(index, (*old.namespaces).clone()));
    let plain = Pod::parse(&pod(json!({"app": "web"}), json!({})).to_string()).unwrap();
    let labels = old.labels_of("shop", &plain).unwrap();
    let review = review(("", "pods", ""), "CREATE", json!(ALICE), pod(json!(labels), json!({})), Value::Null);
    let review = review.replace("\"labels\":{", "\"labels\":{\"app\":\"web\",");
    let request = parse(review.as_bytes()).unwrap();
    let now = validate(&request, &[Arc::clone(&new)], &accounts()).unwrap();
    assert!(matches!(now, Verdict::Unless(_)), "a newer snapshot may explain it: {now:?}");
    let recent = validate(&request, &[new, old], &accounts()).unwrap();
    assert_eq!(recent, Verdict::Answer(Answer::allow()));
}

#[test]
fn admit_a_pod_that_is_right_under_another_policy() {
    let plain = Pod::parse(&pod(json!({"app": "web"}), json!({})).to_string()).unwrap();
    let mut labels = snapshot().under("other").unwrap().labels_of("shop", &plain).unwrap();
    assert_eq!(labels[POLICY], "other");
    labels.insert("app".to_owned(), "web".to_owned());
    let create = |labels: &Labels| {
        refusal(decide(&review(("", "pods", ""), "CREATE", json!(ALICE), pod(json!(labels), json!({})), Value::Null)))
    };
    assert_eq!(create(&labels), (200, String::new()));
    labels.insert(HASH.to_owned(), "0".repeat(32));
    assert_eq!(create(&labels).0, 403);
    labels.insert(POLICY.to_owned(), "nosuch".to_owned());
    assert_eq!(create(&labels).0, 403);
}

#[test]
fn users_do_not_write_our_labels() {
    let was = pod(json!({"app": "web", POLICY: "main"}), json!({}));
    let may = "only system:serviceaccount:ringfence:ringfence-webhook may do that";
    let table = [
        (json!({"app": "db", POLICY: "main", "x": "y"}), String::new()),
        (json!({"app": "web"}), format!("metadata.labels[{POLICY}]: 'main' can't be removed, {may}")),
        (json!({POLICY: "x"}), format!("metadata.labels[{POLICY}]: 'main' can't become 'x', {may}")),
        (
            json!({POLICY: "main", "a.ringfence.dev/b": ""}),
            format!("metadata.labels[a.ringfence.dev/b]: '' can't be added, {may}"),
        ),
    ];
    for (labels, expected) in table {
        let (code, message) = refusal(update(json!(ALICE), was.clone(), pod(labels.clone(), json!({}))));
        assert_eq!(message, expected, "{labels}");
        assert_eq!(code == 403, !expected.is_empty());
        let part = review(("", "pods", "status"), "UPDATE", json!(ALICE), pod(labels.clone(), json!({})), was.clone());
        assert_eq!(refusal(decide(&part)).1, expected, "through the status");
        let us = "system:serviceaccount:ringfence:ringfence-webhook";
        assert_eq!(refusal(update(json!(us), was.clone(), pod(labels, json!({})))).0, 200);
    }
    let (_, message) =
        refusal(update(json!(ALICE), was.clone(), pod(json!({POLICY: "main", ISOLATED: "true"}), json!({}))));
    assert!(message.contains("only system:serviceaccount:ringfence:ringfence-enforcer may"), "{message}");
    for label in [SPARE, LEFT] {
        let (_, message) =
            refusal(update(json!(ALICE), was.clone(), pod(json!({POLICY: "main", label: "0"}), json!({}))));
        assert_eq!(message, format!("metadata.labels[{label}]: '0' can't be added, {may}"), "it would spare his pod");
    }
    let marked = pod(json!({"app": "web", POLICY: "main"}), json!({TERMINATED: "RF-901"}));
    for (was, is) in [(&was, &marked), (&marked, &was)] {
        let (code, message) = refusal(update(json!(ALICE), was.clone(), is.clone()));
        assert_eq!(code, 403);
        assert!(message.contains("only system:serviceaccount:ringfence:ringfence-enforcer may"), "{message}");
    }
    let binding =
        json!({"metadata": {"name": "web-1", "annotations": {"ringfence.dev/isolated-by": "x"}}, "target": {}});
    let (code, _) = refusal(decide(&review(("", "pods", "binding"), "CREATE", json!(ALICE), binding, Value::Null)));
    assert_eq!(code, 403);
}

#[test]
fn a_release_depends_on_the_users_right() {
    let isolated = pod(json!({ISOLATED: "true"}), json!({"ringfence.dev/isolated-by": "RF-901"}));
    let released = pod(json!({}), json!({}));
    let Verdict::Ask(question, refusal) = update(json!(ALICE), isolated.clone(), released) else { panic!() };
    assert_eq!(question, Question::MayRelease { namespace: "shop".to_owned(), pod: "web-1".to_owned() });
    let message = refusal.refusal.unwrap().message;
    assert!(
        message.contains("user 'alice' may not lift an isolation, which needs the right to 'update' 'pods/isolation'")
    );
    let changed = pod(json!({ISOLATED: "false"}), json!({"ringfence.dev/isolated-by": "RF-901"}));
    assert!(
        matches!(update(json!(ALICE), isolated.clone(), changed.clone()), Verdict::Answer(answer) if answer.refusal.is_some())
    );
    // Where no enforcer is any more, the webhook takes marks off; it never puts one on.
    let us = json!("system:serviceaccount:ringfence:ringfence-webhook");
    let allowed = |was: &Value, is: &Value| matches!(update(us.clone(), was.clone(), is.clone()), Verdict::Answer(answer) if answer.refusal.is_none());
    let bare = pod(json!({}), json!({}));
    assert!(allowed(&isolated, &bare) && !allowed(&bare, &isolated) && !allowed(&isolated, &changed));
    let more = pod(json!({POLICY: "x"}), json!({}));
    assert!(matches!(update(json!(ALICE), isolated, more), Verdict::Answer(answer) if answer.refusal.is_some()));
}

#[test]
fn an_enforcer_isolates_pods_of_its_node_and_does_nothing_else() {
    let old = pod(json!({"app": "web"}), Value::Null);
    let isolated = pod(json!({"app": "web", ISOLATED: "true"}), json!({"ringfence.dev/isolated-by": "RF-901"}));
    let node = |name: &str| enforcer(json!({"authentication.kubernetes.io/node-name": [name]}));
    assert_eq!(refusal(update(node("node-a"), old.clone(), isolated.clone())).0, 200);
    let terminated = pod(json!({"app": "web"}), json!({TERMINATED: "RF-901"}));
    assert_eq!(refusal(update(node("node-a"), old.clone(), terminated.clone())).0, 200);
    assert_eq!(refusal(update(node("node-b"), old.clone(), terminated)).0, 403);
    let spared = pod(json!({"app": "web", SPARE: "0"}), Value::Null);
    let (code, message) = refusal(update(node("node-a"), old.clone(), spared));
    assert_eq!(
        (code, message.starts_with("metadata.labels[ringfence.dev/spare-replicas]: ")),
        (403, true),
        "{message}"
    );
    let (code, message) = refusal(update(node("node-b"), old.clone(), isolated.clone()));
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pod shop/web-1 is on node 'node-a': only that node's enforcer may change it, not that of node 'node-b'"
    );
    let bound = enforcer(json!({"authentication.kubernetes.io/pod-name": ["ringfence-enforcer-x"]}));
    let Verdict::Ask(question, refused) = update(bound, old.clone(), isolated.clone()) else { panic!() };
    let refused = format!("{refused:?}");
    assert!(refused.contains("and 'ringfence-enforcer-x', the pod of this token, does not run there"), "{refused}");
    assert_eq!(question, Question::RunsOn { pod: "ringfence-enforcer-x".to_owned(), node: "node-a".to_owned() });
    assert_eq!(refusal(update(enforcer(json!({})), old.clone(), isolated.clone())).0, 403, "not bound to anything");

    for (pointer, field) in [
        ("/spec/containers/0/image", "spec"),
        ("/metadata/labels/app", "metadata.labels"),
        ("/metadata/name", "metadata.name"),
    ] {
        let mut other = isolated.clone();
        *other.pointer_mut(pointer).unwrap() = json!("evil");
        let (code, message) = refusal(update(node("node-a"), old.clone(), other));
        assert_eq!(code, 403, "{field}");
        assert!(message.starts_with(&format!("{field}: an enforcer changes nothing")), "{message}");
    }
    let mut own = isolated.clone();
    own["metadata"]["labels"][POLICY] = json!("x");
    assert_eq!(refusal(update(node("node-a"), old.clone(), own)).0, 403);

    for (name, code) in [("node-a", 200), ("node-b", 403)] {
        let delete = review(("", "pods", ""), "DELETE", node(name), Value::Null, old.clone());
        assert_eq!(refusal(decide(&delete)).0, code);
    }
    let delete = review(("", "pods", ""), "DELETE", json!(ALICE), Value::Null, old);
    assert_eq!(refusal(decide(&delete)).0, 200);
}

fn of_ruleset(operation: &str, new: Value, old: Value) -> (u16, String) {
    refusal(decide(&review(("ringfence.dev", "runtimerulesets", ""), operation, json!(ALICE), new, old)))
}

#[test]
fn rulesets_are_checked_whole() {
    let mut wrong = ruleset("web", &json!({"matchLabels": {"app": "a b"}}), "RF-8010");
    wrong["spec"]["rules"][0]["mitigation"] = json!("kill");
    let (code, message) = of_ruleset("CREATE", wrong.clone(), Value::Null);
    assert_eq!(code, 422);
    for part in [
        "spec.selector.matchLabels.app: 'a b'",
        "spec.rules[0].mitigation: unknown mitigation 'kill'",
        "spec.rules[1].rule: unknown rule 'RF-8010', did you mean 'RF-80",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(of_ruleset("CREATE", ruleset("web", &json!({}), "RF-801"), Value::Null).0, 200);
    assert_eq!(of_ruleset("UPDATE", wrong.clone(), ruleset("web", &json!({}), "RF-801")).0, 422);
    let mut labelled = wrong.clone();
    labelled["metadata"]["labels"] = json!({"team": "a"});
    assert_eq!(of_ruleset("UPDATE", labelled, wrong).0, 200, "what was wrong before is not in the way");
}

/// Many of them do not fit into the kernel's tables: the exceptions of each are others.
fn demanding(number: usize) -> Value {
    let exceptions = json!([{"processes": [format!("/opt/{number}")]}]);
    let rule = |id: &str| json!({"rule": id, "mitigation": "log", "exceptions": exceptions});
    let rules = ["RF-211", "RF-401", "RF-903", "RF-906"].map(rule);
    json!({"apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimeRuleset",
           "metadata": {"name": format!("demanding-{number}")}, "spec": {"rules": rules}})
}

#[test]
fn what_does_not_fit_beside_the_others_is_refused() {
    let plain = snapshot();
    let mut index = (*plain.index).clone();
    let numbers = 0..40;
    for number in numbers.clone() {
        index.put_ruleset(&format!("demanding-{number}"), demanding(number).to_string());
    }
    let names: Vec<String> = numbers.map(|number| format!("demanding-{number}")).collect();
    let of = |rulesets: &[String]| policy("main", &rulesets.iter().map(String::as_str).collect::<Vec<_>>());
    let (few, all) = (of(&names[..30]), of(&names));
    let ask = |index: &Index, kind: &str, new: &Value, old: &Value| {
        let snapshot = Arc::new(Snapshot::new(index.clone(), (*plain.namespaces).clone()));
        let review = review(("ringfence.dev", kind, ""), "UPDATE", json!(ALICE), new.clone(), old.clone());
        refusal(validate(&parse(review.as_bytes()).unwrap(), &[snapshot], &accounts()).unwrap())
    };
    let (code, message) = ask(&index, "runtimepolicies", &all, &few);
    let start = "policy 'main': spec.rulesets: they do not fit beside one another: class Open is full: ";
    assert!(code == 422 && message.starts_with(start), "{code} {message}");
    assert_eq!(ask(&index, "runtimepolicies", &few, &all), (200, String::new()));
    assert_eq!(ask(&index, "runtimepolicies", &all, &all), (200, String::new()), "it was in before");

    index.put_policy("main", of(&names[..32]).to_string());
    let mut another = demanding(0);
    another["spec"]["rules"][0]["exceptions"] = json!([]);
    assert_eq!(ask(&index, "runtimerulesets", &another, &demanding(0)), (200, String::new()));
    index.put_policy("main", of(&names).to_string());
    let (code, message) = ask(&index, "runtimerulesets", &another, &demanding(0));
    let start = "ruleset 'demanding-0' beside the others of policy 'main': class Open is full: ";
    assert!(code == 422 && message.starts_with(start), "{code} {message}");
}

#[test]
fn what_is_in_use_stays() {
    let delete = |name: &str| of_ruleset("DELETE", Value::Null, ruleset(name, &json!({}), "RF-801"));
    let (code, message) = delete("web");
    assert_eq!(code, 409);
    assert_eq!(message, "ruleset 'web' is in use, so it stays: take 'web' out of spec.rulesets of policy 'main' first");
    assert_eq!(delete("spare").0, 409);
    assert_eq!(delete("lonely").0, 200);

    let of_policy = |operation, new, old| {
        decide(&review(("ringfence.dev", "runtimepolicies", ""), operation, json!(ALICE), new, old))
    };
    let (code, message) = refusal(of_policy("DELETE", Value::Null, policy("main", &[])));
    assert_eq!((code, message.contains("'main' is the active one")), (409, true));
    assert_eq!(refusal(of_policy("DELETE", Value::Null, policy("other", &[]))).0, 200);
    let Verdict::Answer(answer) = of_policy("CREATE", policy("new", &["webb", "base"]), Value::Null) else { panic!() };
    assert_eq!(
        answer,
        Answer::warn(vec!["spec.rulesets: there is no ruleset 'webb' (yet), did you mean 'web'?".to_owned()])
    );
    let mut wrong = policy("new", &["base"]);
    wrong["spec"]["maxMitigation"] = json!("isolat");
    let (code, message) = refusal(of_policy("CREATE", wrong, Value::Null));
    assert_eq!(code, 422);
    assert!(message.contains("spec.maxMitigation: unknown mitigation 'isolat': did you mean 'isolate'?"), "{message}");
    let mut wrong = policy("new", &["base"]);
    wrong["spec"]["limits"] = json!({"maxTerminations": 0, "minReadyReplicas": -1});
    let (code, message) = refusal(of_policy("CREATE", wrong, Value::Null));
    assert_eq!(code, 422);
    assert!(message.contains("spec.limits.maxTerminations: 0 can't be 'maxTerminations': use a whole number of pods"));
    assert!(message.contains("spec.limits.minReadyReplicas: -1 can't be"), "{message}");
}

#[test]
fn templates_do_not_have_our_labels() {
    let deployment = |labels: Value| {
        json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}})
    };
    let forged = deployment(json!({"app": "web", POLICY: "main"}));
    let of = |operation, new: &Value, old: &Value| {
        refusal(decide(&review(("apps", "deployments", ""), operation, json!(ALICE), new.clone(), old.clone())))
    };
    let (code, message) = of("CREATE", &forged, &Value::Null);
    assert_eq!(code, 403);
    assert!(
        message.starts_with(
            "spec.selector.matchLabels[ringfence.dev/policy], spec.template.metadata.labels[ringfence.dev/policy]: "
        ),
        "{message}"
    );
    let plain = deployment(json!({"app": "web"}));
    assert_eq!(of("CREATE", &plain, &Value::Null).0, 200);
    assert_eq!(of("UPDATE", &forged, &plain).0, 403);
    assert_eq!(of("UPDATE", &forged, &forged).0, 200, "it was there before Ringfence came");
    let cron = json!({"metadata": {"name": "x"}, "spec": {"jobTemplate": {"spec": {"template": {"metadata": {"annotations": {"ringfence.dev/isolated-at": ""}}}}}}});
    assert_eq!(refusal(decide(&review(("batch", "cronjobs", ""), "CREATE", json!(ALICE), cron, Value::Null))).0, 403);
}

#[test]
fn what_nobody_asked_for_is_allowed_with_a_warning() {
    let verdict = decide(&review(("", "secrets", ""), "CREATE", json!(ALICE), json!({}), Value::Null));
    let Verdict::Answer(answer) = verdict else { panic!() };
    assert!(answer.refusal.is_none() && answer.warnings[0].contains("nothing to say about secrets"));
}
