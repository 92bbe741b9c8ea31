//! What is kept, and what is done about it when. Pure but for random keys.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};

/// A certificate begins to hold so long ago: clocks differ.
const BACKDATED: SignedDuration = SignedDuration::from_mins(5);

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Of an authority. It is replaced after two thirds of it.
    pub authority: SignedDuration,
    /// Of a certificate. It is replaced after two thirds of it.
    pub certificate: SignedDuration,
    /// Between the steps in which an authority replaces another.
    pub pause: SignedDuration,
}

/// Why a certificate could not be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepingError {
    /// By the library.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Times out of range.
    #[error("cannot make a certificate for that time: {0}")]
    Time(#[from] k8s_openapi::jiff::Error),
    /// It cannot be written down.
    #[error("cannot write it down: {0}")]
    Json(#[from] serde_json::Error),
}

/// All that is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Keeping {
    /// Signs certificates.
    signing: Authority,
    /// Trusted beside it: the next one, or the one before.
    other: Option<Authority>,
    phase: Phase,
    /// When the phase began, as far as everybody may have seen it.
    since: Timestamp,
    leaf: Leaf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// One authority.
    Steady,
    /// The other is trusted, but has not signed anything.
    Introduced,
    /// The other does not sign any more, but is trusted.
    Replaced,
}

#[derive(Clone, Serialize, Deserialize)]
struct Authority {
    name: String,
    certificate: String,
    key: String,
    expires: Timestamp,
    renew: Timestamp,
}

#[derive(Clone, Serialize, Deserialize)]
struct Leaf {
    names: Vec<String>,
    certificate: String,
    key: String,
    renew: Timestamp,
}

/// What is to be done.
pub(super) enum Step {
    /// Nothing for so long.
    Wait(Duration),
    /// This is to be kept from now on; and what it is, for people.
    Save(Box<Keeping>, &'static str),
}

impl Keeping {
    /// PEM of the certificate that the webhook shows.
    pub fn certificate(&self) -> &str {
        &self.leaf.certificate
    }

    /// PEM of its key.
    pub fn key(&self) -> &str {
        &self.leaf.key
    }

    /// PEM of what is trusted, the older one first.
    pub fn bundle(&self) -> String {
        let (signing, other) = (&self.signing.certificate, self.other.as_ref().map_or("", |other| &other.certificate));
        if self.phase == Phase::Replaced { format!("{other}{signing}") } else { format!("{signing}{other}") }
    }

    /// Somebody had not seen the phase yet: its pause begins anew. Whether there is one.
    pub fn restart_pause(&mut self, now: Timestamp) -> bool {
        let pausing = self.phase != Phase::Steady;
        if pausing {
            self.since = now;
        }
        pausing
    }
}

/// What is due.
pub(super) fn next(
    keeping: Option<Keeping>,
    now: Timestamp,
    names: &[String],
    lifetimes: &Lifetimes,
) -> Result<Step, KeepingError> {
    let Some(mut keeping) = keeping.filter(|keeping| keeping.signing.expires > now) else {
        let signing = Authority::new(now, lifetimes)?;
        let leaf = Leaf::new(&signing, names, now, lifetimes)?;
        let keeping = Keeping { signing, other: None, phase: Phase::Steady, since: now, leaf };
        return Ok(Step::Save(Box::new(keeping), "a new authority and certificate"));
    };
    if keeping.leaf.names != names || keeping.leaf.renew <= now {
        keeping.leaf = Leaf::new(&keeping.signing, names, now, lifetimes)?;
        return Ok(Step::Save(Box::new(keeping), "a new certificate"));
    }
    let due = match keeping.phase {
        Phase::Steady => keeping.signing.renew,
        Phase::Introduced | Phase::Replaced => keeping.since.checked_add(lifetimes.pause)?,
    };
    let first = due.min(keeping.leaf.renew);
    if due > now {
        return Ok(Step::Wait(first.duration_since(now).unsigned_abs()));
    }
    keeping.since = now;
    let what = match keeping.phase {
        Phase::Steady => {
            keeping.other = Some(Authority::new(now, lifetimes)?);
            keeping.phase = Phase::Introduced;
            "a new authority is trusted beside the old one"
        }
        Phase::Introduced => {
            if let Some(other) = &mut keeping.other {
                std::mem::swap(&mut keeping.signing, other);
                keeping.leaf = Leaf::new(&keeping.signing, names, now, lifetimes)?;
            }
            keeping.phase = Phase::Replaced;
            "the new authority has signed a certificate"
        }
        Phase::Replaced => {
            keeping.other = None;
            keeping.phase = Phase::Steady;
            "the old authority is not trusted any more"
        }
    };
    Ok(Step::Save(Box::new(keeping), what))
}

/// When to replace what is made now and lasts so long.
fn renewal(now: Timestamp, lifetime: SignedDuration) -> Result<Timestamp, KeepingError> {
    Ok(now.checked_add(lifetime * 2 / 3)?)
}

impl Authority {
    fn new(now: Timestamp, lifetimes: &Lifetimes) -> Result<Self, KeepingError> {
        let expires = now.checked_add(lifetimes.authority)?;
        // Two of them are trusted at a time: verifiers look for the issuer by its name.
        let name = format!("ringfence-webhook authority of {now}");
        let key = KeyPair::generate()?;
        let certificate = Self::parameters(&name, now, expires)?.self_signed(&key)?;
        let renew = renewal(now, lifetimes.authority)?;
        Ok(Self { name, certificate: certificate.pem(), key: key.serialize_pem(), expires, renew })
    }

