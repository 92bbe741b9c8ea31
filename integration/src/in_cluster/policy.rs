//! The policy `main`, which tests change.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Changes what is named of it.
pub fn change(cluster: &Cluster, spec: &Value) -> Result<()> {
    let patch = json!({"spec": spec}).to_string();
    cluster.kubectl(["patch", "rpol", "main", "--type=merge", "-p", &patch]).map(drop)
}

/// Changes its limits and its isolation for as long as `test` takes: it has none of its own afterwards.
pub fn during(cluster: &mut Cluster, spec: &Value, test: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    change(cluster, spec)?;
    let result = test(cluster);
    let restored = change(cluster, &json!({"limits": null, "isolation": null}));
    result.and(restored)
}
