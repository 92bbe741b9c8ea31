//! What isolation takes, and what it leaves: connections that stand, the policy's exceptions, the node's probes.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Release, delete, event, exec, field, pod, start, start_all};
use crate::cluster::Cluster;
use crate::in_cluster::pods::{self, DRIFT, SERVER, spec};
use crate::in_cluster::policy;

/// Keeps what comes by the first connection. With nothing more to send it would end that.
const SINK: &str = "(sleep 999999 | nc -l -p 9000 > /tmp/received) & ";

/// Sends a line a hundred times a second by one connection, and says how many so far.
fn stream(cluster: &Cluster, from: &str, to: &str) -> Result<()> {
    let script = format!(
        "(n=0; while :; do n=$((n+1)); echo $n; echo >> /tmp/sent; usleep 10000; done | nc {to} 9000) \
         > /dev/null 2>&1 < /dev/null &"
    );
    exec(cluster, from, &script).map(drop)
}

/// How many lines a pod has in a file.
fn lines(cluster: &Cluster, pod: &str, file: &str) -> Result<u64> {
    Ok(exec(cluster, pod, &format!("wc -l < /tmp/{file}"))?.trim().parse()?)
}

/// Waits until a pod has sent so many more.
fn more(cluster: &mut Cluster, pod: &str, number: u64) -> Result<()> {
    let before = lines(cluster, pod, "sent")?;
    cluster.wait_for("more that is sent", |cluster| Ok(lines(cluster, pod, "sent")? >= before + number))
}

/// Connections that stand when the pod is cut off: one that it made, and one that was made to it.
pub fn live_connections(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let serve = |after: &str| spec(&format!("touch /tmp/received; {SINK} {after}"));
    let both = [pod("talks", "isolate", &serve(DRIFT)), pod("listens", "log", &serve("sleep 999999"))];
    start_all(cluster, &both)?;
    let uid = field(cluster, "talks", "{.metadata.uid}")?;
    let ways = [("talks", "listens"), ("listens", "talks")];
    for (from, to) in ways {
        let address = field(cluster, to, "{.status.podIP}")?;
        stream(cluster, from, &address)?;
        cluster.wait_for(&format!("what {from} sends"), |cluster| Ok(lines(cluster, to, "received")? > 50))?;
    }
    exec(cluster, "talks", "touch /tmp/go")?;
    let event = event(cluster, &uid, "RF-901")?;
    ensure!(event["mitigationDone"] == json!(["isolated"]), "{event}");
    for (from, to) in ways {
        // What had come by then is in the file by then.
        more(cluster, from, 20)?;
        let received = lines(cluster, to, "received")?;
        more(cluster, from, 100)?;
        let later = lines(cluster, to, "received")?;
        ensure!(later == received, "from {from} to {to}: {} lines after it was cut off", later - received);
        ensure!(lines(cluster, from, "sent")? >= received + 100, "it did not go on");
    }
    delete(cluster, &["talks", "listens"])
}

/// Whether the node itself, as a probe would, connects to a pod's server.
fn probed(cluster: &Cluster, address: &str) -> Result<bool> {
    let server = SocketAddr::new(address.parse()?, 8080);
    cluster.within(|| Ok(TcpStream::connect_timeout(&server, Duration::from_secs(3)).is_ok()))
}

/// A network of peers, ports of a peer, and nothing of either any more with `strict`, which takes the probes too.
pub fn exceptions(cluster: &mut Cluster, _: &Release) -> Result<()> {
    let server = spec(&format!("{SERVER} httpd -p 8081 -h /tmp/www; sleep 999999"));
    let others = ["any-port", "one-port", "no-port"].map(|name| pod(name, "log", &server));
    start_all(cluster, &others)?;
    let uid = start(cluster, &pod("confined", "isolate", &spec(&format!("{SERVER} {DRIFT}"))))?;
    let address = |name: &str| field(cluster, name, "{.status.podIP}");
    let (any, one, none) = (address("any-port")?, address("one-port")?, address("no-port")?);
    let confined = address("confined")?;
    let servers = [&any, &one, &none].map(|address| [8080, 8081].map(|port| format!("{address}:{port}"))).concat();
    let servers: Vec<_> = servers.iter().map(String::as_str).collect();
    let reached = |cluster: &Cluster| pods::reached(cluster, "shop", "confined", &servers);
    cluster.wait_for("all servers", |cluster| Ok(reached(cluster) == [true; 6] && probed(cluster, &confined)?))?;
    exec(cluster, "confined", "touch /tmp/go")?;
    event(cluster, &uid, "RF-901")?;
    ensure!(reached(cluster) == [false; 6], "without an exception it reaches {:?} of {servers:?}", reached(cluster));
    ensure!(probed(cluster, &confined)?, "the node's probe does not come through");

    let exceptions = json!([{"cidr": format!("{any}/32")}, {"cidr": one, "ports": [{"port": 8080}]}]);
    let excepted = [true, true, true, false, false, false];
    let mut last = Vec::new();
    policy::during(cluster, &json!({"isolation": {"exceptions": exceptions}}), |cluster| {
        let waited = cluster.wait_for("the exceptions", |cluster| {
            last = reached(cluster);
            Ok(last == excepted)
        });
        ensure!(waited.is_ok(), "it reaches {last:?} of {servers:?}");
        // The other way round, the port is the peer's all the same.
        ensure!(pods::reaches(cluster, "shop", "any-port", &confined), "a peer that is excepted does not reach it");
        ensure!(!pods::reaches(cluster, "shop", "no-port", &confined), "one that is not reaches it");
        policy::change(cluster, &json!({"isolation": {"strict": true}}))?;
        cluster.wait_for("that nothing is excepted", |cluster| Ok(reached(cluster) == [false; 6]))?;
        ensure!(!probed(cluster, &confined)?, "the node's probe comes through");
        policy::change(cluster, &json!({"isolation": {"strict": false}}))?;
        cluster.wait_for("the exceptions again", |cluster| Ok(reached(cluster) == excepted))
    })?;
    cluster.wait_for("no exception any more", |cluster| Ok(reached(cluster) == [false; 6]))?;
    delete(cluster, &["any-port", "one-port", "no-port", "confined"])
}
