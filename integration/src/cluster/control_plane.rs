//! etcd, the API server, the controller manager and the scheduler. They listen in the cluster's own network namespace.

use std::path::Path;

use super::component::{Launch, Place};
use super::network::{API_PORT, NODE_ADDRESS, SERVICES};
use super::pki::Pki;
use super::version::Programs;

const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";

/// etcd, which need not outlive a power failure.
pub fn etcd(programs: &Programs, state: &Path) -> Launch {
    let data = state.join("etcd").display().to_string();
    launch(
        "etcd",
        &programs.etcd,
        &[
            ("data-dir", &data),
            ("listen-client-urls", ETCD),
            ("advertise-client-urls", ETCD),
            ("listen-peer-urls", ETCD_PEERS),
            ("initial-advertise-peer-urls", ETCD_PEERS),
            ("initial-cluster", &format!("default={ETCD_PEERS}")),
            ("unsafe-no-fsync", "true"),
        ],
    )
}

/// The API server. `more` comes after its usual arguments.
pub fn api_server(programs: &Programs, pki: &Pki, more: &[String]) -> Launch {
    let mut launch = launch(
        "kube-apiserver",
        &programs.kubernetes,
        &[
            ("etcd-servers", ETCD),
            ("secure-port", &API_PORT.to_string()),
            ("advertise-address", NODE_ADDRESS),
            ("service-cluster-ip-range", SERVICES),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("allow-privileged", "true"),
            ("client-ca-file", &pki.path("ca.crt")),
            ("tls-cert-file", &pki.path("apiserver.crt")),
            ("tls-private-key-file", &pki.path("apiserver.key")),
            ("kubelet-client-certificate", &pki.path("kubelet-client.crt")),
            ("kubelet-client-key", &pki.path("kubelet-client.key")),
            ("kubelet-preferred-address-types", "InternalIP"),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("service-account-key-file", &pki.path("service-accounts.pub")),
            ("service-account-signing-key-file", &pki.path("service-accounts.key")),
            ("requestheader-client-ca-file", &pki.path("front-proxy-ca.crt")),
            ("requestheader-allowed-names", "front-proxy-client"),
            ("requestheader-username-headers", "X-Remote-User"),
            ("requestheader-group-headers", "X-Remote-Group"),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            ("proxy-client-cert-file", &pki.path("front-proxy-client.crt")),
            ("proxy-client-key-file", &pki.path("front-proxy-client.key")),
        ],
    );
    launch.arguments.extend_from_slice(more);
    launch
}

/// The controller manager.
pub fn controller_manager(programs: &Programs, pki: &Pki) -> Launch {
    let config = pki.kubeconfig("controller-manager");
    launch(
        "kube-controller-manager",
        &programs.kubernetes,
        &[
            ("kubeconfig", &config),
            ("authentication-kubeconfig", &config),
            ("authorization-kubeconfig", &config),
            ("bind-address", "127.0.0.1"),
            ("leader-elect", "false"),
            ("use-service-account-credentials", "true"),
            ("service-account-private-key-file", &pki.path("service-accounts.key")),
            ("root-ca-file", &pki.path("ca.crt")),
            ("cluster-signing-cert-file", &pki.path("ca.crt")),
            ("cluster-signing-key-file", &pki.path("ca.key")),
            ("flex-volume-plugin-dir", "/var/lib/kubelet/volume-plugins"),
        ],
    )
}

/// The scheduler.
pub fn scheduler(programs: &Programs, pki: &Pki) -> Launch {
    let config = pki.kubeconfig("scheduler");
    launch(
        "kube-scheduler",
        &programs.kubernetes,
        &[
            ("kubeconfig", &config),
            ("authentication-kubeconfig", &config),
            ("authorization-kubeconfig", &config),
            ("bind-address", "127.0.0.1"),
            ("leader-elect", "false"),
        ],
    )
}

fn launch(name: &'static str, folder: &Path, options: &[(&str, &str)]) -> Launch {
    let arguments = options.iter().map(|(option, value)| format!("--{option}={value}")).collect();
    Launch { name, program: folder.join(name), arguments, path: None, place: Place::Node }
}
