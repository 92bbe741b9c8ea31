//! What is known of a container, and what can happen to it.

use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Names a container on this host. Ids alone are unique only within a namespace of containerd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey {
    /// Namespace of containerd, or [`crate::CRI_NAMESPACE`].
    pub namespace: String,
    /// The runtime's id: 64 hex digits from Docker and Kubernetes, any name from others.
    pub id: String,
}

impl ContainerKey {
    /// The container `id` of `namespace`.
    pub fn new(namespace: impl Into<String>, id: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), id: id.into() }
    }
}

impl fmt::Display for ContainerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.id)
    }
}

/// What a container is to Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing: started by Docker, nerdctl, ctr ...
    #[default]
    Plain,
    /// The container that holds a pod's namespaces.
    Sandbox,
    /// One of a pod's containers.
    PodContainer,
    /// A pod as a whole. No runtime tells of one: who knows pods puts it together from its containers.
    Pod,
}

/// The pod that a container belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Name of the pod.
    pub name: String,
    /// Kubernetes namespace of the pod.
    pub namespace: String,
    /// The API server's UID; of a static pod the hash of its configuration.
    pub uid: String,
    /// Id of the sandbox container.
    pub sandbox: String,
    /// Labels of the pod (not of its containers).
    pub labels: BTreeMap<String, String>,
    /// Labels of its namespace. Runtimes know its name alone (`kubernetes.io/metadata.name`).
    pub namespace_labels: BTreeMap<String, String>,
    /// It comes from a file of its node, not from the API server.
    pub is_static: bool,
    /// As one of those that a workload makes; only the API server tells.
    pub replica: Option<Replica>,
    /// Its containers, if this describes a pod as a whole.
    pub members: Vec<Member>,
}

/// A pod as one of those that a workload makes anew when they are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Replica {
    /// The workload, within the pod's namespace: `Deployment/web`.
    pub workload: String,
    /// It is ready, and one of a number of ready ones that the workload keeps.
    pub ready: bool,
    /// How many ready ones may go, if that is known.
    pub spare: Option<u32>,
    /// How many may be terminated before long, if that is known.
    pub terminations_left: Option<u32>,
}

/// One of the containers of a pod that is described as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The runtime's id.
    pub id: String,
    /// Namespace of containerd, or [`crate::CRI_NAMESPACE`].
    pub namespace: String,
    /// As in the pod's spec; of the sandbox the pod's own.
    pub name: String,
    /// See [`Container::image`].
    pub image: String,
    /// See [`Container::image_digest`].
    pub image_digest: Option<String>,
}

/// The label that every namespace has: its name.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Namespace of the keys of pods as a whole; their ids are UIDs.
pub const POD_NAMESPACE: &str = "pod";

/// A container as its runtime describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its namespace and id.
    pub key: ContainerKey,
    /// The name people know: of a pod's container the one in the pod's spec, else one from a label, else the id.
    pub name: String,
    /// What it is to Kubernetes.
    pub kind: Kind,
    /// Its pod, if it has one.
    pub pod: Option<Pod>,
    /// Labels of the container itself.
    pub labels: BTreeMap<String, String>,
    /// Reference of the image, as it was asked for; empty if the runtime does not say.
    pub image: String,
    /// Digest that the reference stood for (`sha256:...`), if the runtime still knows.
    pub image_digest: Option<String>,
    /// Snapshotter of the root file system; empty if the runtime does not say.
    pub snapshotter: String,
    /// `linux.cgroupsPath` of the OCI spec: a path, or `slice:prefix:name` with the systemd driver.
    pub cgroups_path: String,
    /// Uses the host's network namespace.
    pub host_network: bool,
    /// Network namespace that was made for it beforehand; `None`: the host's, or one that comes with its first process.
    pub netns: Option<PathBuf>,
    /// Its first process in the pid namespace of the runtime, once there is one.
    pub pid: Option<u32>,
}

impl Container {
    /// The labels that selectors match: the pod's if there is a pod, else the container's.
    pub fn selector_labels(&self) -> &BTreeMap<String, String> {
        self.pod.as_ref().map_or(&self.labels, |pod| &pod.labels)
    }
}

/// What happens to containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    /// A container is there or its description changed. From containerd this comes before its first process.
    Known(Box<Container>),
    /// Its first process exists and sits in its cgroup, but has not begun to execute the entry point.
    Created {
        /// Which.
        key: ContainerKey,
        /// The first process.
        pid: u32,
    },
    /// Its entry point executes.
    Started {
        /// Which.
        key: ContainerKey,
        /// The first process.
        pid: u32,
    },
    /// Its first process ended.
    Exited {
        /// Which.
        key: ContainerKey,
        /// The process that ended.
        pid: u32,
        /// Its exit status (128 + signal), if the source was there to see it.
        status: Option<u32>,
    },
    /// The runtime forgot it.
    Removed(ContainerKey),
    /// Everything that existed when the source began (or began again) has been told.
    Synced,
    /// The runtime cannot be reached; the source keeps trying. `Synced` tells when it is back.
    Disconnected {
        /// What went wrong.
        reason: String,
    },
}
