//! The webhook, as a Deployment of two replicas, before a real API server.

mod hostile;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::account::Account;
use super::audit::Audit;
use super::traffic::{self, HASH};
use super::{Context, Part, define, in_turn, names_of, undefine};
use crate::cluster::{Ability, Cluster, NODE_NAME, succeed};
use crate::harness::Image;
use crate::suite::Report;

pub const PART: Part = Part { names, run };

type Test = fn(&mut Context) -> Result<()>;

/// In this order: they share the objects, and the last one removes them.
const TESTS: [(&str, Test); 19] = [
    ("admission/existing-pods-are-labelled", existing),
    ("admission/new-pods-are-labelled", labelled),
    ("admission/forged-labels-are-corrected", forged),
    ("admission/our-labels-are-ours-alone", ours_alone),
    ("admission/ephemeral-containers", ephemeral_containers),
    ("admission/templates-do-not-have-them", templates),
    ("admission/an-enforcer-stays-on-its-node", own_node),
    ("admission/release-needs-a-right", release),
    ("admission/rulesets-need-a-right", hostile::without_rights),
    ("admission/the-enforcers-account-is-not-for-pods", hostile::foreign_account),
    ("admission/rulesets-of-any-size", hostile::oversize),
    ("admission/rulesets-are-checked-whole", checked),
    ("admission/what-is-in-use-stays", in_use),
    ("admission/statuses", statuses),
    ("admission/policy-switch", policy_switch),
    ("admission/quiet-minute", quiet),
    ("admission/rolling-update", rolling_update),
    ("admission/rotation", rotation),
    ("admission/removed", removed),
];

const IMAGE: &str = "localhost/ringfence-webhook:1";
const USUAL: &str = "--policy=main";
/// A certificate lives ten seconds, an authority twenty.
const RAPID: &str = "--policy=main, --authority-lifetime=30s, --certificate-lifetime=15s, --rotation-pause=3s";

const WEBHOOK: &str = include_str!("admission/webhook.yaml");
const CONFIGURATIONS: &str = include_str!("admission/configurations.yaml");
const OBJECTS: &str = include_str!("admission/objects.yaml");

/// Ends lines for newer servers, which know conditions, ...
const CONDITION: &str = "# from 1.28 on";
/// ... and those for older ones.
const NO_CONDITION: &str = "# before 1.28";

const ALICE: &str = "--as=system:serviceaccount:shop:alice";
const ONLY_WEBHOOK: &str = "only system:serviceaccount:ringfence:ringfence-webhook may do that";

fn names() -> Vec<String> {
    names_of(&TESTS)
}

fn run(context: &mut Context, report: &mut Report) {
    let site = prepare(context).map(|()| context);
    in_turn(report, ("admission/installed", site), &TESTS, |test, context| test(context));
}

fn prepare(context: &mut Context) -> Result<()> {
    let webhook = context.program("ringfence-webhook")?;
    let cluster = &mut context.cluster;
    cluster
        .import(&Image::empty(IMAGE).file(&webhook, "/ringfence-webhook", 0o755).entrypoint(&["/ringfence-webhook"]))?;
    define(cluster)?;
    cluster.apply(&WEBHOOK.replace("<arguments>", USUAL))?;
    cluster.apply(OBJECTS)?;
    pod(cluster, "before", &json!({"app": "web"}), &[])?;
    rollout(cluster)?;
    let version = cluster.version();
    if !version.can(Ability::NamespaceNames) {
        // As docs/install.md says.
        for namespace in ["kube-system", "ringfence"] {
            cluster.kubectl(["label", "namespace", namespace, &format!("kubernetes.io/metadata.name={namespace}")])?;
        }
    }
    let others = if version.can(Ability::MatchConditions) { NO_CONDITION } else { CONDITION };
    let fits = |line: &&str| !line.ends_with(others);
    cluster.apply(&CONFIGURATIONS.lines().filter(fits).map(|line| line.to_owned() + "\n").collect::<String>())?;
    trusted(cluster)
}

