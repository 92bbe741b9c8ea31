//! Pods, made through the CRI of the node's containerd, as a kubelet does.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use containerd_client::tonic::transport::Channel;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
};
use ringfence_containers::{CRI_NAMESPACE, Container, ContainerEvent, Kind, cgroup_names};

use super::follower::Follower;
use super::{IMAGE, is_alive};
use crate::harness::{Image, Node};

const UID: &str = "0c5e7a2e-1f4b-4f6e-9d8a-7b6c5d4e3f2a";

/// A pod with one container, and the ids of its sandbox and container.
struct Pod {
    client: RuntimeServiceClient<Channel>,
    sandbox: String,
    container: String,
}

fn node_for_pods() -> Result<Node> {
    let node = Node::start()?;
    node.import_for_pods(&Image::busybox(IMAGE).command(&["sleep", "600"]))?;
    Ok(node)
}

impl Pod {
    /// On the node's network: CRI is to need no plug-in here.
    fn run(node: &Node, follower: &Follower) -> Result<Self> {
        let channel = follower.wait(containerd_client::connect(node.socket()))?;
        let mut client = RuntimeServiceClient::new(channel);
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect::<HashMap<_, _>>()
        };
        // As the kubelet labels them.
        let kubelets = [
            ("io.kubernetes.pod.name", "web"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.uid", UID),
        ];
        let options = NamespaceOption { network: NamespaceMode::Node.into(), ..NamespaceOption::default() };
        let security =
            LinuxSandboxSecurityContext { namespace_options: Some(options), ..LinuxSandboxSecurityContext::default() };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                uid: UID.into(),
                namespace: "shop".into(),
                attempt: 0,
            }),
            labels: labels(&[&kubelets[..], &[("app", "web"), ("tier", "front")]].concat()),
            log_directory: node.directory().join("pod").display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}/pod{UID}", node.namespace()),
                security_context: Some(security),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        let run = RunPodSandboxRequest { config: Some(config.clone()), ..RunPodSandboxRequest::default() };
        let sandbox = follower.wait(client.run_pod_sandbox(run))?.into_inner().pod_sandbox_id;
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "nginx".into(), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.into(), ..ImageSpec::default() }),
            labels: labels(&[&kubelets[..], &[("io.kubernetes.container.name", "nginx")]].concat()),
            log_path: "nginx.log".into(),
            ..ContainerConfig::default()
        };
        let create = CreateContainerRequest {
            pod_sandbox_id: sandbox.clone(),
            config: Some(container),
            sandbox_config: Some(config),
        };
        let container = follower.wait(client.create_container(create))?.into_inner().container_id;
        let start = StartContainerRequest { container_id: container.clone() };
        follower.wait(client.start_container(start))?;
        Ok(Self { client, sandbox, container })
    }

    fn remove(mut self, follower: &Follower) -> Result<()> {
        let pod_sandbox_id = self.sandbox;
        let mut stop = || {
            follower
                .wait(self.client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }))
        };
        // A shim that ends while it is asked has closed its connection (containerd 1.6). A kubelet asks again, too.
        if stop().is_err_and(|error| error.to_string().contains("ttrpc: closed")) {
            stop()?;
        }
        follower.wait(self.client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }))?;
        Ok(())
    }

    /// What must be known of its sandbox and container, whoever tells.
    fn check(&self, sandbox: &Container, container: &Container, node: &Node) -> Result<()> {
        let labels: BTreeMap<String, String> =
            [("app", "web"), ("tier", "front")].into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        for (known, kind, name) in [(sandbox, Kind::Sandbox, "web"), (container, Kind::PodContainer, "nginx")] {
            ensure!(known.kind == kind && known.name == name, "{known:?}");
            ensure!(*known.selector_labels() == labels, "{known:?}");
            let pod = known.pod.as_ref().context("no pod")?;
            let told = (pod.name.as_str(), pod.namespace.as_str(), pod.uid.as_str(), pod.sandbox.as_str());
            ensure!(told == ("web", "shop", UID, self.sandbox.as_str()), "{pod:?}");
            let path = format!("/{}/pod{UID}/{}", node.namespace(), known.key.id);
            ensure!(known.cgroups_path == path && cgroup_names(known) == [known.key.id.clone()], "{known:?}");
        }
        Ok(())
    }
}

/// containerd's metadata have the pod's labels: no CRI is needed.
pub fn by_containerd() -> Result<()> {
    let node = node_for_pods()?;
    let mut follower = Follower::containerd(&node, &["k8s.io"])?;
    follower.until_synced()?;
    let pod = Pod::run(&node, &follower)?;
    let sandbox = follower.until_known(&pod.sandbox)?;
    let container = follower.until_known(&pod.container)?;
    pod.check(&sandbox, &container, &node)?;
    let pid = follower.until(|event| match event {
        ContainerEvent::Started { key, pid } if key.id == pod.container => Some(*pid),
        _ => None,
    })?;
    // Who comes later is told the same.
    let mut second = Follower::containerd(&node, &["k8s.io"])?;
    pod.check(&second.until_known(&pod.sandbox)?, &second.until_known(&pod.container)?, &node)?;
    follower.wait(follower.runtime().stop(&container.key))?;
    follower
        .until(|event| matches!(event, ContainerEvent::Exited { pid: ended, .. } if *ended == pid).then_some(()))?;
    ensure!(!is_alive(pid), "{pid} is alive");
    pod.remove(&follower)
}

/// The same by the CRI, for runtimes that have nothing else.
pub fn by_cri() -> Result<()> {
    let node = node_for_pods()?;
    let mut follower = Follower::cri(&node)?;
    follower.until_synced()?;
    let pod = Pod::run(&node, &follower)?;
    let sandbox = follower.until_known(&pod.sandbox)?;
    let container = follower.until_known(&pod.container)?;
    pod.check(&sandbox, &container, &node)?;
    ensure!(container.key.namespace == CRI_NAMESPACE && container.image == IMAGE, "{container:?}");
    let pid = follower.until(|event| match event {
        ContainerEvent::Started { key, pid } if key.id == pod.container => Some(*pid),
        _ => None,
    })?;
    ensure!(is_alive(pid), "{pid} is not alive");
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    ensure!(cgroups.contains(&container.cgroups_path), "{cgroups}");
    follower.wait(follower.runtime().stop(&container.key))?;
    follower
        .until(|event| matches!(event, ContainerEvent::Exited { pid: ended, .. } if *ended == pid).then_some(()))?;
    follower.wait(follower.runtime().stop(&sandbox.key))?;
    ensure!(!is_alive(pid), "{pid} is alive");
    pod.remove(&follower)?;
    follower.until(|event| matches!(event, ContainerEvent::Removed(key) if *key == sandbox.key).then_some(()))
}
