//! From containerd's record of a container to ours.

use std::{collections::BTreeMap, path::Path};

use containerd_client::services::v1::Container as Record;

use crate::{
    Container, ContainerKey, Error, Kind, Pod,
    spec::{Network, Spec},
};

const CRI_KIND: &str = "io.cri-containerd.kind";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const NERDCTL_NAME: &str = "nerdctl/name";

/// Labels of a sandbox that its pod does not have: containerd's own, and kubelet's.
const NOT_OF_THE_POD: [&str; 2] = ["io.cri-containerd.", "io.kubernetes.pod."];

/// A record with its spec read, before anything else was asked.
pub struct Parsed {
    key: ContainerKey,
    record: Record,
    spec: Spec,
}

impl Parsed {
    /// Reads the spec of a record.
    pub fn new(namespace: &str, mut record: Record) -> Result<Self, Error> {
        let key = ContainerKey::new(namespace, &record.id);
        let json = record.spec.take().map(|any| any.value).unwrap_or_default();
        let spec = Spec::parse(&json).map_err(|source| Error::Spec { container: key.to_string(), source })?;
        Ok(Self { key, record, spec })
    }

    /// The image's reference.
    pub fn image(&self) -> &str {
        &self.record.image
    }

    /// What it is to Kubernetes.
    pub fn kind(&self) -> Kind {
        let kind = self.record.labels.get(CRI_KIND).map(String::as_str);
        match kind.or_else(|| self.spec.annotation("io.kubernetes.cri.container-type")) {
            Some("sandbox") => Kind::Sandbox,
            Some("container") => Kind::PodContainer,
            _ => Kind::Plain,
        }
    }

    /// The sandbox of a pod's container: its record has the pod's labels.
    pub fn sandbox(&self) -> Option<ContainerKey> {
        if self.kind() != Kind::PodContainer {
            return None;
        }
        // The record says it from containerd 1.7 on.
        let id = Some(self.record.sandbox.as_str()).filter(|id| !id.is_empty());
        let id = id.or_else(|| self.spec.annotation("io.kubernetes.cri.sandbox-id"))?;
        Some(ContainerKey::new(&self.key.namespace, id))
    }

    /// The container. `sandbox_labels`: of the sandbox, for a pod's container.
    pub fn container(
        self,
        image_digest: Option<String>,
        sandbox_labels: Option<&BTreeMap<String, String>>,
    ) -> Container {
        let kind = self.kind();
        let pod = self.pod(kind, sandbox_labels);
        let name = self.name(kind, pod.as_ref());
        let network = self.spec.network(Path::new("/proc/self/ns/net"));
        Container {
            kind,
            pod,
            name,
            host_network: network == Network::Host,
            netns: if let Network::At(path) = network { Some(path) } else { None },
            cgroups_path: self.spec.cgroups_path().to_owned(),
            labels: self.record.labels.into_iter().collect(),
            image: self.record.image,
            image_digest,
            snapshotter: self.record.snapshotter,
            pid: None,
            key: self.key,
        }
    }

    fn pod(&self, kind: Kind, sandbox_labels: Option<&BTreeMap<String, String>>) -> Option<Pod> {
        let own: BTreeMap<String, String>;
        let (sandbox, labels) = match kind {
            Kind::Plain | Kind::Pod => return None,
            Kind::Sandbox => {
                own = self.record.labels.clone().into_iter().collect();
                (self.key.id.clone(), Some(&own))
            }
            Kind::PodContainer => (self.sandbox().map(|key| key.id).unwrap_or_default(), sandbox_labels),
        };
        let of_pod = |key: &str| !NOT_OF_THE_POD.iter().any(|prefix| key.starts_with(prefix));
        Some(Pod {
            // kubelet sets the labels, containerd the annotations; crictl and tests only cause the latter.
            name: self.label_or_annotation(POD_NAME, "io.kubernetes.cri.sandbox-name"),
            namespace: self.label_or_annotation(POD_NAMESPACE, "io.kubernetes.cri.sandbox-namespace"),
            uid: self.label_or_annotation(POD_UID, "io.kubernetes.cri.sandbox-uid"),
            sandbox,
            labels: labels
                .into_iter()
                .flatten()
                .filter(|(key, _)| of_pod(key))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            ..Pod::default()
        })
    }

