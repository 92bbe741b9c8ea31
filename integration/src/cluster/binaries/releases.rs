//! Which releases there are.

use super::{Release, Source};

/// Kubernetes' programs and their packages. The first one costs the most: all share most of their packages.
const KUBERNETES: &[(&str, &str)] = &[
    ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
];

/// Kubernetes, the newest.
pub const KUBERNETES_1_37: Release = Release {
    name: "kubernetes",
    source: Source::Module("k8s.io/kubernetes"),
    version: "1.37.2",
    programs: KUBERNETES,
    variables: |version| kubernetes_version(version, ""),
};

/// Kubernetes, one in between.
pub const KUBERNETES_1_34: Release = Release { version: "1.34.4", ..KUBERNETES_1_37 };

/// Kubernetes, the oldest.
pub const KUBERNETES_1_20: Release = Release {
    name: "kubernetes",
    source: Source::Debian("kubernetes"),
    version: "1.20.2",
    programs: KUBERNETES,
    variables: |version| kubernetes_version(version, "k8s.io/kubernetes/vendor/"),
};

/// What Kubernetes says of itself; its libraries are in packages that begin with `libraries`.
fn kubernetes_version(version: &str, libraries: &str) -> Vec<(String, String)> {
    let packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
    let variables = packages.map(|package| {
        let (major, minor) = major_minor(version);
        [
            ("gitVersion", format!("v{version}")),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean".to_owned()),
        ]
        .map(|(name, value)| (format!("{libraries}{package}.{name}"), value))
    });
    variables.into_iter().flatten().collect()
}

/// containerd.
pub const CONTAINERD: Release = Release {
    name: "containerd",
    source: Source::Module("github.com/containerd/containerd/v2"),
    version: "2.4.2",
    programs: &[
        ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
        ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
        ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    ],
    variables: |version| vec![("github.com/containerd/containerd/v2/version.Version".into(), format!("v{version}"))],
};

/// etcd.
pub const ETCD: Release = Release {
    name: "etcd",
    source: Source::Module("go.etcd.io/etcd/server/v3"),
    version: "3.7.3",
    programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
    variables: |_| Vec::new(),
};

/// Helm 3.
pub const HELM_3: Release = Release {
    name: "helm3",
    source: Source::Module("helm.sh/helm/v3"),
    version: "3.22.0",
    programs: &[("helm3", "helm.sh/helm/v3/cmd/helm")],
    variables: |version| {
        // Built in any other way, it takes every cluster that it cannot ask for Kubernetes 1.20.
        let (major, minor) = major_minor(KUBERNETES_1_37.version);
        let packages = ["helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules"];
        let kubernetes = packages.into_iter().flat_map(|package| {
            [
                (format!("{package}.k8sVersionMajor"), major.clone()),
                (format!("{package}.k8sVersionMinor"), minor.clone()),
            ]
        });
        kubernetes.chain([("helm.sh/helm/v3/internal/version.version".to_owned(), format!("v{version}"))]).collect()
    },
};

/// Helm 4.
pub const HELM_4: Release = Release {
    name: "helm4",
    source: Source::Module("helm.sh/helm/v4"),
    version: "4.3.1",
    programs: &[("helm4", "helm.sh/helm/v4/cmd/helm")],
    variables: |version| vec![("helm.sh/helm/v4/internal/version.version".into(), format!("v{version}"))],
};

/// cert-manager: the last one whose programs are packages of its one module.
pub const CERT_MANAGER: Release = Release {
    name: "cert-manager",
    source: Source::Module("github.com/cert-manager/cert-manager"),
    version: "1.11.5",
    programs: &[
        ("controller", "github.com/cert-manager/cert-manager/cmd/controller"),
        ("cainjector", "github.com/cert-manager/cert-manager/cmd/cainjector"),
    ],
    variables: |_| Vec::new(),
};

fn major_minor(version: &str) -> (String, String) {
    let mut parts = version.split('.').map(str::to_owned);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helm_3_knows_the_kubernetes_that_it_is_used_with() {
        let (_, minor) = major_minor(KUBERNETES_1_37.version);
        assert!(HELM_3.linker_flags().contains(&format!("pkg/chartutil.k8sVersionMinor={minor}")));
    }
}
