//! Objects by the thousand, made directly at the API server.

use std::fmt::Debug;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use ringfence_api::names::REPORT_ANNOTATION;
use ringfence_api::{NodeReport, RuntimePolicy, RuntimeRuleset};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::site::POLICY;

/// Requests at a time.
const AT_ONCE: usize = 32;

/// Something of the cluster's, from JSON.
pub fn object<K: DeserializeOwned>(value: Value) -> Result<K> {
    serde_json::from_value(value).context("an object of ours")
}

/// Makes objects that have no namespace.
pub async fn create<K>(client: &Client, objects: impl IntoIterator<Item = Value>) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
{
    let api: Api<K> = Api::all(client.clone());
    let parameters = PostParams::default();
    let each = stream::iter(objects).map(|value| {
        let (api, parameters) = (&api, &parameters);
        async move { api.create(parameters, &object(value)?).await.context("create").map(drop) }
    });
    each.buffer_unordered(AT_ONCE).try_collect().await
}

/// Makes objects in their namespaces.
pub async fn create_in<K>(client: &Client, objects: impl IntoIterator<Item = Value>) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
{
    let parameters = PostParams::default();
    let each = stream::iter(objects).map(|value| {
        let parameters = &parameters;
        async move {
            let namespace = value["metadata"]["namespace"].as_str().context("no namespace")?.to_owned();
            let api: Api<K> = Api::namespaced(client.clone(), &namespace);
            api.create(parameters, &object(value)?).await.context("create").map(drop)
        }
    });
    each.buffer_unordered(AT_ONCE).try_collect().await
}

/// Makes namespaces that pods can be made in: a controller would make their service account elsewhere.
pub async fn namespaces(client: &Client, names: &[String]) -> Result<()> {
    let labels = |name: &str| json!({"team": format!("team-{}", name.len() % 3)});
    create::<Namespace>(client, names.iter().map(|name| json!({"metadata": {"name": name, "labels": labels(name)}})))
        .await?;
    create_in::<ServiceAccount>(
        client,
        names.iter().map(|name| json!({"metadata": {"name": "default", "namespace": name}})),
    )
    .await
}

/// Makes nodes, which nobody runs.
pub async fn nodes(client: &Client, names: &[String]) -> Result<()> {
    let node = |name: &String| json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}}});
    create::<Node>(client, names.iter().map(node)).await
}

/// Makes every node's enforcer, as a pod that reports.
pub async fn enforcers(client: &Client, namespace: &str, nodes: &[String]) -> Result<()> {
    let report = serde_json::to_string(&NodeReport::default())?;
    create_in::<ServiceAccount>(client, [json!({"metadata": {"name": "default", "namespace": namespace}})]).await?;
    let enforcer = |(number, node): (usize, &String)| {
        let mut pod = pod(namespace, "ringfence-enforcer", number, &json!({}), Some(node));
        pod["metadata"]["annotations"][REPORT_ANNOTATION] = json!(report);
        pod
    };
    create_in::<Pod>(client, nodes.iter().enumerate().map(enforcer)).await
}

/// A ruleset with this selector and a handful of rules.
pub fn ruleset(name: &str, selector: &Value) -> Value {
    json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimeRuleset", "metadata": {"name": name},
        "spec": {
            "description": "Of a measurement.", "selector": selector,
            "rules": [
                {"rule": "Credential Access", "mitigation": "log"},
                {"rule": "RF-901", "mitigation": "isolate"},
                {"rule": "RF-801", "mitigation": "log"},
            ],
        },
    })
}

/// Makes rulesets, and a policy that names them all.
pub async fn rulesets(client: &Client, rulesets: Vec<Value>) -> Result<()> {
    let names: Vec<Value> = rulesets.iter().map(|ruleset| ruleset["metadata"]["name"].clone()).collect();
    create::<RuntimeRuleset>(client, rulesets).await?;
    let policy = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "RuntimePolicy", "metadata": {"name": POLICY},
        "spec": {"rulesets": names, "excludedNamespaces": ["kube-system"]},
    });
    create::<RuntimePolicy>(client, [policy]).await
}

/// Changes the policy.
pub async fn patch_policy(client: &Client, spec: &Value) -> Result<()> {
    let api: Api<RuntimePolicy> = Api::all(client.clone());
    api.patch(POLICY, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await?;
    Ok(())
}

/// A pod as a Deployment makes it, on this node if one is named.
pub fn pod(namespace: &str, application: &str, number: usize, more: &Value, node: Option<&str>) -> Value {
    let replica_set = format!("{application}-7d4b9c5f6");
    let mut labels = json!({
        "app": application, "app.kubernetes.io/name": application, "app.kubernetes.io/part-of": "shop",
        "pod-template-hash": "7d4b9c5f6",
    });
    labels.as_object_mut().into_iter().for_each(|labels| labels.extend(more.as_object().cloned().unwrap_or_default()));
    let environment: Vec<_> =
        (0..12).map(|i| json!({"name": format!("SETTING_{i}"), "value": format!("value {i}")})).collect();
    let container = |name: &str, port: u32| {
        json!({
            "name": name, "image": format!("registry.example/{application}/{name}:1.2.3"), "env": environment,
            "ports": [{"name": "http", "containerPort": port}],
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}},
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "tmp", "mountPath": "/tmp"}],
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{replica_set}-{number:05}"), "namespace": namespace, "labels": labels,
            "annotations": {"checksum/config": "0c1f9b1f6a4f4d2b9e3a3c3f6f0f0e6d"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replica_set, "controller": true,
                "blockOwnerDeletion": true, "uid": format!("00000000-0000-4000-8000-{:012}", number / 10),
            }],
        },
        "spec": {
            "nodeName": node, "containers": [container("server", 8080), container("proxy", 15001)],
            "automountServiceAccountToken": false,
            "volumes": [{"name": "config", "configMap": {"name": application}}, {"name": "tmp", "emptyDir": {}}],
        },
    })
}

/// A pod as the API server would have it: every field filled in.
pub async fn completed(client: &Client, pod: &Value) -> Result<Value> {
    let namespace = pod["metadata"]["namespace"].as_str().context("no namespace")?;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let made = api.create(&PostParams { dry_run: true, field_manager: None }, &object(pod.clone())?).await?;
    Ok(serde_json::to_value(made)?)
}
