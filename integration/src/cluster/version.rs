//! Which Kubernetes a cluster can have, what its node runs on, and how they differ. Whatever depends on the version is
//! in this table.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde_json::{Value, json};

use super::binaries::Release;
use super::binaries::releases::{CONTAINERD, ETCD, KUBERNETES_1_20, KUBERNETES_1_34, KUBERNETES_1_37};
use super::{Interrupt, succeed};

/// One Kubernetes, with what its node runs on.
#[derive(Debug)]
struct Row {
    /// On the command line and in the names of tests.
    name: &'static str,
    kubernetes: Release,
    runtime: Runtime,
    /// What the kubelet's configuration has besides what all have, and further arguments; both by the runtime's socket.
    kubelet: fn(&str) -> (Value, Vec<String>),
    /// What this API server cannot do, of what tests do; see [`Ability`].
    lacks: &'static [Ability],
}

/// Where a node's containerd comes from.
#[derive(Debug)]
enum Runtime {
    /// Built.
    Built(Release),
    /// This machine's package, with its own shim and ctr.
    Machine,
}

/// What not every server can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// Containers that are added to a running pod: beta, and so usually on, from 1.23.
    EphemeralContainers,
    /// Webhooks are only asked under conditions: usually on from 1.28.
    MatchConditions,
    /// Namespaces are labelled with their names: from 1.21.
    NamespaceNames,
    /// A token that is bound to a pod names the pod's node: usually from 1.30 on.
    NodesInTokens,
}

impl Ability {
    /// As the reason why something is not tested.
    pub fn missing(self) -> &'static str {
        match self {
            Self::EphemeralContainers => "this Kubernetes has no ephemeral containers (usual from 1.23 on)",
            Self::MatchConditions => "this API server has no matchConditions (from 1.28 on)",
            Self::NodesInTokens => "this API server does not say a token's node (from 1.30 on)",
            Self::NamespaceNames => "this API server does not label namespaces with their names (from 1.21 on)",
        }
    }
}

/// Of [`Version`]s, in their order.
static TABLE: [Row; 3] = [
    Row {
        name: "1.37",
        kubernetes: KUBERNETES_1_37,
        runtime: Runtime::Built(CONTAINERD),
        kubelet: |socket| {
            // Its default since 1.35 is to refuse nodes such as many test machines are.
            (json!({"containerRuntimeEndpoint": socket, "failCgroupV1": false}), Vec::new())
        },
        lacks: &[],
    },
    Row {
        name: "1.34",
        kubernetes: KUBERNETES_1_34,
        runtime: Runtime::Machine,
        kubelet: |socket| (json!({"containerRuntimeEndpoint": socket}), Vec::new()),
        lacks: &[],
    },
    Row {
        name: "1.20",
        kubernetes: KUBERNETES_1_20,
        runtime: Runtime::Machine,
        // Docker by default, until 1.24.
        kubelet: |socket| {
            let socket = format!("--container-runtime-endpoint={socket}");
            (json!({}), vec!["--container-runtime=remote".to_owned(), socket])
        },
        lacks: &[
            Ability::EphemeralContainers,
            Ability::MatchConditions,
            Ability::NamespaceNames,
            Ability::NodesInTokens,
        ],
    },
];

/// A Kubernetes that a cluster can have. The default is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// The newest, with the newest containerd.
    #[default]
    Newest,
    /// One in between, with this machine's containerd.
    Middle,
    /// The oldest, likewise.
    Oldest,
}

impl ValueEnum for Version {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Newest, Self::Middle, Self::Oldest]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl Version {
    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its name, such as `1.37`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The whole version, such as `1.37.2`.
    pub fn kubernetes(self) -> &'static str {
        self.row().kubernetes.version()
    }

    /// Whether the server and its node can do something.
    pub fn can(self, ability: Ability) -> bool {
        !self.row().lacks.contains(&ability)
    }

    /// Whether starting a cluster builds nothing.
    pub fn is_built(self) -> Result<bool> {
        let row = self.row();
        let runtime = if let Runtime::Built(release) = &row.runtime { release.is_built()? } else { true };
        Ok(runtime && row.kubernetes.is_built()? && ETCD.is_built()?)
    }

    /// What differs in the kubelet's configuration, and further arguments.
    pub(super) fn kubelet(self, socket: &str) -> (Value, Vec<String>) {
        (self.row().kubelet)(socket)
    }
}

/// Folders with the programs of a cluster.
#[derive(Debug)]
pub struct Programs {
    pub kubernetes: PathBuf,
    pub containerd: PathBuf,
    pub etcd: PathBuf,
    /// What tests use, whatever the cluster is: the newest.
    pub kubectl: PathBuf,
}

impl Programs {
    /// Builds what this machine does not have: some minutes.
    pub fn ensure(version: Version, interrupt: &Interrupt) -> Result<Self> {
        let row = version.row();
        // What builds fast comes first: where it does not build, the others are not tried for minutes.
        let containerd = match &row.runtime {
            Runtime::Built(release) => release.ensure(interrupt)?,
            Runtime::Machine => machines_containerd()?,
        };
        let etcd = ETCD.ensure(interrupt)?;
        let kubernetes = row.kubernetes.ensure(interrupt)?;
        let kubectl = Version::default().row().kubernetes.ensure_program("kubectl", interrupt)?;
        Ok(Self { kubernetes, containerd, etcd, kubectl })
    }

    /// What containerd says of itself to a kubelet, such as `2.4.2`. What Debian adds to its version is not in it.
    pub fn containerd_version(&self) -> Result<String> {
        let said = succeed(Command::new(self.containerd.join("containerd")).arg("--version"), None)?;
        let version = said.split(' ').nth(2).with_context(|| format!("containerd says {said:?}"))?;
        let version = version.split('~').next().unwrap_or(version);
        Ok(version.trim_start_matches('v').to_owned())
    }
}

/// The folder of this machine's containerd.
fn machines_containerd() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folder = std::env::split_paths(&path).find(|folder| folder.join("containerd").is_file());
    let folder = folder.context("containerd is not installed")?;
    for name in ["containerd-shim-runc-v2", "ctr"] {
        ensure!(folder.join(name).is_file(), "{name} is not beside {}", folder.join("containerd").display());
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_its_row() {
        assert_eq!(TABLE.len(), Version::value_variants().len());
        for version in Version::value_variants() {
            assert!(version.kubernetes().starts_with(&format!("{}.", version.name())), "{version:?}");
        }
    }

    #[test]
    fn the_newest_can_do_everything() {
        assert!(Version::default().row().lacks.is_empty());
    }
}
