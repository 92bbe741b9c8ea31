//! The API server's audit log: who asked it for what.

use std::path::PathBuf;
use std::{fs, process};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::Cluster;

const POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// The log's file, in the folder of the programs' logs.
const LOG: &str = "audit.log";

/// Makes the API server write one.
pub struct Audit {
    policy: PathBuf,
}

impl Audit {
    /// For a cluster that is about to start.
    pub fn prepare() -> Result<Self> {
        // The cluster has no folder yet.
        let policy = std::env::temp_dir().join(format!("ringfence-audit-{}.yaml", process::id()));
        fs::write(&policy, POLICY)?;
        Ok(Self { policy })
    }

    /// What the API server needs to be told.
    pub fn arguments(&self) -> Vec<String> {
        let log = Cluster::folder().join("log").join(LOG);
        vec![format!("--audit-policy-file={}", self.policy.display()), format!("--audit-log-path={}", log.display())]
    }

    /// What was logged after the first `skip` bytes, and how many there are now.
    pub fn since(cluster: &Cluster, skip: usize) -> Result<(Vec<Value>, usize)> {
        let log = fs::read(cluster.logs().join(LOG)).context("read the audit log")?;
        let end = log.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let lines = log.get(skip..end).unwrap_or_default().split(|byte| *byte == b'\n');
        let events = lines.filter(|line| !line.is_empty()).map(serde_json::from_slice);
        Ok((events.collect::<Result<_, _>>()?, end))
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.policy);
    }
}
