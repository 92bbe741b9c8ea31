//! The certificate that the API server sees. It can be replaced at any time; connections that exist keep theirs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tracing::{info, warn};

/// How often mounted files are read. Their kubelet replaces them by swapping a symbolic link, which a watch on the
/// files does not see.
const LOOK: Duration = Duration::from_secs(5);

/// The current certificate; none until there is a first one.
pub type Current = watch::Receiver<Option<Arc<CertifiedKey>>>;
/// Where a new one is put.
pub type Sender = watch::Sender<Option<Arc<CertifiedKey>>>;

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It is not PEM.
    #[error("the {what} is not PEM: {error}")]
    Pem {
        /// `certificate` or `key`.
        what: &'static str,
        /// What is wrong.
        error: rustls::pki_types::pem::Error,
    },
    /// There is no certificate in it.
    #[error("there is no certificate in it")]
    Empty,
    /// Certificate and key do not belong together, or are of no known kind.
    #[error("certificate and key: {0}")]
    Pair(#[from] rustls::Error),
    /// A file can't be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// A certificate with its chain and key, both PEM. They belong together or there is none.
pub fn pair(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, CertificateError> {
    let pem = |what| move |error| CertificateError::Pem { what, error };
    let chain =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(pem("certificate"))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(pem("key"))?;
    Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
}

/// TLS 1.2 and 1.3 with whatever certificate is current.
pub fn server_config(current: Current) -> Arc<ServerConfig> {
    #[derive(Debug)]
    struct Resolver(Current);

    impl ResolvesServerCert for Resolver {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            self.0.borrow().clone()
        }
    }

    let provider = Arc::new(ring::default_provider());
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions);
    let builder = builder.expect("ring has cipher suites for both").with_no_client_auth();
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(current)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// `tls.crt` and `tls.key` of a folder, as a Secret is mounted.
#[derive(Clone, Debug)]
pub struct Files(PathBuf);

impl Files {
    /// Of this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
        let read = |name| {
            let path = self.0.join(name);
            std::fs::read(&path).map_err(|error| CertificateError::Read { path, error })
        };
        Ok((read("tls.crt")?, read("tls.key")?))
    }

    /// Loads them, and loads them again whenever they change. What can't be used leaves the old one in place.
    /// An error: there is no first one.
    pub async fn follow(self, sender: Sender) -> Result<std::convert::Infallible, CertificateError> {
        let mut loaded = self.read()?;
        sender.send_replace(Some(Arc::new(pair(&loaded.0, &loaded.1)?)));
        loop {
            tokio::time::sleep(LOOK).await;
            let read = match self.read() {
                Ok(read) if read == loaded => continue,
                read => read,
            };
            match read.and_then(|read| Ok((pair(&read.0, &read.1)?, read))) {
                Ok((pair, read)) => {
                    info!(folder = %self.0.display(), "new certificate");
                    sender.send_replace(Some(Arc::new(pair)));
                    loaded = read;
                }
                Err(error) => warn!(folder = %self.0.display(), %error, "the old certificate stays"),
            }
        }
    }
}
