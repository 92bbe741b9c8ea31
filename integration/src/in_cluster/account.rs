//! The service account of enforcers, in a test's hands.

use anyhow::Result;
use serde_json::Value;

use crate::cluster::Cluster;

/// With a token of the account.
pub struct Account<'a> {
    cluster: &'a Cluster,
    arguments: Vec<String>,
}

impl<'a> Account<'a> {
    /// The enforcers' in the namespace of a release; the token is bound to a pod there or to none. What is done is done
    /// in the namespace `to`.
    pub fn of_enforcers(cluster: &'a Cluster, namespace: &str, pod: Option<&str>, to: &str) -> Result<Self> {
        let bound = pod.map(|pod| ["--bound-object-kind=Pod".to_owned(), format!("--bound-object-name={pod}")]);
        let words = ["-n", namespace, "create", "token", "ringfence-enforcer"].map(str::to_owned);
        let token = cluster.kubectl(words.into_iter().chain(bound.into_iter().flatten()))?;
        let server = cluster.kubectl(["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
        let arguments = vec![
            // Nobody's: the administrator's certificate would win.
            "--kubeconfig=/dev/null".to_owned(),
            format!("--server={server}"),
            format!("--token={}", token.trim()),
            "--insecure-skip-tls-verify".to_owned(),
            format!("--namespace={to}"),
        ];
        Ok(Self { cluster, arguments })
    }

    /// Patches a pod.
    pub fn patch(&self, pod: &str, patch: &Value) -> Result<String> {
        let patch = patch.to_string();
        self.kubectl(&["patch", "pod", pod, "--type=merge", "-p", &patch])
    }

    /// Runs kubectl.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.cluster.kubectl(self.arguments.iter().map(String::as_str).chain(words.iter().copied()))
    }
}