fn rollout(cluster: &Cluster) -> Result<()> {
    let words = ["-n", "ringfence", "rollout", "status", "deployment/ringfence-webhook", "--timeout=120s"];
    cluster.kubectl(words).map(drop)
}

/// Waits until the API server is told what to trust.
fn trusted(cluster: &mut Cluster) -> Result<()> {
    cluster.wait_for("the webhooks' bundle", |cluster| {
        let bundles =
            |kind| cluster.kubectl(["get", kind, "ringfence", "-o", "jsonpath={.webhooks[*].clientConfig.caBundle}"]);
        Ok(bundles("mutatingwebhookconfiguration")?.split(' ').all(|bundle| !bundle.is_empty())
            && bundles("validatingwebhookconfiguration")?.split(' ').count() == 5)
    })
}

/// Makes a pod in `shop`, with further arguments; returns it as the API server answers.
fn pod(cluster: &Cluster, name: &str, labels: &Value, arguments: &[&str]) -> Result<Value> {
    let named = if name.ends_with('-') { "generateName" } else { "name" };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {named: name, "namespace": "shop", "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "localhost/basics:1", "imagePullPolicy": "Never", "command": ["sleep", "999999"]}],
        },
    });
    create(cluster, &pod, arguments)
}

fn create(cluster: &Cluster, object: &Value, arguments: &[&str]) -> Result<Value> {
    let mut kubectl = cluster.command(cluster.kubectl_program());
    let said = succeed(kubectl.args(["create", "-f", "-", "-o", "json"]).args(arguments), Some(&object.to_string()))?;
    Ok(serde_json::from_str(&said)?)
}

fn get(cluster: &Cluster, what: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.kubectl(["-n", "shop", "get", what, "-o", "json"])?)?)
}