    fn name(&self, kind: Kind, pod: Option<&Pod>) -> String {
        let name = match kind {
            Kind::Plain | Kind::Pod => self.record.labels.get(NERDCTL_NAME).cloned().unwrap_or_default(),
            Kind::Sandbox => pod.map(|pod| pod.name.clone()).unwrap_or_default(),
            Kind::PodContainer => self.label_or_annotation(CONTAINER_NAME, "io.kubernetes.cri.container-name"),
        };
        if name.is_empty() { self.key.id.clone() } else { name }
    }

    fn label_or_annotation(&self, label: &str, annotation: &str) -> String {
        let label = self.record.labels.get(label).map(String::as_str);
        label.or_else(|| self.spec.annotation(annotation)).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

    use super::*;

    fn parsed(namespace: &str, labels: &[(&str, &str)], spec: &str) -> Parsed {
        let record = Record {
            id: "demo".to_owned(),
            labels: labels.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
            image: "localhost/busybox:1".to_owned(),
            spec: Some(Any { type_url: String::new(), value: spec.as_bytes().to_vec() }),
            snapshotter: "overlayfs".to_owned(),
            ..Record::default()
        };
        Parsed::new(namespace, record).expect("valid spec")
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn a_plain_container_has_its_own_labels_and_no_pod() {
        let spec = r#"{"linux":{"cgroupsPath":"/default/demo","namespaces":[{"type":"network"}]}}"#;
        let container = parsed("default", &[("app", "web")], spec).container(Some("sha256:1".to_owned()), None);
        assert_eq!(container.key, ContainerKey::new("default", "demo"));
        assert_eq!((container.name.as_str(), container.kind, &container.pod), ("demo", Kind::Plain, &None));
        assert_eq!(container.selector_labels(), &labels(&[("app", "web")]));
        assert_eq!((container.cgroups_path.as_str(), container.host_network), ("/default/demo", false));
        assert_eq!(
            (container.image_digest.as_deref(), container.snapshotter.as_str()),
            (Some("sha256:1"), "overlayfs")
        );
    }

    #[test]
    fn nerdctls_name_is_the_name() {
        assert_eq!(parsed("default", &[("nerdctl/name", "web")], "{}").container(None, None).name, "web");
    }

    #[test]
    fn a_sandbox_has_the_pods_labels_without_the_runtimes_own() {
        let own =
            [(CRI_KIND, "sandbox"), (POD_NAME, "web-1"), (POD_NAMESPACE, "shop"), (POD_UID, "u-1"), ("app", "web")];
        let container = parsed("k8s.io", &own, "{}").container(None, None);
        assert_eq!((container.kind, container.name.as_str()), (Kind::Sandbox, "web-1"));
        let pod = container.pod.as_ref().expect("a pod");
        assert_eq!((pod.name.as_str(), pod.namespace.as_str(), pod.uid.as_str()), ("web-1", "shop", "u-1"));
        assert_eq!((pod.sandbox.as_str(), container.selector_labels()), ("demo", &labels(&[("app", "web")])));
    }

    #[test]
    fn a_pods_container_is_matched_by_its_pods_labels() {
        let spec = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"s1","io.kubernetes.cri.sandbox-uid":"u-1"}}"#;
        let own = [(CRI_KIND, "container"), (CONTAINER_NAME, "nginx"), (POD_NAME, "web-1"), (POD_NAMESPACE, "shop")];
        let parsed = parsed("k8s.io", &own, spec);
        assert_eq!(parsed.sandbox(), Some(ContainerKey::new("k8s.io", "s1")));
        let sandbox = labels(&[("app", "web"), (CRI_KIND, "sandbox"), (POD_NAME, "web-1")]);
        let container = parsed.container(None, Some(&sandbox));
        assert_eq!((container.kind, container.name.as_str()), (Kind::PodContainer, "nginx"));
        assert_eq!(container.selector_labels(), &labels(&[("app", "web")]));
        assert_eq!(container.pod.expect("a pod").uid, "u-1");
        assert_eq!(container.labels.len(), 4, "its own labels stay");
    }

    #[test]
    fn a_broken_spec_names_the_container() {
        let spec = Some(Any { type_url: String::new(), value: b"{".to_vec() });
        let Err(error) = Parsed::new("default", Record { id: "demo".to_owned(), spec, ..Record::default() }) else {
            panic!("a broken spec was read");
        };
        assert!(error.to_string().starts_with("the OCI spec of container default/demo cannot be read: EOF"), "{error}");
    }
}
