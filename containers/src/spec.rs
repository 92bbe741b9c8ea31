//! The few members of an OCI runtime spec that matter here.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path, path::PathBuf};

use serde::Deserialize;

/// An OCI runtime spec (`config.json`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Spec {
    annotations: Option<BTreeMap<String, String>>,
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    cgroups_path: String,
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Namespace {
    r#type: String,
    path: PathBuf,
}

/// The network namespace a spec asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Network {
    /// The one of the runtime, which is the host's.
    Host,
    /// A new one.
    New,
    /// One that was made beforehand.
    At(PathBuf),
}

impl Spec {
    /// Reads a spec; unknown members are nobody's business.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        // Runtimes other than runc may keep no spec at all.
        if json.is_empty() { Ok(Self::default()) } else { serde_json::from_slice(json) }
    }

    /// `linux.cgroupsPath`, or the empty string.
    pub fn cgroups_path(&self) -> &str {
        self.linux.as_ref().map_or("", |linux| &linux.cgroups_path)
    }

    /// An annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The network namespace; `own` is this process's, `/proc/self/ns/net`.
    pub fn network(&self, own: &Path) -> Network {
        let namespaces = self.linux.as_ref().and_then(|linux| linux.namespaces.as_deref()).unwrap_or_default();
        match namespaces.iter().find(|namespace| namespace.r#type == "network") {
            None => Network::Host,
            Some(namespace) if namespace.path.as_os_str().is_empty() => Network::New,
            Some(namespace) if is_same_file(&namespace.path, own) => Network::Host,
            Some(namespace) => Network::At(namespace.path.clone()),
        }
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/proc/self/ns/net";

    fn network(json: &str) -> Network {
        Spec::parse(json.as_bytes()).expect("valid").network(Path::new(OWN))
    }

    #[test]
    fn network_is_new_given_or_the_hosts() {
        assert_eq!(network(r#"{"linux":{"namespaces":[{"type":"pid"},{"type":"network"}]}}"#), Network::New);
        let given = r#"{"linux":{"namespaces":[{"type":"network","path":"/run/netns/never"}]}}"#;
        assert_eq!(network(given), Network::At("/run/netns/never".into()));
        assert_eq!(network(r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#), Network::Host);
        assert_eq!(network(r#"{"linux":{"namespaces":null}}"#), Network::Host);
        // Somebody may name the host's by path: the same file under another name.
        let by_path = format!(
            r#"{{"linux":{{"namespaces":[{{"type":"network","path":"/proc/{}/ns/net"}}]}}}}"#,
            std::process::id()
        );
        assert_eq!(network(&by_path), Network::Host);
    }

    #[test]
    fn members_that_matter_are_read_and_others_ignored() {
        let json = br#"{"ociVersion":"1.0.2","process":{"args":["a"]},"annotations":{"k":"v"},
                        "linux":{"cgroupsPath":"/default/demo","resources":{}}}"#;
        let spec = Spec::parse(json).expect("valid");
        assert_eq!(
            (spec.cgroups_path(), spec.annotation("k"), spec.annotation("x")),
            ("/default/demo", Some("v"), None)
        );
    }

    #[test]
    fn no_spec_is_empty_and_a_broken_one_an_error() {
        assert_eq!(Spec::parse(b"").expect("empty").cgroups_path(), "");
        assert!(Spec::parse(b"{\"linux\":[").is_err());
    }
}