/// Our labels of a pod, but for the hash.
fn labels(pod: &Value) -> BTreeMap<String, String> {
    let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
    let ours = labels.filter(|(key, _)| key.contains("ringfence.dev/") && *key != HASH);
    ours.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn expect(pod: &Value, rulesets: &[(&str, &str)]) -> Result<()> {
    let mut expected = BTreeMap::from([("ringfence.dev/policy".to_owned(), "main".to_owned())]);
    let label = |(name, generation): &(&str, &str)| (format!("ruleset.ringfence.dev/{name}"), (*generation).to_owned());
    expected.extend(rulesets.iter().map(label));
    ensure!(labels(pod) == expected, "it bears {:?} instead of {expected:?}", pod["metadata"]["labels"]);
    let hash = pod["metadata"]["labels"][HASH].as_str().unwrap_or_default();
    ensure!(hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{HASH} is {hash:?}");
    Ok(())
}

/// A webhook refuses, and says all of that.
fn refused<T>(result: Result<T>, parts: &[&str]) -> Result<()> {
    failed(result, "denied the request", parts)
}

/// The API server refuses in these words, and says all of that.
fn failed<T>(result: Result<T>, words: &str, parts: &[&str]) -> Result<()> {
    let Err(error) = result else { bail!("it was allowed, instead of: {}", parts.join(" ... ")) };
    let error = format!("{error:#}");
    for part in parts.iter().chain(&[words]) {
        ensure!(error.contains(part), "{part:?} is not in: {error}");
    }
    Ok(())
}

const BOTH: [(&str, &str); 2] = [("base", "1"), ("web", "1")];

fn existing(context: &mut Context) -> Result<()> {
    context.cluster.wait_for("the labels of a pod that was there before", |cluster| {
        Ok(expect(&get(cluster, "pod/before")?, &BOTH).is_ok())
    })
}

fn labelled(context: &mut Context) -> Result<()> {
    let cluster = &mut context.cluster;
    expect(&pod(cluster, "web", &json!({"app": "web"}), &[ALICE])?, &BOTH)?;
    expect(&pod(cluster, "without-labels-", &Value::Null, &[ALICE])?, &BOTH[..1])?;
    expect(&pod(cluster, "dry-", &json!({"app": "web"}), &["--dry-run=server"])?, &BOTH)?;
    // A namespace that the watch has not shown yet.
    cluster.kubectl(["create", "namespace", "new"])?;
    let mut new = get(cluster, "pod/web")?;
    new["metadata"] = json!({"name": "web", "namespace": "new", "labels": {"app": "web"}});
    new["spec"]["serviceAccountName"] = Value::Null;
    expect(&create(cluster, &new, &["--dry-run=server"])?, &BOTH)?;
    cluster.kubectl(["delete", "namespace", "new", "--wait=false"])?;
    // Through a controller, up to a running pod.
    let image = "--image=localhost/basics:1";
    cluster.kubectl(["-n", "shop", "create", "deployment", "web", image, "--", "sleep", "999999"])?;
    cluster.kubectl(["-n", "shop", "rollout", "status", "deployment/web", "--timeout=180s"])?;
    let pods: Value = serde_json::from_str(&cluster.kubectl([
        "-n",
        "shop",
        "get",
        "pods",
        "-l",
        "pod-template-hash",
        "-o",
        "json",
    ])?)?;
    expect(pods["items"].get(0).context("no pod")?, &BOTH)?;
    // Never ours and the system's.
    let own = cluster.kubectl(["get", "pods", "-A", "-l", HASH, "-o", "jsonpath={.items[*].metadata.namespace}"])?;
    ensure!(own.split(' ').all(|namespace| namespace == "shop"), "pods of {own} are labelled");
    Ok(())
}

fn forged(context: &mut Context) -> Result<()> {
    let labels = json!({
        "app": "db", "ringfence.dev/policy": "mine", "ringfence.dev/isolated": "true", HASH: "0",
        "ruleset.ringfence.dev/web": "1", "x.ringfence.dev/y": "z",
    });
    expect(&pod(&context.cluster, "forged", &labels, &[ALICE])?, &BOTH[..1])?;
    // A pod that says it is the copy of one from a file is exempt, and would pass for another.
    let victim = get(&context.cluster, "pod/web")?["metadata"]["uid"].clone();
    let mirror = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "liar", "namespace": "shop", "annotations": {
            "kubernetes.io/config.mirror": "x", "kubernetes.io/config.hash": victim,
        }},
        "spec": {"nodeName": NODE_NAME, "containers": [{"name": "c", "image": "localhost/basics:1"}]},
    });
    let parts =
        ["metadata.annotations[kubernetes.io/config.mirror]", "group system:nodes", "user 'system:serviceaccount:"];
    refused(create(&context.cluster, &mirror, &[ALICE]), &parts)
}

fn ours_alone(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    let label = |words: &[&str]| cluster.kubectl(["-n", "shop", ALICE, "label", "pod", "web"].iter().chain(words));
    label(&["team=a"])?;
    let field = "metadata.labels[ringfence.dev/policy]";
    refused(label(&["ringfence.dev/policy-"]), &[field, "'main' can't be removed", ONLY_WEBHOOK])?;
    refused(label(&["ringfence.dev/policy=x", "--overwrite"]), &[field, "'main' can't become 'x'", ONLY_WEBHOOK])?;
    refused(
        label(&["ruleset.ringfence.dev/spare=1"]),
        &["metadata.labels[ruleset.ringfence.dev/spare]", "can't be added"],
    )?;
    refused(
        label(&["ringfence.dev/isolated=true"]),
        &["metadata.labels[ringfence.dev/isolated]", "ringfence-enforcer may"],
    )?;
    let annotate = cluster.kubectl(["-n", "shop", ALICE, "annotate", "pod", "web", "ringfence.dev/isolated-by=x"]);
    refused(annotate, &["metadata.annotations[ringfence.dev/isolated-by]", "'x' can't be added"])?;
    let patch = r#"{"metadata": {"labels": {"ringfence.dev/policy": "x"}}}"#;
    let status = ["-n", "shop", ALICE, "patch", "pod", "web", "--subresource=status", "--type=merge", "-p", patch];
    refused(cluster.kubectl(status), &[field, "'main' can't become 'x'"])?;
    expect(&get(cluster, "pod/web")?, &BOTH)
}

