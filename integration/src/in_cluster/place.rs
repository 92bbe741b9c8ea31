//! On which Kubernetes which tests are run.

use std::iter;

use anyhow::Result;
use clap::ValueEnum as _;

use super::two_nodes;
use crate::cluster::{Ability, CertManager, Version};
use crate::suite::Scope;

/// What an older Kubernetes has to stand whenever all tests are run: that it is one, admission, and from the chart up to
/// pods that are logged, isolated and terminated.
const ESSENTIAL: &[&str] = &[
    "cluster/deployment",
    "cluster/node-ready",
    "cluster/namespace-deleted",
    "admission/existing-pods-are-labelled",
    "admission/new-pods-are-labelled",
    "admission/forged-labels-are-corrected",
    "admission/our-labels-are-ours-alone",
    "admission/templates-do-not-have-them",
    "admission/an-enforcer-stays-on-its-node",
    "admission/rulesets-are-checked-whole",
    "admission/what-is-in-use-stays",
    "admission/removed",
    "enforcement/log",
    "enforcement/isolate-and-release",
    "enforcement/terminate",
    "enforcement/removed",
    "helm/install",
    "helm/pods-are-labelled",
    "helm/nodes-enforce",
    "helm/uninstall",
    super::NOTHING_LEFT,
];

/// Tests of what not every server can do.
const NEED: [(&str, Ability); 2] = [
    ("admission/ephemeral-containers", Ability::EphemeralContainers),
    ("enforcement/ephemeral-container", Ability::EphemeralContainers),
];

/// A Kubernetes, and what is tested on it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Which one.
    pub version: Version,
    /// Names of the tests.
    pub scope: Scope,
    /// Kubernetes is built for it, however long that takes.
    pub to_be_built: bool,
}

/// Needs more programs than a cluster.
const CERT_MANAGER: &str = "failure/cert-manager";

impl Place {
    /// Everything on one Kubernetes, and all that it needs is built.
    pub fn whole(version: Version) -> Self {
        Self { version, scope: scope(version, &[]), to_be_built: true }
    }

    /// The same without what a second node could boot with.
    pub fn without_second_node(mut self) -> Self {
        let reason = "there is no second node: `cargo xtask test --only cluster two-nodes` makes one";
        self.scope.impossible.extend(of_two_nodes(reason));
        self
    }

    /// Everything on the newest, the essential on the others where they are built already.
    pub fn usual() -> Result<Vec<Self>> {
        let mut newest = Self::whole(Version::default());
        if !CertManager::is_built()? {
            let reason = "cert-manager is not built on this machine; \
                          `cargo xtask test --kubernetes 1.37 failure/` builds it, for minutes";
            newest.scope.impossible.push((CERT_MANAGER, reason));
        }
        let older = Version::value_variants().iter().filter(|version| **version != Version::default());
        let older = older.map(|&version| Self { version, scope: scope(version, ESSENTIAL), to_be_built: false });
        Ok(iter::once(newest).chain(older).collect())
    }
}

fn scope(version: Version, only: &'static [&'static str]) -> Scope {
    let newest = version == Version::default();
    let prefix = if newest { String::new() } else { format!("kubernetes-{}/", version.name()) };
    let impossible = NEED.into_iter().filter(|(_, ability)| !version.can(*ability));
    let mut impossible: Vec<_> = impossible.map(|(name, ability)| (name, ability.missing())).collect();
    if !newest {
        impossible.extend(of_two_nodes("the second node is one of the newest Kubernetes alone"));
    }
    Scope { prefix, only, impossible }
}

fn of_two_nodes(reason: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    two_nodes::TESTS.iter().map(move |(name, _)| (*name, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_exists() {
        let all: Vec<_> = super::super::of_cluster().collect();
        for name in ESSENTIAL.iter().chain(NEED.iter().map(|(name, _)| name)).chain(&[CERT_MANAGER]) {
            assert!(all.iter().any(|other| other == name), "there is no {name}");
        }
    }

    #[test]
    fn nothing_is_left_out_of_the_newest() {
        let newest = Place::whole(Version::default());
        assert!(newest.scope.prefix.is_empty() && newest.scope.only.is_empty() && newest.scope.impossible.is_empty());
    }
}
