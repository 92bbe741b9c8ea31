//! Users who want more than they may.

use std::fs;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::{ALICE, Context, HASH, create, expect, failed, get, object, pod, refused};
use crate::cluster::{Cluster, succeed};
use crate::in_cluster::account::Account;

/// May do everything with pods of the namespace, see rulesets and policies, and nothing else.
const MALLORY: &str = "--as=system:serviceaccount:shop:mallory";

/// Mallory, and an account that is called as that of enforcers; it may do with pods whatever Mallory may.
const ACCOUNTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: mallory, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ringfence-enforcer, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: mallory, namespace: shop}
rules: [{apiGroups: [""], resources: [pods, pods/status], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: mallory, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: mallory}
subjects:
- {kind: ServiceAccount, name: mallory, namespace: shop}
- {kind: ServiceAccount, name: ringfence-enforcer, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: sees-rulesets}
rules: [{apiGroups: [ringfence.dev], resources: [runtimerulesets, runtimepolicies], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: sees-rulesets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: sees-rulesets}
subjects: [{kind: ServiceAccount, name: mallory, namespace: shop}]
"#;

/// Makes them, and waits until their rights are known.
fn accounts(cluster: &mut Cluster) -> Result<()> {
    cluster.apply(ACCOUNTS)?;
    cluster.wait_for("the rights of both", |cluster| {
        let may = |user: &str| cluster.kubectl(["-n", "shop", "auth", "can-i", "patch", "pods", user]).is_ok();
        let sees = cluster.kubectl(["auth", "can-i", "get", "runtimepolicies", MALLORY]).is_ok();
        Ok(sees && may(MALLORY) && may("--as=system:serviceaccount:shop:ringfence-enforcer"))
    })
}

/// The API server itself refuses, for want of a right.
fn forbidden<T>(result: Result<T>, parts: &[&str]) -> Result<()> {
    failed(result, "forbidden", parts)
}

/// Rulesets and policies are not for who has only pods; nor are their statuses for who has both.
pub fn without_rights(context: &mut Context) -> Result<()> {
    let cluster = &mut context.cluster;
    accounts(cluster)?;
    let before = ["runtimeruleset/base", "runtimepolicy/main"]
        .map(|what| Ok::<_, anyhow::Error>(get(cluster, what)?["spec"].clone()));
    for (what, plural) in [("runtimeruleset/base", "runtimerulesets"), ("runtimepolicy/main", "runtimepolicies")] {
        let patch = r#"{"spec": {"description": "mine"}}"#;
        let who = format!("\"system:serviceaccount:shop:mallory\" cannot patch resource \"{plural}\"");
        forbidden(cluster.kubectl(["patch", what, "--type=merge", "-p", patch, MALLORY]), &[&who])?;
        forbidden(cluster.kubectl(["delete", what, MALLORY]), &["cannot delete resource"])?;
        let status = r#"{"status": {"pods": 7}}"#;
        let words = ["patch", what, "--subresource=status", "--type=merge", "-p", status, ALICE];
        // kubectl reads it before it writes, and may not even do that.
        forbidden(cluster.kubectl(words), &["/status\""])?;
        let may = cluster.kubectl(["auth", "can-i", "patch", plural, "--subresource=status", ALICE]);
        ensure!(may.is_err(), "who may write {plural} may write their status");
    }
    let mine = object("RuntimeRuleset", "mine", &json!({"rules": [{"rule": "RF-901", "mitigation": "log"}]}));
    forbidden(create(cluster, &mine, &[MALLORY]), &["cannot create resource"])?;
    for (before, what) in before.into_iter().zip(["runtimeruleset/base", "runtimepolicy/main"]) {
        ensure!(before? == get(cluster, what)?["spec"], "{what} has changed");
    }
    Ok(())
}

/// A pod that names the account of enforcers, or one that is called so, gets nothing by it.
pub fn foreign_account(context: &mut Context) -> Result<()> {
    let cluster = &mut context.cluster;
    let named = |namespace: &str| {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent", "namespace": namespace},
        });
        pod["spec"] = json!({
            "serviceAccountName": "ringfence-enforcer", "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "localhost/basics:1", "imagePullPolicy": "Never", "command": ["sleep", "999999"]}],
        });
        pod
    };
    // Where the account is, only who may make pods there has it.
    accounts(cluster)?;
    forbidden(create(cluster, &named("ringfence"), &[MALLORY]), &["cannot create resource \"pods\""])?;
    // Elsewhere it is another one, which a pod can have.
    create(cluster, &named("shop"), &[MALLORY])?;
    let account = Account::of_enforcers(cluster, "shop", Some("agent"), "shop")?;
    pod(cluster, "coveted", &json!({"app": "web"}), &[])?;
    account.patch("coveted", &json!({"metadata": {"labels": {"team": "b"}}}))?;
    let may = "only system:serviceaccount:ringfence:ringfence-enforcer may do that";
    let isolate = json!({"metadata": {"labels": {"ringfence.dev/isolated": "true"}}});
    refused(account.patch("coveted", &isolate), &["metadata.labels[ringfence.dev/isolated]", "can't be added", may])?;
    let by = json!({"metadata": {"annotations": {"ringfence.dev/terminated-by": "RF-901"}}});
    refused(account.patch("coveted", &by), &["metadata.annotations[ringfence.dev/terminated-by]", may])?;
    let other = json!({"metadata": {"labels": {"ringfence.dev/policy": "x"}}});
    refused(account.patch("coveted", &other), &["metadata.labels[ringfence.dev/policy]", super::ONLY_WEBHOOK])?;
    cluster.kubectl(["-n", "shop", "delete", "pod", "agent", "coveted", "--force"]).map(drop)
}