    fn parameters(name: &str, now: Timestamp, expires: Timestamp) -> Result<CertificateParams, KeepingError> {
        let mut parameters = parameters(name, Vec::new(), now, expires)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(parameters)
    }
}

impl Leaf {
    fn new(
        authority: &Authority,
        names: &[String],
        now: Timestamp,
        lifetimes: &Lifetimes,
    ) -> Result<Self, KeepingError> {
        let expires = now.checked_add(lifetimes.certificate)?.min(authority.expires);
        let mut parameters = parameters("ringfence-webhook", names.to_vec(), now, expires)?;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        // An issuer is its name and key; the rest of its certificate does not matter for signing.
        let issuer = Authority::parameters(&authority.name, now, authority.expires)?;
        let issuer = Issuer::new(issuer, KeyPair::from_pem(&authority.key)?);
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &issuer)?;
        let renew = renewal(now, expires.duration_since(now))?;
        Ok(Self { names: names.to_vec(), certificate: certificate.pem(), key: key.serialize_pem(), renew })
    }
}

fn parameters(
    name: &str,
    names: Vec<String>,
    now: Timestamp,
    expires: Timestamp,
) -> Result<CertificateParams, KeepingError> {
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    let begins = now.checked_sub(BACKDATED)?;
    let time = |at: Timestamp| std::time::SystemTime::from(at).into();
    (parameters.not_before, parameters.not_after) = (time(begins), time(expires));
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{RootCertStore, client::WebPkiServerVerifier};

    use super::*;

    /// Whether a client that trusts `bundle` accepts `certificate` at that moment.
    fn trusted(bundle: &str, certificate: &str, now: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let provider = rustls::crypto::ring::default_provider().into();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(std::sync::Arc::new(roots), provider).build().unwrap();
        let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let name = ServerName::try_from("ringfence-webhook.ringfence.svc").unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().unsigned_abs()));
        rustls::client::danger::ServerCertVerifier::verify_server_cert(&*verifier, &leaf, &[], &name, &[], now).is_ok()
    }

    /// Whoever is one step behind, API server or replica, still gets on with whoever is not; and nothing runs out.
    #[test]
    fn every_step_overlaps_with_the_one_before() {
        let lifetimes = Lifetimes {
            authority: SignedDuration::from_hours(24 * 365),
            certificate: SignedDuration::from_hours(24 * 90),
            pause: SignedDuration::from_mins(1),
        };
        let names = ["ringfence-webhook.ringfence.svc".to_owned()];
        let mut now: Timestamp = "2026-11-28T00:00:00Z".parse().unwrap();
        let end = now.checked_add(SignedDuration::from_hours(24 * 365 * 3)).unwrap();
        let mut keeping: Option<Keeping> = None;
        let (mut steps, mut authorities) = (0, 1);
        while now < end {
            match next(keeping.clone(), now, &names, &lifetimes).unwrap() {
                Step::Wait(wait) => {
                    assert!(!wait.is_zero());
                    now = now.checked_add(wait).unwrap();
                }
                Step::Save(new, _) => {
                    assert!(trusted(&new.bundle(), new.certificate(), now));
                    if let Some(old) = &keeping {
                        assert!(trusted(&new.bundle(), old.certificate(), now), "{:?}", new.phase);
                        assert!(trusted(&old.bundle(), new.certificate(), now), "{:?}", new.phase);
                        authorities += u32::from(old.signing.name != new.signing.name);
                    }
                    keeping = Some(*new);
                    steps += 1;
                    assert!(steps < 1000);
                }
            }
        }
        assert_eq!(authorities, 5, "one every eight months");
    }

    #[test]
    fn a_pause_begins_anew() {
        let lifetimes = Lifetimes {
            authority: SignedDuration::from_secs(3000),
            certificate: SignedDuration::from_secs(3000),
            pause: SignedDuration::from_secs(60),
        };
        let now: Timestamp = "2026-11-28T00:00:00Z".parse().unwrap();
        let later = |seconds| now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        let names = ["a.example".to_owned()];
        let step = |keeping, at| match next(keeping, at, &names, &lifetimes).unwrap() {
            Step::Save(keeping, what) => (Some(*keeping), what),
            Step::Wait(_) => (None, "wait"),
        };
        let (keeping, _) = step(None, now);
        assert!(!keeping.clone().unwrap().restart_pause(now));
        let (keeping, _) = step(keeping, later(2000));
        let (keeping, what) = step(keeping, later(2000));
        assert!(what.starts_with("a new authority is trusted"), "{what}");
        let mut keeping = keeping.unwrap();
        assert!(keeping.restart_pause(later(2030)));
        assert_eq!(step(Some(keeping.clone()), later(2065)).1, "wait");
        assert!(step(Some(keeping), later(2090)).1.starts_with("the new authority has signed"));
    }
}