fn ephemeral_containers(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    let debug = [
        "-n",
        "shop",
        ALICE,
        "debug",
        "web",
        "--image=localhost/basics:1",
        "--image-pull-policy=Never",
        "--profile=general",
        "--",
        "true",
    ];
    cluster.kubectl(debug)?;
    expect(&get(cluster, "pod/web")?, &BOTH)
}

fn templates(context: &mut Context) -> Result<()> {
    let labels = json!({"ringfence.dev/policy": "main"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "forged", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
        },
    });
    let fields =
        ["spec.selector.matchLabels[ringfence.dev/policy]", "spec.template.metadata.labels[ringfence.dev/policy]"];
    refused(create(&context.cluster, &deployment, &[ALICE]), &fields)
}

/// A pod that is bound to a node without having gone through the scheduler. It need not run.
fn bound_pod(cluster: &Cluster, namespace: &str, name: &str, node: &str) -> Result<()> {
    let account = if namespace == "ringfence" { "ringfence-enforcer" } else { "default" };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": "web"}},
        "spec": {
            "nodeName": node, "serviceAccountName": account, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "localhost/basics:1", "imagePullPolicy": "Never", "command": ["sleep", "999999"]}],
        },
    });
    create(cluster, &pod, &[]).map(drop)
}

fn own_node(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    create(cluster, &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "elsewhere"}}), &[])?;
    bound_pod(cluster, "ringfence", "enforcer-here", NODE_NAME)?;
    bound_pod(cluster, "ringfence", "enforcer-elsewhere", "elsewhere")?;
    bound_pod(cluster, "shop", "victim", NODE_NAME)?;
    let isolate = json!({"metadata": {
        "labels": {"ringfence.dev/isolated": "true"},
        "annotations": {"ringfence.dev/isolated-by": "RF-901", "ringfence.dev/isolated-at": "2026-11-28T00:00:00Z"},
    }});
    let here = Account::of_enforcers(cluster, "ringfence", Some("enforcer-here"), "shop")?;
    let elsewhere = Account::of_enforcers(cluster, "ringfence", Some("enforcer-elsewhere"), "shop")?;
    let unbound = Account::of_enforcers(cluster, "ringfence", None, "shop")?;
    let refusal = format!("pod shop/victim is on node '{NODE_NAME}': only that node's enforcer may change it");
    let whose = if cluster.version().can(Ability::NodesInTokens) {
        "not that of node 'elsewhere'"
    } else {
        "and 'enforcer-elsewhere', the pod of this token, does not run there"
    };
    refused(elsewhere.patch("victim", &isolate), &[&refusal, whose])?;
    refused(unbound.patch("victim", &isolate), &[&refusal, "this token is not bound to a pod"])?;
    refused(elsewhere.kubectl(&["delete", "pod", "victim", "--wait=false"]), &[&refusal])?;
    refused(
        here.patch("victim", &json!({"metadata": {"labels": {"app": "x"}}})),
        &["metadata.labels", "an enforcer changes nothing"],
    )?;
    refused(
        here.patch("victim", &json!({"metadata": {"labels": {"ringfence.dev/policy": "x"}}})),
        &["an enforcer changes nothing"],
    )?;
    if cluster.version().can(Ability::MatchConditions) {
        // Neither in namespaces in which pods are not governed.
        bound_pod(cluster, "kube-system", "exempt", NODE_NAME)?;
        let elsewhere = Account::of_enforcers(cluster, "ringfence", Some("enforcer-elsewhere"), "kube-system")?;
        let refusal = "pod kube-system/exempt is on node";
        refused(elsewhere.patch("exempt", &isolate), &[refusal])?;
        refused(elsewhere.kubectl(&["delete", "pod", "exempt", "--wait=false"]), &[refusal])?;
        cluster.kubectl(["-n", "kube-system", "delete", "pod", "exempt", "--force", "--grace-period=0"])?;
    }
    here.patch("victim", &isolate)?;
    let victim = get(cluster, "pod/victim")?;
    ensure!(victim["metadata"]["labels"]["ringfence.dev/isolated"] == "true", "{}", victim["metadata"]);
    cluster.kubectl(["delete", "node", "elsewhere"])?;
    for pod in ["enforcer-here", "enforcer-elsewhere"] {
        cluster.kubectl(["-n", "ringfence", "delete", "pod", pod, "--force", "--grace-period=0"])?;
    }
    Ok(())
}

