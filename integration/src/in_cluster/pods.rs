//! Pods that do what the tests are about: break a rule, serve, and reach one another.

use serde_json::{Value, json};

use crate::cluster::Cluster;

/// The image of ordinary pods: a busybox. It is in the node.
pub const IMAGE: &str = "localhost/basics:1";

/// Waits for the file, then starts a program that is not the image's, again and again.
pub const DRIFT: &str = "cp /bin/busybox /tmp/true; until [ -e /tmp/go ]; do sleep 0.1; done; \
                         while :; do /tmp/true; sleep 1; done";
/// The same at once.
pub const DRIFT_NOW: &str = "cp /bin/busybox /tmp/true; while :; do /tmp/true; sleep 1; done";

/// Serves one page, which says `here`, beside what follows.
pub const SERVER: &str = "mkdir /tmp/www; echo here > /tmp/www/index.html; httpd -p 8080 -h /tmp/www; ";

/// A container: a shell that runs the script.
pub fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script]})
}

/// What a pod with that container, `main`, is.
pub fn spec(script: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false,
        "containers": [container("main", script)],
    })
}

/// What `kubectl apply` takes as one.
pub fn list(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// Whether a pod gets the page of another one's [`SERVER`]. A probe of the node itself would get it always.
pub fn reaches(cluster: &Cluster, namespace: &str, from: &str, address: &str) -> bool {
    let server = format!("{address}:8080");
    reached(cluster, namespace, from, &[&server]) == [true]
}

/// Which of these give a pod such a page; all are asked at once. Address and port.
pub fn reached(cluster: &Cluster, namespace: &str, from: &str, servers: &[&str]) -> Vec<bool> {
    let ask = |server: &&str| format!("(timeout 3 wget -q -O - http://{server}/ | sed 's/^/{server} /') & ");
    let script = servers.iter().map(ask).collect::<String>() + "wait";
    let said = cluster.kubectl(["-n", namespace, "exec", from, "--", "sh", "-c", &script]).unwrap_or_default();
    servers.iter().map(|server| said.lines().any(|line| line == format!("{server} here"))).collect()
}
