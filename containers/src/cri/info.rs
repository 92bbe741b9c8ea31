//! What CRI's answers say about a container: the typed part, and the runtime's own JSON in verbose answers.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use k8s_cri::v1::{Container as Listed, ContainerStatusResponse, PodSandbox, PodSandboxStatusResponse};
use serde::Deserialize;

use super::CRI_NAMESPACE;
use crate::{
    Container, ContainerKey, Error, Kind, Pod,
    spec::{Network, Spec},
};

/// Labels that kubelet adds to a sandbox and the pod does not have.
const KUBELETS: &str = "io.kubernetes.pod.";

/// The part of `info["info"]` that containerd and CRI-O have in common.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Info {
    /// First process; 0: none.
    pub pid: u32,
    snapshotter: String,
    runtime_spec: Option<Spec>,
}

impl Info {
    /// Reads the JSON of a verbose answer about `id`.
    pub fn parse(id: &str, info: &HashMap<String, String>) -> Result<Self, Error> {
        let Some(json) = info.get("info") else { return Ok(Self::default()) };
        serde_json::from_str(json).map_err(|source| Error::Spec { container: format!("{CRI_NAMESPACE}/{id}"), source })
    }
}

/// The pod of a sandbox.
pub fn pod(sandbox: &PodSandbox) -> Pod {
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    Pod {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        sandbox: sandbox.id.clone(),
        labels: sandbox.labels.clone().into_iter().filter(|(key, _)| !key.starts_with(KUBELETS)).collect(),
        ..Pod::default()
    }
}

/// A sandbox as a container, with its first process.
pub fn sandbox(sandbox: &PodSandbox, status: &PodSandboxStatusResponse) -> Result<(Container, u32), Error> {
    let pod = pod(sandbox);
    let labels = sandbox.labels.clone().into_iter().collect();
    let info = Info::parse(&sandbox.id, &status.info)?;
    Ok((container(&sandbox.id, pod.name.clone(), Kind::Sandbox, pod, labels, &info), info.pid))
}

/// A pod's container, with its first process.
pub fn pod_container(
    listed: &Listed,
    pod: Option<&Pod>,
    status: &ContainerStatusResponse,
) -> Result<(Container, u32), Error> {
    let info = Info::parse(&listed.id, &status.info)?;
    let pod = pod.cloned().unwrap_or_else(|| Pod { sandbox: listed.pod_sandbox_id.clone(), ..Pod::default() });
    let name = listed.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
    let labels = listed.labels.clone().into_iter().collect();
    let mut container = container(&listed.id, name, Kind::PodContainer, pod, labels, &info);
    let status = status.status.as_ref();
    container.image = status.and_then(|status| status.image.clone()).map(|image| image.image).unwrap_or_default();
    // `registry/name@digest`; an image without that came from no registry, and its id is no digest of it.
    let reference = status.map(|status| status.image_ref.as_str()).unwrap_or_default();
    container.image_digest = reference.rsplit_once('@').map(|(_, digest)| digest.to_owned());
    Ok((container, info.pid))
}

fn container(id: &str, name: String, kind: Kind, pod: Pod, labels: BTreeMap<String, String>, info: &Info) -> Container {
    let none = Spec::default();
    let spec = info.runtime_spec.as_ref().unwrap_or(&none);
    // Without a spec nothing is known of its network; that it is the host's would be a guess.
    let network = info.runtime_spec.as_ref().map_or(Network::New, |spec| spec.network(Path::new("/proc/self/ns/net")));
    Container {
        key: ContainerKey::new(CRI_NAMESPACE, id),
        name: if name.is_empty() { id.to_owned() } else { name },
        kind,
        pod: Some(pod),
        labels,
        image: String::new(),
        image_digest: None,
        snapshotter: info.snapshotter.clone(),
        cgroups_path: spec.cgroups_path().to_owned(),
        host_network: network == Network::Host,
        netns: if let Network::At(path) = network { Some(path) } else { None },
        pid: None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_cri::v1::{ContainerMetadata, ContainerStatus, ImageSpec, PodSandboxMetadata};

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn web() -> PodSandbox {
        let metadata =
            PodSandboxMetadata { name: "web".into(), uid: "u-1".into(), namespace: "shop".into(), attempt: 0 };
        PodSandbox {
            id: "s1".into(),
            metadata: Some(metadata),
            labels: map(&[("app", "web"), ("io.kubernetes.pod.uid", "u-1")]),
            ..PodSandbox::default()
        }
    }

    #[test]
    fn a_container_takes_labels_from_its_pod_and_the_cgroup_from_its_spec() {
        let listed = Listed {
            id: "c1".into(),
            pod_sandbox_id: "s1".into(),
            metadata: Some(ContainerMetadata { name: "nginx".into(), attempt: 0 }),
            ..Listed::default()
        };
        let json =
            r#"{"pid":42,"sandboxID":"s1","runtimeSpec":{"linux":{"cgroupsPath":"a.slice:crio:c1","namespaces":[]}}}"#;
        let image = Some(ImageSpec { image: "localhost/nginx:1".into(), ..ImageSpec::default() });
        let image_ref = "localhost/nginx@sha256:77".into();
        let status = ContainerStatusResponse {
            status: Some(ContainerStatus { image, image_ref, ..ContainerStatus::default() }),
            info: map(&[("info", json)]),
        };
        let (container, pid) = pod_container(&listed, Some(&pod(&web())), &status).expect("readable");
        assert_eq!((pid, container.name.as_str(), container.kind), (42, "nginx", Kind::PodContainer));
        assert_eq!(container.selector_labels(), &BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        assert_eq!((container.cgroups_path.as_str(), container.host_network), ("a.slice:crio:c1", true));
        assert_eq!(
            (container.image.as_str(), container.image_digest.as_deref()),
            ("localhost/nginx:1", Some("sha256:77"))
        );
        let pod = container.pod.expect("a pod");
        assert_eq!((pod.name.as_str(), pod.namespace.as_str(), pod.uid.as_str()), ("web", "shop", "u-1"));
    }

    #[test]
    fn a_runtime_that_says_no_more_than_it_must_is_understood() {
        let (container, pid) = sandbox(&web(), &PodSandboxStatusResponse::default()).expect("readable");
        assert_eq!((pid, container.name.as_str(), container.host_network), (0, "web", false));
        assert_eq!(crate::cgroup_names(&container), ["s1"]);
    }

    #[test]
    fn broken_json_names_the_container() {
        let error = Info::parse("c1", &map(&[("info", "{")])).expect_err("broken").to_string();
        assert!(error.starts_with("the OCI spec of container cri/c1 cannot be read"), "{error}");
    }
}