const RELEASER: &str = r"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: releaser, namespace: shop}
rules: [{apiGroups: [ringfence.dev], resources: [pods/isolation], verbs: [update]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: releaser, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: releaser}
subjects: [{kind: ServiceAccount, name: alice, namespace: shop}]
";

/// After [`own_node`], which isolates a pod.
fn release(context: &mut Context) -> Result<()> {
    let cluster = &mut context.cluster;
    let words = ["-n", "shop", ALICE, "label", "pod", "victim", "ringfence.dev/isolated-"];
    let needs = "may not lift an isolation, which needs the right to 'update' 'pods/isolation' of 'ringfence.dev'";
    refused(cluster.kubectl(words), &["metadata.labels[ringfence.dev/isolated]", needs])?;
    cluster.apply(RELEASER)?;
    cluster.wait_for("the right to release", |cluster| Ok(cluster.kubectl(words).is_ok()))?;
    let annotations = ["ringfence.dev/isolated-by-", "ringfence.dev/isolated-at-"];
    cluster.kubectl(["-n", "shop", ALICE, "annotate", "pod", "victim"].iter().chain(&annotations))?;
    let victim = get(cluster, "pod/victim")?;
    ensure!(!victim["metadata"].to_string().contains("\"ringfence.dev/isolated"), "{}", victim["metadata"]);
    Ok(())
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "ringfence.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn checked(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    let ruleset = object(
        "RuntimeRuleset",
        "bad",
        &json!({"rules": [
            {"rule": "RF-901", "mitigation": "log"}, {"rule": "RF-8011", "mitigation": "isolate"},
            {"rule": "Terminal shel in container", "mitigation": "log"},
        ]}),
    );
    let parts = [
        "ruleset 'bad'",
        "spec.rules[1].rule: unknown rule 'RF-8011', did you mean 'RF-801'?",
        "spec.rules[2].rule: unknown rule 'Terminal shel in container', did you mean 'Terminal shell in container'?",
    ];
    refused(create(cluster, &ruleset, &[ALICE]), &parts)?;
    let policy = |rulesets: &Value, cidr: &str| {
        object("RuntimePolicy", "new", &json!({"rulesets": rulesets, "isolation": {"exceptions": [{"cidr": cidr}]}}))
    };
    let parts =
        ["policy 'new'", "spec.isolation.exceptions[0].cidr: '10.0.0.0/33' is not an address or an address range"];
    refused(create(cluster, &policy(&json!(["base"]), "10.0.0.0/33"), &[ALICE]), &parts)?;
    // A ruleset that is not there yet is a warning: files of a folder are applied in any order.
    let mut kubectl = cluster.command(cluster.kubectl_program());
    kubectl.args(["create", "-f", "-", "--warnings-as-errors", "--dry-run=server"]);
    let Err(warned) = succeed(&mut kubectl, Some(&policy(&json!(["bass"]), "10.0.0.0/8").to_string())) else {
        bail!("no warning about a ruleset that does not exist")
    };
    let warned = format!("{warned:#}");
    ensure!(warned.contains("there is no ruleset 'bass' (yet), did you mean 'base'?"), "{warned}");
    create(cluster, &policy(&json!(["bass"]), "10.0.0.0/8"), &[ALICE])?;
    cluster.kubectl([ALICE, "delete", "runtimepolicy", "new"]).map(drop)
}

