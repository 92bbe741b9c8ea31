//! Certificates and kubeconfigs of a cluster.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::network::{API_PORT, API_SERVICE, NODE_ADDRESS};
use super::node::NODE_NAME;
use super::second_node::SECOND_NODE;

/// The folder of all keys, certificates and kubeconfigs.
pub struct Pki(PathBuf);

/// The second node's kubelet, as a user.
pub const SECOND_KUBELET: &str = "second-kubelet";

type Authority = CertifiedIssuer<'static, KeyPair>;

/// The user of the administrator's kubeconfig.
pub const ADMINISTRATOR: &str = "admin";

/// Who has a kubeconfig: file, user, groups.
const USERS: [(&str, &str, &[&str]); 6] = [
    ("admin", ADMINISTRATOR, &["system:masters"]),
    ("controller-manager", "system:kube-controller-manager", &[]),
    ("scheduler", "system:kube-scheduler", &[]),
    ("proxy", "system:kube-proxy", &[]),
    ("kubelet", NODE_NAME, &["system:nodes"]),
    (SECOND_KUBELET, SECOND_NODE, &["system:nodes"]),
];

impl Pki {
    /// Makes everything, in a new folder.
    pub fn create(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let pki = Self(folder);
        let cluster = pki.authority("ca")?;
        pki.server(&cluster)?;
        pki.client(&cluster, "kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"])?;
        for (file, user, groups) in USERS {
            let user = if groups.contains(&"system:nodes") { format!("system:node:{user}") } else { user.to_owned() };
            pki.client(&cluster, file, &user, groups)?;
            pki.write_kubeconfig(file)?;
        }
        let front_proxy = pki.authority("front-proxy-ca")?;
        pki.client(&front_proxy, "front-proxy-client", "front-proxy-client", &[])?;
        let tokens = KeyPair::generate()?;
        pki.write("service-accounts.key", &tokens.serialize_pem())?;
        pki.write("service-accounts.pub", &tokens.public_key_pem())?;
        Ok(pki)
    }

    /// What was made in a folder.
    pub fn of(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Of a file in it, such as `ca.crt`.
    pub fn path(&self, file: &str) -> String {
        self.0.join(file).display().to_string()
    }

    /// A user's kubeconfig.
    pub fn kubeconfig(&self, user: &str) -> String {
        self.path(&format!("{user}.conf"))
    }

    fn authority(&self, name: &str) -> Result<Authority> {
        let mut parameters = parameters(name, &[]);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?;
        self.write(&format!("{name}.crt"), &authority.pem())?;
        self.write(&format!("{name}.key"), &authority.key().serialize_pem())?;
        Ok(authority)
    }

    fn server(&self, authority: &Authority) -> Result<()> {
        let mut parameters = parameters("kube-apiserver", &[]);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
            parameters.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        let addresses = ["127.0.0.1", API_SERVICE, NODE_ADDRESS].map(str::parse::<IpAddr>);
        for address in addresses {
            parameters.subject_alt_names.push(SanType::IpAddress(address?));
        }
        self.sign(authority, "apiserver", &parameters)
    }

    fn client(&self, authority: &Authority, file: &str, user: &str, groups: &[&str]) -> Result<()> {
        let mut parameters = parameters(user, groups);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(authority, file, &parameters)
    }

    fn sign(&self, authority: &Authority, file: &str, parameters: &CertificateParams) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, authority).with_context(|| format!("sign {file}"))?;
        self.write(&format!("{file}.crt"), &certificate.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    fn write_kubeconfig(&self, user: &str) -> Result<()> {
        let (authority, certificate) = (self.path("ca.crt"), self.path(&format!("{user}.crt")));
        let key = self.path(&format!("{user}.key"));
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "ringfence", "cluster": {
                "server": format!("https://{NODE_ADDRESS}:{API_PORT}"), "certificate-authority": authority,
            }}],
            "users": [{"name": user, "user": {"client-certificate": certificate, "client-key": key}}],
            "contexts": [{"name": "ringfence", "context": {"cluster": "ringfence", "user": user}}],
            "current-context": "ringfence",
        });
        self.write(&format!("{user}.conf"), &format!("{config:#}\n"))
    }

    fn write(&self, file: &str, content: &str) -> Result<()> {
        use std::io::Write as _;
        let path = self.0.join(file);
        let mut options = fs::OpenOptions::new();
        let mut opened = options.write(true).create_new(true).mode(0o600).open(&path).with_context(|| shown(&path))?;
        opened.write_all(content.as_bytes()).with_context(|| shown(&path))
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn parameters(user: &str, groups: &[&str]) -> CertificateParams {
    // Valid for ever, so that the clock of a test machine may be anything.
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, user);
    for group in groups {
        parameters.distinguished_name.push(DnType::OrganizationName, *group);
    }
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters
}
