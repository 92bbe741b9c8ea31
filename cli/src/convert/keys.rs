//! Which value of the other product's charts (of Vision One, and of Cloud One before it) is which of ours.
//!
//! `docs/migration.md` has every row of [`TABLE`] that has an equivalent, in the same words.

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The same value, at each of these places. Later rows win over earlier ones.
    Becomes(Kind, &'static [&'static str]),
    /// Another value.
    By(Conversion),
    /// Nothing, for this reason.
    Left(&'static str),
}

/// What a value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Number,
    Text,
    List,
    Map,
    OneOf(&'static [&'static str]),
}

/// How a value is made from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// Names of namespaces that are not governed.
    Namespaces,
    /// Beginnings of such names, which count on `OpenShift` alone.
    Prefixes,
    /// Namespaces whose pods do not wait for the webhook.
    Selector,
    /// Whether anything is done about violations.
    Mitigation,
    /// Name of a Secret.
    PullSecret,
    /// How much is logged, as the variable of this name in the list at this place.
    LogLevel(&'static str, &'static str),
    /// Socket of a container runtime of this kind.
    Socket(&'static str),
    /// Whether there is an admission webhook.
    Webhook,
}

impl Conversion {
    /// Where it goes.
    pub fn target(self) -> &'static str {
        match self {
            Self::Namespaces | Self::Prefixes => "policy.excludedNamespaces",
            Self::Selector => "webhook.skipNamespaces",
            Self::Mitigation => "policy.maxMitigation",
            Self::PullSecret => "image.pullSecrets",
            Self::LogLevel(_, target) => target,
            Self::Socket(_) => "runtimeSecurity.runtime",
            Self::Webhook => "",
        }
    }
}

/// Where a component's pods run and what they have: the same for each kind of setting.
const COMPONENTS: [&str; 22] = [
    "admissionController",
    "apiServerModifier",
    "auditLogCollector",
    "complianceScanJob",
    "complianceScanner",
    "downloader",
    "falco",
    "falcoversion",
    "fargateInjector",
    "jobManager",
    "k8sMetaCollector",
    "malwareScanner",
    "oversight",
    "pdig",
    "policyOperator",
    "rbacProxy",
    "runtimeRuleloader",
    "scanJob",
    "scanManager",
    "scanner",
    "scout",
    "usage",
];

const NO_CLOUD: &str = "nothing outside of the cluster takes part";
const NO_COMPONENT: &str = "there is no such component here";
const NO_SCANS: &str = "Ringfence does not scan: it watches what runs";
const OWN_CERTIFICATE: &str = "the webhook has an authority of its own, or webhook.certificate";
const OTHER_IMAGES: &str = "an image of the other product; ours: webhook.image, runtimeSecurity.image";
const NOT_MEASURED_FOR_US: &str = "measured for other programs; ours: webhook.resources, runtimeSecurity.resources";
const OWN_CONTEXT: &str = "of other programs; ours: webhook.securityContext, runtimeSecurity.securityContext";
const OWN_RULES: &str = "Falco rules of one's own have no equivalent";
const ONE_RUNTIME: &str = "one runtime is watched, that of `platform` or runtimeSecurity.runtime";
const FALCO: &str = "there is no Falco here";

use Conversion::{LogLevel, Mitigation, Namespaces, Prefixes, PullSecret, Selector, Socket, Webhook};
use Fate::{Becomes, By, Left};

const LIST: Kind = Kind::List;
const MAP: Kind = Kind::Map;