fn in_use(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    let delete = |kind: &str, words: &[&str]| cluster.kubectl([ALICE, "delete", kind].iter().chain(words));
    refused(delete("runtimeruleset", &["web"]), &["ruleset 'web' is in use", "spec.rulesets of policy 'main'"])?;
    refused(delete("runtimepolicy", &["main"]), &["policy 'main' is the active one"])?;
    refused(delete("runtimeruleset", &["--all"]), &["ruleset 'base' is in use", "ruleset 'web' is in use"])?;
    cluster.apply(OBJECTS).map(drop)
}

fn statuses(context: &mut Context) -> Result<()> {
    let columns = |object: &Value| {
        let condition = |kind: &str| {
            let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            all.iter().find(|it| it["type"] == kind).map(|it| it["status"].as_str().unwrap_or_default().to_owned())
        };
        let all: Vec<_> = ["Accepted", "InUse", "Degraded"].iter().filter_map(|kind| condition(kind)).collect();
        format!("{} {}", object["status"]["rules"], all.join(" "))
    };
    let governed = |cluster: &Cluster, label: &str| -> Result<usize> {
        let names = cluster.kubectl(["-n", "shop", "get", "pods", "-l", label, "-o", "name"])?;
        Ok(names.lines().count())
    };
    let mut last = Vec::new();
    let reached = context.cluster.wait_for("the statuses", |cluster| {
        let mut good = true;
        last.clear();
        for (what, label, expected) in [
            ("runtimeruleset/base", "ruleset.ringfence.dev/base", "1 True True False"),
            ("runtimeruleset/spare", "ruleset.ringfence.dev/spare", "1 True False False"),
            ("runtimepolicy/main", "ringfence.dev/policy", "6 True True False"),
        ] {
            let object = get(cluster, what)?;
            let pods = governed(cluster, label)?;
            good &= columns(&object) == expected && object["status"]["pods"] == json!(pods);
            good &= object["status"]["observedGeneration"] == object["metadata"]["generation"];
            last.push(format!("{what} of {pods} pods: {}", object["status"]));
        }
        Ok(good)
    });
    reached.with_context(|| last.join("\n"))
}

fn policy_switch(context: &mut Context) -> Result<()> {
    let cluster = &mut context.cluster;
    let before = get(cluster, "pod/web")?["metadata"]["labels"][HASH].clone();
    let patch = |what: &str, spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        cluster.kubectl(["patch", what, "--type=merge", "-p", &patch]).map(drop)
    };
    patch("runtimepolicy/main", json!({"rulesets": ["base", "spare"], "maxMitigation": "log"}))?;
    patch("runtimeruleset/spare", json!({"description": "a new generation"}))?;
    let expected = [("base", "1"), ("spare", "2")];
    cluster.wait_for("the labels by the new policy", |cluster| {
        let pods: Value = serde_json::from_str(&cluster.kubectl(["-n", "shop", "get", "pods", "-o", "json"])?)?;
        let pods = pods["items"].as_array().context("no pods")?.clone();
        Ok(pods.iter().all(|pod| expect(pod, &expected).is_ok()))
    })?;
    let after = get(cluster, "pod/web")?["metadata"]["labels"][HASH].clone();
    ensure!(before != after, "the hash is the same");
    // A pod's own labels.
    cluster.apply(OBJECTS)?;
    cluster.wait_for("the old policy", |cluster| Ok(expect(&get(cluster, "pod/web")?, &BOTH).is_ok()))?;
    cluster.kubectl(["-n", "shop", ALICE, "label", "pod", "web", "app=db", "--overwrite"])?;
    cluster.wait_for("the labels by new labels", |cluster| Ok(expect(&get(cluster, "pod/web")?, &BOTH[..1]).is_ok()))
}

