//! Whether our components have the rights that they use, and no others: what roles grant against the audit log.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::audit::Audit;
use crate::cluster::Cluster;

/// `verb resource.group`.
type Rights = BTreeSet<String>;

/// Compares for a component, whose roles and service account have its name. `spare`: what is granted for situations
/// that not every run brings about.
pub fn check(cluster: &Cluster, namespace: &str, name: &str, spare: &[&str]) -> Result<()> {
    let granted = granted(cluster, namespace, name)?;
    let user = format!("system:serviceaccount:{namespace}:{name}");
    let (events, _) = Audit::since(cluster, 0)?;
    let own: Vec<&Value> = events.iter().filter(|event| event["user"]["username"] == user).collect();
    let decided = |decision| own.iter().filter(move |event| event["annotations"][DECISION] == decision);
    // An API server that has just started does not know of any rights yet, and refuses what it grants a moment later.
    let refused: Rights =
        decided("forbid").filter_map(|event| right(event)).filter(|right| !granted.contains(right)).collect();
    ensure!(refused.is_empty(), "{name} was refused {refused:?}");
    let made: Rights = decided("allow").filter_map(|event| right(event)).collect();
    let idle: Vec<&String> = granted.difference(&made).filter(|right| !spare.contains(&right.as_str())).collect();
    ensure!(idle.is_empty(), "{name} has rights that it does not use: {idle:?}");
    Ok(())
}

const DECISION: &str = "authorization.k8s.io/decision";

/// What a request needed; `None`: it was not about a resource.
fn right(event: &Value) -> Option<String> {
    let object = event["objectRef"].as_object()?;
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    Some(spell(event["verb"].as_str()?, text("resource"), text("subresource"), text("apiGroup")))
}

fn spell(verb: &str, resource: &str, subresource: &str, group: &str) -> String {
    let slash = if subresource.is_empty() { "" } else { "/" };
    let dot = if group.is_empty() { "" } else { "." };
    format!("{verb} {resource}{slash}{subresource}{dot}{group}")
}

fn granted(cluster: &Cluster, namespace: &str, name: &str) -> Result<Rights> {
    let mut rights = Rights::new();
    for role in [&["get", "clusterrole", name][..], &["-n", namespace, "get", "role", name]] {
        let role: Value = serde_json::from_str(&cluster.kubectl(role.iter().chain(&["-o", "json"]))?)?;
        for rule in role["rules"].as_array().context("a role without rules")? {
            let words = |key: &str| rule[key].as_array().into_iter().flatten().filter_map(Value::as_str);
            for group in words("apiGroups") {
                for resource in words("resources") {
                    rights.extend(words("verbs").map(|verb| spell(verb, resource, "", group)));
                }
            }
        }
    }
    Ok(rights)
}