/// All keys. `visionOne` stands for `cloudOne` too, `@` for one of the components, `**` at the end for what is below,
/// which is of no concern then.
pub const TABLE: &[(&str, Fate)] = &[
    ("visionOne.runtimeSecurity.enabled", Becomes(Kind::Bool, &["runtimeSecurity.enabled"])),
    ("visionOne.runtimeSecurity.customRules.**", Left(OWN_RULES)),
    ("visionOne.exclusion.namespaces", By(Namespaces)),
    ("visionOne.exclusion.osNsPrefixes", By(Prefixes)),
    ("visionOne.policyOperator.clusterPolicyName", Becomes(Kind::Text, &["policy.active"])),
    ("visionOne.policyOperator.enableRuntimeMitigation", By(Mitigation)),
    ("visionOne.policyOperator.enableNetworkPolicyCreation", Left("isolation needs no NetworkPolicy")),
    ("visionOne.policyOperator.**", Left(NO_COMPONENT)),
    ("visionOne.admissionController.enabled", By(Webhook)),
    (
        "visionOne.admissionController.failurePolicy",
        Becomes(Kind::OneOf(&["Ignore", "Fail"]), &["webhook.failurePolicy"]),
    ),
    ("visionOne.admissionController.validationNamespaceSelector", By(Selector)),
    ("visionOne.admissionController.webhookTimeoutSeconds", Left("it is 5 s, always")),
    ("visionOne.admissionController.certificate.**", Left(OWN_CERTIFICATE)),
    ("visionOne.admissionController.logLevel", By(LogLevel("RUST_LOG", "webhook.env"))),
    ("visionOne.admissionController.scannerValidation", Left(NO_SCANS)),
    ("visionOne.admissionController.trustedScanOperators", Left(NO_SCANS)),
    ("visionOne.admissionController.readPullSecretsFrom", Left("signatures of images are not checked")),
    ("visionOne.oversight.enableNetworkPolicyCreation", Left("isolation needs no NetworkPolicy")),
    ("visionOne.oversight.**", Left(NO_COMPONENT)),
    ("visionOne.apiKey", Left(NO_CLOUD)),
    ("visionOne.bootstrapToken", Left(NO_CLOUD)),
    ("visionOne.endpoint", Left(NO_CLOUD)),
    ("visionOne.clusterName", Left(NO_CLOUD)),
    ("visionOne.clusterNamePrefix", Left(NO_CLOUD)),
    ("visionOne.clusterRegistrationKey", Left(NO_CLOUD)),
    ("visionOne.policyId", Left(NO_CLOUD)),
    ("visionOne.groupId", Left(NO_CLOUD)),
    ("visionOne.inventoryCollection.**", Left(NO_CLOUD)),
    ("visionOne.fipsMode.**", Left("there are no images with FIPS 140 cryptography")),
    (
        "visionOne.gkeAllowlistSynchronizer.**",
        Left("the allow-list of our pod is another one: gkeAutopilot.allowlisted"),
    ),
    ("visionOne.complianceScan.**", Left(NO_SCANS)),
    ("visionOne.fileIntegrityMonitoring.**", Left("rules about files take its place")),
    ("visionOne.malwareScanning.**", Left(NO_SCANS)),
    ("visionOne.scanManager.**", Left(NO_SCANS)),
    ("visionOne.secretScanning.**", Left(NO_SCANS)),
    ("visionOne.vulnerabilityScanning.**", Left(NO_SCANS)),
    ("visionOne.apiServerModifier.**", Left(NO_COMPONENT)),
    ("visionOne.auditLogCollector.**", Left(NO_COMPONENT)),
    ("visionOne.fargateInjector.**", Left("nodes without a kernel of their own are not enforced")),
    ("visionOne.k8sMetaCollector.**", Left(NO_COMPONENT)),
    ("visionOne.kubeRbacProxy.**", Left(NO_COMPONENT)),
    ("visionOne.workloadOperator.**", Left(NO_COMPONENT)),
    ("visionOne.experimental.**", Left("nothing here is experimental by a value")),
    ("tolerations.defaults", Becomes(LIST, &["runtimeSecurity.tolerations", "webhook.tolerations"])),
    ("tolerations.scout", Becomes(LIST, &["runtimeSecurity.tolerations"])),
    ("tolerations.admissionController", Becomes(LIST, &["webhook.tolerations"])),
    ("tolerations.@", Left(NO_COMPONENT)),
    ("tolerations.inheritTolerationsScanner", Left(NO_SCANS)),
    ("tolerations.filterTolerationsScanner", Left(NO_SCANS)),
    ("nodeSelector.defaults", Becomes(MAP, &["runtimeSecurity.nodeSelector", "webhook.nodeSelector"])),
    ("nodeSelector.scout", Becomes(MAP, &["runtimeSecurity.nodeSelector"])),
    ("nodeSelector.admissionController", Becomes(MAP, &["webhook.nodeSelector"])),
    ("nodeSelector.@", Left(NO_COMPONENT)),
    ("nodeSelector.inheritNodeSelectorScanner", Left(NO_SCANS)),
    ("nodeSelector.filterNodeSelectorScanner", Left(NO_SCANS)),
    ("affinity.defaults", Becomes(MAP, &["runtimeSecurity.affinity", "webhook.affinity"])),
    ("affinity.scout", Becomes(MAP, &["runtimeSecurity.affinity"])),
    ("affinity.admissionController", Becomes(MAP, &["webhook.affinity"])),
    ("affinity.@", Left(NO_COMPONENT)),
    (
        "priorityClassName.default",
        Becomes(Kind::Text, &["runtimeSecurity.priorityClassName", "webhook.priorityClassName"]),
    ),
    ("priorityClassName.scout", Becomes(Kind::Text, &["runtimeSecurity.priorityClassName"])),
    ("priorityClassName.admissionController", Becomes(Kind::Text, &["webhook.priorityClassName"])),
    ("priorityClassName.@", Left(NO_COMPONENT)),
    ("podAnnotations.defaults", Becomes(MAP, &["runtimeSecurity.podAnnotations", "webhook.podAnnotations"])),
    ("podAnnotations.scout", Becomes(MAP, &["runtimeSecurity.podAnnotations"])),
    ("podAnnotations.admissionController", Becomes(MAP, &["webhook.podAnnotations"])),
    ("podAnnotations.@", Left(NO_COMPONENT)),
    ("extraLabels", Becomes(MAP, &["runtimeSecurity.podLabels", "webhook.podLabels"])),
    ("replicas.admissionController", Becomes(Kind::Number, &["webhook.replicas"])),
    ("replicas.@", Left(NO_COMPONENT)),
    ("resources.**", Left(NOT_MEASURED_FOR_US)),
    ("images.defaults.registry", Becomes(Kind::Text, &["image.registry"])),
    ("images.defaults.pullPolicy", Becomes(Kind::OneOf(&["Always", "IfNotPresent", "Never"]), &["image.pullPolicy"])),
    ("images.defaults.imagePullSecret", By(PullSecret)),
    ("images.defaults.project", Left(OTHER_IMAGES)),
    ("images.defaults.tag", Left(OTHER_IMAGES)),
    ("images.@.**", Left(OTHER_IMAGES)),
    ("images.workloadOperator.**", Left(OTHER_IMAGES)),
    ("proxy.httpProxy", Becomes(Kind::Text, &["proxy.httpProxy"])),
    ("proxy.httpsProxy", Becomes(Kind::Text, &["proxy.httpsProxy"])),
    ("proxy.noProxy", Becomes(Kind::Text, &["proxy.noProxy"])),
    ("proxy.username", Left("no component speaks to anything but the API server, and to that never by proxy")),
    ("proxy.password", Left("no component speaks to anything but the API server, and to that never by proxy")),
    ("proxy.excludeKubernetesServiceHost", Left("it is excluded, always")),
    ("proxy.selfSignedCertificates.**", Left(NO_CLOUD)),
    ("scout.falco.containerd.socket", By(Socket("containerd"))),
    ("scout.falco.k3s.socket", By(Socket("containerd"))),
    ("scout.falco.k0s.socket", By(Socket("containerd"))),
    ("scout.falco.crio.socket", By(Socket("cri"))),
    ("scout.falco.cri.socket", By(Socket("cri"))),
    ("scout.falco.docker.**", Left("Docker is watched through its containerd")),
    ("scout.falco.dockershim.**", Left("Docker is watched through its containerd")),
    ("scout.falco.containerd.enabled", Left(ONE_RUNTIME)),
    ("scout.falco.k3s.enabled", Left(ONE_RUNTIME)),
    ("scout.falco.k0s.enabled", Left(ONE_RUNTIME)),
    ("scout.falco.crio.enabled", Left(ONE_RUNTIME)),
    ("scout.falco.cri.enabled", Left(ONE_RUNTIME)),
    ("scout.falco.sanitizer_output.**", Left("events are not rewritten")),
    ("scout.falco.**", Left(FALCO)),
    ("scout.scout.logLevel", By(LogLevel("RINGFENCE_LOG", "runtimeSecurity.env"))),
    ("scout.scout.**", Left(FALCO)),
    ("scout.downloader.**", Left("nothing is downloaded to nodes")),
    ("scout.excludeSameNamespace", Left("our own namespace is never governed")),
    ("scout.hostNetwork", Left("an enforcer is in its node's network, always")),
    ("securityContext.**", Left(OWN_CONTEXT)),
    ("securityContextConstraints.**", Left("platform: openshift makes them")),
    ("serviceAccount.**", Left("the accounts are part of the chart")),
    ("rbac.**", Left("the rights are part of the chart")),
    ("networkPolicy.**", Left("no NetworkPolicy is made")),
    ("logConfig.**", Left("logs have one form; RUST_LOG in webhook.env, RINGFENCE_LOG in runtimeSecurity.env")),
    ("tlsConfig.**", Left("TLS 1.2 and 1.3 with safe suites, always")),
    ("telemetry.**", Left(NO_CLOUD)),
    ("auditLogCollection.**", Left(NO_COMPONENT)),
    ("malwareScanner.**", Left(NO_SCANS)),
    ("secretScanner.**", Left(NO_SCANS)),
    ("scanner.**", Left(NO_SCANS)),
    ("runtimeRuleloader.**", Left(OWN_RULES)),
    ("serviceGateway.**", Left(NO_CLOUD)),
    ("spc.**", Left(NO_CLOUD)),
    ("useExistingSecrets.**", Left(NO_CLOUD)),
];