/// Nothing happens, so nothing is written, but for the lease.
fn quiet(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    // What went before may still be on its way into the statuses.
    thread::sleep(Duration::from_secs(15));
    let (_, start) = Audit::since(cluster, 0)?;
    thread::sleep(Duration::from_mins(1));
    let (events, _) = Audit::since(cluster, start)?;
    ensure!(!events.is_empty(), "the audit log does not grow");
    let user = "system:serviceaccount:ringfence:ringfence-webhook";
    let ours: Vec<_> = events.iter().filter(|event| event["user"]["username"] == user).collect();
    let of = |event: &&&Value| event["objectRef"]["resource"] == "leases";
    ensure!(ours.iter().any(|event| of(&event)), "the leader does not renew its lease");
    let reads = ["get", "list", "watch"];
    let writes: Vec<_> = ours
        .iter()
        .filter(|event| !of(event) && !reads.iter().any(|verb| event["verb"] == *verb))
        .map(|event| format!("{} {}", event["verb"], event["objectRef"]))
        .collect();
    ensure!(writes.is_empty(), "{} writes: {}", writes.len(), writes.join("; "));
    Ok(())
}

fn rolling_update(context: &mut Context) -> Result<()> {
    traffic::during(&mut context.cluster, "shop", |cluster| {
        cluster.kubectl(["-n", "ringfence", "rollout", "restart", "deployment/ringfence-webhook"])?;
        rollout(cluster)?;
        // The old replicas drain.
        cluster.wait_for("the end of the old replicas", |cluster| {
            let pods =
                cluster.kubectl(["-n", "ringfence", "get", "pods", "-l", "app=ringfence-webhook", "-o", "name"])?;
            Ok(pods.lines().count() == 2)
        })
    })
}

/// Every authority and certificate is replaced several times.
fn rotation(context: &mut Context) -> Result<()> {
    let cluster = &mut context.cluster;
    cluster.apply(&WEBHOOK.replace("<arguments>", RAPID))?;
    rollout(cluster)?;
    // The authority that was there lasts a year: begin with one that does not.
    cluster.kubectl(["-n", "ringfence", "delete", "secret", "ringfence-webhook-tls"])?;
    let secret = |cluster: &Cluster, key: &str| {
        let path = format!("jsonpath={{.data.{}}}", key.replace('.', "\\."));
        cluster.kubectl([
            "-n",
            "ringfence",
            "get",
            "secret",
            "ringfence-webhook-tls",
            "--ignore-not-found",
            "-o",
            &path,
        ])
    };
    cluster.wait_for("a new authority", |cluster| Ok(!secret(cluster, "ca.crt")?.is_empty()))?;
    cluster.wait_for("that it is trusted", |cluster| {
        let bundle = secret(cluster, "ca.crt")?;
        let told = cluster.kubectl([
            "get",
            "validatingwebhookconfiguration",
            "ringfence",
            "-o",
            "jsonpath={.webhooks[4].clientConfig.caBundle}",
        ])?;
        Ok(told == bundle && pod(cluster, "probe-", &Value::Null, &["--dry-run=server"]).is_ok())
    })?;
    traffic::during(cluster, "shop", |cluster| {
        let (mut bundles, mut certificates) = (Vec::new(), Vec::new());
        cluster.wait_for("two more authorities", |cluster| {
            for (key, seen) in [("ca.crt", &mut bundles), ("tls.crt", &mut certificates)] {
                let now = secret(cluster, key)?;
                if seen.last() != Some(&now) {
                    seen.push(now);
                }
            }
            // Old; old and new; new; and so on.
            Ok(bundles.len() >= 5 && certificates.len() >= 4)
        })
    })
}

fn removed(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        cluster.kubectl(["delete", kind, "ringfence"])?;
    }
    cluster.kubectl(["delete", "namespace", "shop", "ringfence", "--timeout=120s"])?;
    cluster.kubectl(["delete", "clusterrole,clusterrolebinding", "ringfence-webhook", "ringfence-enforcer"])?;
    undefine(cluster)
}
