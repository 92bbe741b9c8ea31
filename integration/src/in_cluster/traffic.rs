//! Admission without a pause: pods are made while something else goes on, and not one may be refused or unlabelled.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Cluster, succeed};

/// Of every governed pod.
pub const HASH: &str = "ringfence.dev/ruleset-hash";

/// Makes pods in a namespace (as dry runs, one after the other, twice at a time) for as long as `meanwhile` takes; every
/// one is admitted and labelled.
pub fn during(
    cluster: &mut Cluster,
    namespace: &str,
    meanwhile: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    let done = AtomicBool::new(false);
    let (program, kubeconfig) = (cluster.kubectl_program(), cluster.kubeconfig());
    let traffic = || -> Result<usize> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "t-", "namespace": namespace},
            "spec": {"containers": [{"name": "c", "image": "x"}]},
        })
        .to_string();
        let mut made = 0;
        while !done.load(Ordering::Relaxed) {
            let mut kubectl = Command::new(&program);
            kubectl.env("KUBECONFIG", &kubeconfig).args(["create", "-f", "-", "--dry-run=server", "-o", "json"]);
            let pod: Value =
                serde_json::from_str(&succeed(&mut kubectl, Some(&pod)).with_context(|| format!("after {made}"))?)?;
            ensure!(pod["metadata"]["labels"][HASH].is_string(), "not labelled, after {made}: {}", pod["metadata"]);
            made += 1;
        }
        Ok(made)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(traffic)).collect();
        let result = meanwhile(cluster);
        done.store(true, Ordering::Relaxed);
        let made =
            workers.into_iter().map(|worker| worker.join().expect("it does not panic")).collect::<Result<Vec<_>>>();
        result?;
        let made: usize = made?.iter().sum();
        ensure!(made > 20, "only {made} pods were made meanwhile");
        Ok(())
    })
}
