//! What was asked of the API server, by its audit log.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use super::site::NAMESPACE;
use crate::cluster::Cluster;
use crate::in_cluster::audit::Audit;

/// Requests of one program of ours.
pub struct Requests(Vec<Value>);

impl Requests {
    /// Those that a service account of the release made after the first `skip` bytes of the log.
    pub fn since(cluster: &Cluster, account: &str, skip: usize) -> Result<Self> {
        let (events, _) = Audit::since(cluster, skip)?;
        let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
        // Of a watch its start, of everything else its end: each once.
        let once = |event: &Value| (event["verb"] == "watch") == (event["stage"] == "ResponseStarted");
        let ours = events.into_iter().filter(|event| event["user"]["username"] == *user && once(event));
        Ok(Self(ours.collect()))
    }

    /// The length of the log.
    pub fn mark(cluster: &Cluster) -> Result<usize> {
        Ok(Audit::since(cluster, usize::MAX)?.1)
    }

    /// How many there were of which verb and resource.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for event in &self.0 {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let object = &event["objectRef"];
            let part = object["subresource"].as_str().map(|part| format!("/{part}")).unwrap_or_default();
            *counts.entry(format!("{} {}{part}", text(&event["verb"]), text(&object["resource"]))).or_default() += 1;
        }
        counts
    }

    /// How many there were of a verb in each second of the clock in which there were some.
    pub fn by_second(&self, verb: &str) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for event in self.0.iter().filter(|event| event["verb"] == verb) {
            // Up to the seconds: 2026-11-28T08:00:00.123456Z.
            let second = event["requestReceivedTimestamp"].as_str().and_then(|time| time.get(11..19));
            *counts.entry(second.unwrap_or_default().to_owned()).or_default() += 1;
        }
        counts
    }
}