/// Where a path stands in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It has a row: its number.
    Row(usize),
    /// There are rows below it.
    Above,
    /// Nobody knows it.
    Unknown,
}

/// Looks a path up.
pub fn find(path: &[&str]) -> Found {
    let path: Vec<_> = normal(path).collect();
    let above = TABLE.iter().any(|(pattern, _)| {
        let mut parts = pattern.split('.');
        path.iter().all(|part| parts.next().is_some_and(|pattern| part_matches(pattern, part)))
            && parts.next().is_some_and(|part| part != "**")
    });
    let row = TABLE.iter().position(|(pattern, _)| matches(pattern, &path));
    match row {
        _ if above => Found::Above,
        Some(row) => Found::Row(row),
        None => Found::Unknown,
    }
}

/// The words that may stand at the end of a path like this.
pub fn known_beside(path: &[&str]) -> Vec<&'static str> {
    let path: Vec<_> = normal(path).collect();
    let Some((_, above)) = path.split_last() else { return Vec::new() };
    let mut known = Vec::new();
    for (pattern, _) in TABLE {
        let mut parts = pattern.split('.');
        if above.iter().all(|part| parts.next().is_some_and(|pattern| part_matches(pattern, part))) {
            match parts.next() {
                Some("@") => known.extend(COMPONENTS),
                Some("**") | None => {}
                Some(word) => known.push(word),
            }
        }
    }
    known
}