/// One with more rules than there may be, one with more text than there may be, one of a megabyte and a half: each gets an
/// answer that says what is too much, and the webhook goes on.
pub fn oversize(context: &mut Context) -> Result<()> {
    let cluster = &context.cluster;
    let ruleset = |spec: &Value| object("RuntimeRuleset", "huge", spec);
    let refusal = |spec: &Value| -> Result<String> {
        // Too long for a command line, too.
        let file = cluster.state().join("tmp/huge.json");
        fs::write(&file, ruleset(spec).to_string())?;
        let mut kubectl = cluster.command(cluster.kubectl_program());
        match succeed(kubectl.args(["create", ALICE, "-f"]).arg(&file), None) {
            Ok(said) => bail!("it was taken: {said}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    };
    let rules: Vec<_> = (0..513).map(|number| json!({"rule": format!("rule {number}"), "mitigation": "log"})).collect();
    let error = refusal(&json!({"rules": rules}))?;
    ensure!(error.contains("spec.rules: Too many: 513: must have at most 512 items"), "{error}");
    let rule = json!([{"rule": "RF-901", "mitigation": "log"}]);
    let error = refusal(&json!({"rules": rule, "description": "x".repeat(1536 << 10)}))?;
    ensure!(error.contains("spec.description: Too long"), "{}", &error[..error.len().min(2000)]);
    // Each part of it is small enough.
    let paths: Vec<_> = (0..64).map(|number| format!("/{}/{number}", "x".repeat(240))).collect();
    let exceptions: Vec<_> = (0..16).map(|_| json!({"processes": paths, "paths": paths})).collect();
    let rule = |number| json!({"rule": format!("RF-90{number}"), "mitigation": "log", "exceptions": exceptions});
    let rules: Vec<_> = (0..6).map(rule).collect();
    let error = refusal(&json!({"rules": rules}))?;
    println!("    {}", &error[..error.len().min(600)]);
    let labelled = pod(cluster, "after-", &json!({"app": "web"}), &["--dry-run=server", ALICE])?;
    ensure!(labelled["metadata"]["labels"][HASH].is_string(), "{}", labelled["metadata"]);
    expect(&labelled, &super::BOTH)
}
