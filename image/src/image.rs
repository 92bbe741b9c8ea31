//! One image of one architecture.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::{Compression, GzBuilder};
use serde_json::{Map, Value, json};

use crate::blob::{digest, media_type};
use crate::{Architecture, Blob};

/// How a container of it is started, and what is said about it.
#[derive(Debug, Clone)]
pub struct Image {
    architecture: Architecture,
    entrypoint: Vec<String>,
    command: Vec<String>,
    user: Option<String>,
    labels: BTreeMap<String, String>,
    created: Option<String>,
    compressed: bool,
}

/// An image ready to be stored.
#[derive(Debug, Clone)]
pub struct Built {
    /// The only layer.
    pub layer: Blob,
    /// The configuration.
    pub config: Blob,
    /// The manifest.
    pub manifest: Blob,
}

impl Image {
    /// One that runs nothing by itself, as root.
    pub const fn new(architecture: Architecture) -> Self {
        Self {
            architecture,
            entrypoint: Vec::new(),
            command: Vec::new(),
            user: None,
            labels: BTreeMap::new(),
            created: None,
            compressed: false,
        }
    }

    /// What a pod's container runs unless it is told otherwise.
    #[must_use]
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The same, with what a pod calls `args` added to it.
    #[must_use]
    pub fn entrypoint(mut self, command: &[&str]) -> Self {
        self.entrypoint = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// As whom, `uid:gid`: numbers, which the kubelet can hold against `runAsNonRoot`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Labels of the image, which are annotations of its manifest too.
    #[must_use]
    pub fn labels(mut self, labels: &BTreeMap<String, String>) -> Self {
        self.labels.extend(labels.iter().map(|(key, value)| (key.clone(), value.clone())));
        self
    }

    /// When it was made, as RFC 3339.
    #[must_use]
    pub fn created(mut self, time: &str) -> Self {
        self.created = Some(time.to_owned());
        self
    }

    /// Compresses the layer.
    #[must_use]
    pub const fn compressed(mut self) -> Self {
        self.compressed = true;
        self
    }

    /// The image of a layer, an uncompressed archive.
    pub fn build(&self, layer: Vec<u8>) -> Built {
        let diff_id = digest(&layer);
        let layer = if self.compressed {
            Blob::new(media_type("layer.v1.tar+gzip"), gzip(&layer))
        } else {
            Blob::new(media_type("layer.v1.tar"), layer)
        };
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut run = json!({"Env": [path], "WorkingDir": "/"});
        let mut set = |key: &str, value: Value| run[key] = value;
        if !self.entrypoint.is_empty() {
            set("Entrypoint", json!(self.entrypoint));
        }
        if !self.command.is_empty() {
            set("Cmd", json!(self.command));
        }
        if let Some(user) = &self.user {
            set("User", json!(user));
        }
        if !self.labels.is_empty() {
            set("Labels", json!(self.labels));
        }
        let mut config = json!({
            "architecture": self.architecture.name(),
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        if let Some(created) = &self.created {
            config["created"] = json!(created);
        }
        let config = Blob::json(media_type("config.v1+json"), &config);
        let manifest = manifest(&config, &layer, &self.labels, Map::new());
        Built { layer, config, manifest }
    }
}

/// The manifest of one layer.
pub(crate) fn manifest(
    config: &Blob,
    layer: &Blob,
    annotations: &BTreeMap<String, String>,
    more: Map<String, Value>,
) -> Blob {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type("manifest.v1+json"),
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    });
    if !annotations.is_empty() {
        manifest["annotations"] = json!(annotations);
    }
    for (key, value) in more {
        manifest[key] = value;
    }
    Blob::json(media_type("manifest.v1+json"), &manifest)
}

/// Without name and time.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("writing into memory does not fail")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::Tree;

    fn value(blob: &Blob) -> Value {
        serde_json::from_slice(&blob.bytes).expect("JSON")
    }

    #[test]
    fn the_digest_of_a_compressed_layer_is_not_that_of_its_contents() {
        let archive = Tree::default().content("/program", "x".repeat(10_000), 0o755).archive().expect("an archive");
        let plain = Image::new(Architecture::Arm64).build(archive.clone());
        let compressed = Image::new(Architecture::Arm64).compressed().build(archive.clone());
        assert_eq!(value(&plain.config)["rootfs"], value(&compressed.config)["rootfs"]);
        assert_eq!(value(&compressed.config)["rootfs"]["diff_ids"][0], plain.layer.digest);
        assert_eq!(compressed.layer.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
        assert!(compressed.layer.bytes.len() < plain.layer.bytes.len() / 10);
        // Neither a time nor the name of this system.
        assert_eq!(compressed.layer.bytes[4..8], [0; 4]);
        assert_eq!(compressed.layer.bytes[9], 255);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(compressed.layer.bytes.as_slice()).read_to_end(&mut unpacked).expect("gzip");
        assert_eq!(unpacked, archive);
    }

    #[test]
    fn what_is_said_about_an_image_is_in_its_configuration() {
        let labels = BTreeMap::from([("org.opencontainers.image.version".to_owned(), "1".to_owned())]);
        let image = Image::new(Architecture::Amd64).entrypoint(&["/x"]).user("65532:65532").labels(&labels);
        let built = image.created("2026-01-01T00:00:00Z").build(Vec::new());
        let config = value(&built.config);
        assert_eq!(config["architecture"], "amd64");
        assert_eq!(config["created"], "2026-01-01T00:00:00Z");
        assert_eq!(config["config"]["Entrypoint"], json!(["/x"]));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Labels"], json!(labels));
        assert_eq!(value(&built.manifest)["annotations"], json!(labels));
    }
}