fn normal<'a>(path: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    path.iter().enumerate().map(|(number, part)| if number == 0 && *part == "cloudOne" { "visionOne" } else { *part })
}

fn matches(pattern: &str, path: &[&str]) -> bool {
    let (pattern, open) = pattern.strip_suffix(".**").map_or((pattern, false), |pattern| (pattern, true));
    let parts: Vec<_> = pattern.split('.').collect();
    let long_enough = if open { path.len() >= parts.len() } else { path.len() == parts.len() };
    long_enough && parts.iter().zip(path).all(|(pattern, part)| part_matches(pattern, part))
}

fn part_matches(pattern: &str, part: &str) -> bool {
    if pattern == "@" { COMPONENTS.contains(&part) } else { pattern == part }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(path: &str) -> Option<Fate> {
        match find(&path.split('.').collect::<Vec<_>>()) {
            Found::Row(row) => Some(TABLE[row].1),
            _ => None,
        }
    }

    #[test]
    fn paths_are_found() {
        assert_eq!(fate("cloudOne.runtimeSecurity.enabled"), fate("visionOne.runtimeSecurity.enabled"));
        assert_eq!(fate("tolerations.scanner"), Some(Left(NO_COMPONENT)));
        assert_eq!(fate("tolerations.scaner"), None);
        assert_eq!(fate("resources"), Some(Left(NOT_MEASURED_FOR_US)));
        assert_eq!(find(&["visionOne"]), Found::Above);
        assert_eq!(find(&["visionTwo"]), Found::Unknown);
        assert_eq!(find(&["visionOne", "runtimeSecurity", "enabled", "x"]), Found::Unknown);
        // The rows with more to say come first.
        assert_ne!(fate("visionOne.policyOperator.clusterPolicyName"), fate("visionOne.policyOperator.servicePort"));
        assert_eq!(find(&["visionOne", "policyOperator"]), Found::Above);
    }

    #[test]
    fn the_document_has_every_key_with_an_equivalent() {
        let document = include_str!("../../../docs/migration.md");
        for (pattern, fate) in TABLE {
            let targets = match fate {
                Becomes(_, targets) => targets.to_vec(),
                By(conversion) if !conversion.target().is_empty() => vec![conversion.target()],
                _ => continue,
            };
            let targets = targets.iter().map(|target| format!("`{target}`")).collect::<Vec<_>>().join(", ");
            let row = format!("| `{pattern}` | {targets} |");
            assert!(document.contains(&row), "docs/migration.md lacks: {row}");
        }
    }
}
