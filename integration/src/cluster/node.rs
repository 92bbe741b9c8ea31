//! The node: containerd, the kubelet, kube-proxy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::component::{Launch, Place};
use super::network::{DNS_SERVICE, NODE_ADDRESS, PODS};
use super::pki::Pki;
use super::version::{Programs, Version};
use crate::harness::{CNI_PLUGINS, SANDBOX_IMAGE};

/// The node's name in the cluster.
pub const NODE_NAME: &str = "node1";

/// Inside, where every node has it.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// containerd's socket outside of the node's mount namespace.
pub fn socket(state: &Path) -> PathBuf {
    state.join("run/containerd.sock")
}

/// containerd. Its root and state are where every node has them.
pub fn containerd(programs: &Programs, state: &Path) -> Result<Launch> {
    let cni = state.join("cni");
    fs::create_dir_all(&cni)?;
    fs::write(cni.join(NETWORK), network_config(PODS).to_string())?;
    let config = state.join("containerd.toml");
    fs::write(&config, containerd_config(&cni, &state.join("opt"))?)?;
    let arguments = vec!["--config".into(), config.display().to_string()];
    // Its shim is the one that belongs to it, not another one of this machine's.
    let folder = programs.containerd.clone();
    Ok(Launch {
        name: "containerd",
        program: folder.join("containerd"),
        arguments,
        path: Some(folder),
        place: Place::Node,
    })
}

/// The file of [`network_config`].
pub const NETWORK: &str = "10-pods.conflist";

/// The pods' network of a node, as the CNI plug-ins want to be told.
pub fn network_config(pods: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    })
}

/// The folder of this machine's CNI plug-ins.
pub fn network_plugins() -> Result<&'static Path> {
    let folder = CNI_PLUGINS.into_iter().map(Path::new).find(|folder| folder.join("bridge").is_file());
    folder.context("no CNI plug-ins: install containernetworking-plugins")
}

/// Configuration version 2, which containerd 1.6 and 2 read.
///
/// Without `restrict_oom_score_adj` no pod starts where root lacks `CAP_SYS_RESOURCE`.
pub fn containerd_config(cni: &Path, opt: &Path) -> Result<String> {
    let (cni, opt, plugins) = (cni.display(), opt.display(), network_plugins()?.display());
    Ok(format!(
        r#"version = 2
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{cni}"
"#
    ))
}

/// The kubelet.
pub fn kubelet(version: Version, programs: &Programs, pki: &Pki, state: &Path) -> Result<Launch> {
    let resolver = state.join("resolv.conf");
    fs::write(&resolver, resolver_config())?;
    let kubelet = Kubelet {
        node: NODE_NAME,
        address: NODE_ADDRESS,
        authority: &pki.path("ca.crt"),
        kubeconfig: &pki.kubeconfig("kubelet"),
        resolver: &resolver,
    };
    let file = state.join("kubelet.yaml");
    let mut config = kubelet.config(version);
    let static_pods = static_pods(state);
    fs::create_dir(&static_pods)?;
    config["staticPodPath"] = json!(static_pods);
    fs::write(&file, config.to_string())?;
    let arguments = kubelet.arguments(version, &file);
    let program = programs.kubernetes.join("kubelet");
    Ok(Launch { name: "kubelet", program, arguments, path: None, place: Place::Kubelet })
}

/// The folder of its static pods.
pub fn static_pods(state: &Path) -> PathBuf {
    state.join("static-pods")
}

/// What pods are told of a resolver.
pub fn resolver_config() -> String {
    format!("nameserver {DNS_SERVICE}\n")
}

/// A node's kubelet: what differs between nodes.
#[derive(Debug)]
pub struct Kubelet<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Its address.
    pub address: &'a str,
    /// The certificate of the cluster's authority.
    pub authority: &'a str,
    /// Its kubeconfig.
    pub kubeconfig: &'a str,
    /// The file with [`resolver_config`].
    pub resolver: &'a Path,
}

impl Kubelet<'_> {
    /// Its configuration.
    pub fn config(&self, version: Version) -> Value {
        let mut config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "failSwapOn": false,
            "address": self.address,
            // Root may lack CAP_SYS_RESOURCE.
            "oomScoreAdj": 0,
            "maxOpenFiles": 20000,
            "makeIPTablesUtilChains": false,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            // Nothing is evicted, and no image deleted, because a test machine's disk is full.
            "evictionHard": {
                "memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            // A Secret that changed is in its pods' files so soon.
            "syncFrequency": "10s",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.authority},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS_SERVICE],
            "resolvConf": self.resolver,
        });
        let (more, _) = version.kubelet(&format!("unix://{SOCKET}"));
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    /// Its arguments, with its configuration in a file.
    pub fn arguments(&self, version: Version, config: &Path) -> Vec<String> {
        let (_, further) = version.kubelet(&format!("unix://{SOCKET}"));
        let mut arguments = vec![
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", self.kubeconfig),
            format!("--hostname-override={}", self.node),
            format!("--node-ip={}", self.address),
        ];
        arguments.extend(further);
        arguments
    }
}

/// kube-proxy.
pub fn kube_proxy(programs: &Programs, pki: &Pki, state: &Path) -> Result<Launch> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": pki.kubeconfig("proxy")},
        "clusterCIDR": PODS,
        "hostnameOverride": NODE_NAME,
        // The machine's own limits are left alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    });
    let file = state.join("kube-proxy.yaml");
    fs::write(&file, config.to_string())?;
    let arguments = vec![format!("--config={}", file.display())];
    let program = programs.kubernetes.join("kube-proxy");
    Ok(Launch { name: "kube-proxy", program, arguments, path: None, place: Place::Node })
}
