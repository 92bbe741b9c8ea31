//! Images in one archive, in the form of the OCI image layout.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Map, Value, json};

use crate::blob::media_type;
use crate::image::manifest;
use crate::{Architecture, Blob, Built};

/// Empty JSON, the configuration of what is no image.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Name of an image, as containerd and Docker read it.
const NAME: &str = "io.containerd.image.name";
/// Tag of an image, as others read it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The image of one architecture, and what is attached to it.
#[derive(Debug, Clone)]
pub struct Variant {
    /// The architecture.
    pub architecture: Architecture,
    /// Its image.
    pub image: Built,
    /// What refers to it, such as an SBOM: a title and the content.
    pub attached: Vec<(String, Blob)>,
}

/// What an archive holds.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    blobs: BTreeMap<String, Blob>,
    roots: Vec<Value>,
}

impl Layout {
    /// Adds an image of one architecture under a whole reference, such as `localhost/busybox:1`.
    pub fn image(&mut self, name: &str, image: &Built) {
        self.add_image(image);
        self.root(image.manifest.descriptor(), Some(name));
    }

    /// Adds an image of several architectures under a whole reference; returns the digest of its index.
    pub fn index(&mut self, name: &str, annotations: &BTreeMap<String, String>, variants: &[Variant]) -> String {
        let manifests = variants.iter().map(|variant| {
            let mut descriptor = variant.image.manifest.descriptor();
            descriptor["platform"] = json!({"architecture": variant.architecture.name(), "os": "linux"});
            descriptor
        });
        let index = Blob::json(
            media_type("index.v1+json"),
            &json!({
                "schemaVersion": 2,
                "mediaType": media_type("index.v1+json"),
                "manifests": manifests.collect::<Vec<_>>(),
                "annotations": annotations,
            }),
        );
        for variant in variants {
            self.add_image(&variant.image);
        }
        self.root(index.descriptor(), Some(name));
        let digest = index.digest.clone();
        self.add(index);
        for variant in variants {
            for (title, content) in &variant.attached {
                self.attach(&variant.image.manifest, title, content);
            }
        }
        digest
    }

    /// A manifest whose subject is another one, found by whoever asks for what refers to that.
    fn attach(&mut self, subject: &Blob, title: &str, content: &Blob) {
        let empty = Blob::json(EMPTY, &json!({}));
        let more = json!({"artifactType": content.media_type, "subject": subject.descriptor()});
        let more = if let Value::Object(more) = more { more } else { Map::new() };
        let annotations = BTreeMap::from([("org.opencontainers.image.title".to_owned(), title.to_owned())]);
        let manifest = manifest(&empty, content, &annotations, more);
        let mut descriptor = manifest.descriptor();
        descriptor["artifactType"] = json!(content.media_type);
        self.root(descriptor, None);
        for blob in [empty, content.clone(), manifest] {
            self.add(blob);
        }
    }

    fn add_image(&mut self, image: &Built) {
        for blob in [&image.layer, &image.config, &image.manifest] {
            self.add(blob.clone());
        }
    }

    fn add(&mut self, blob: Blob) {
        self.blobs.insert(blob.digest.clone(), blob);
    }

    fn root(&mut self, mut descriptor: Value, name: Option<&str>) {
        if let Some(name) = name {
            let (_, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
            descriptor["annotations"] = json!({NAME: name, REF_NAME: tag});
        }
        self.roots.push(descriptor);
    }

    /// Writes the archive, uncompressed: its layers may be.
    pub fn write(&self, to: impl io::Write) -> io::Result<()> {
        let index = json!({"schemaVersion": 2, "mediaType": media_type("index.v1+json"), "manifests": self.roots});
        let mut archive = tar::Builder::new(to);
        let mut add = |path: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, bytes)
        };
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add("index.json", index.to_string().as_bytes())?;
        for (digest, blob) in &self.blobs {
            add(&format!("blobs/{}", digest.replace(':', "/")), &blob.bytes)?;
        }
        archive.into_inner().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::{Image, Tree};

    /// Files of an archive by their paths.
    fn files(layout: &Layout) -> BTreeMap<String, Vec<u8>> {
        let mut bytes = Vec::new();
        layout.write(&mut bytes).expect("an archive");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut files = BTreeMap::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            assert_eq!(entry.header().mtime().expect("a time"), 0);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            files.insert(entry.path().expect("a path").display().to_string(), content);
        }
        files
    }

    /// The blob that a descriptor is about, after checking it.
    fn blob<'f>(files: &'f BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'f [u8] {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let bytes = &files[&format!("blobs/{}", digest.replace(':', "/"))];
        assert_eq!(crate::blob::digest(bytes), digest);
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    }

    fn json_of(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Value {
        serde_json::from_slice(blob(files, descriptor)).expect("JSON")
    }

    fn built(architecture: Architecture) -> Built {
        let archive = Tree::default().content("/f", architecture.name(), 0o644).archive().expect("an archive");
        Image::new(architecture).compressed().build(archive)
    }

    #[test]
    fn an_archive_of_one_image_holds_what_its_index_names() {
        let mut layout = Layout::default();
        layout.image("localhost/x:1", &built(Architecture::Amd64));
        let files = files(&layout);
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("JSON");
        assert_eq!(index["manifests"][0]["annotations"], json!({NAME: "localhost/x:1", REF_NAME: "1"}));
        let manifest = json_of(&files, &index["manifests"][0]);
        blob(&files, &manifest["config"]);
        blob(&files, &manifest["layers"][0]);
    }

    #[test]
    fn an_index_has_every_architecture_and_what_refers_to_it() {
        let sbom = |text: &str| ("sbom.json".to_owned(), Blob::new("application/vnd.cyclonedx+json", text.into()));
        let variants = Architecture::ALL.map(|architecture| Variant {
            architecture,
            image: built(architecture),
            attached: vec![sbom(architecture.name())],
        });
        let mut layout = Layout::default();
        let digest = layout.index("registry.example:5000/x:1", &BTreeMap::new(), &variants);
        let files = files(&layout);
        let roots: Value = serde_json::from_slice(&files["index.json"]).expect("JSON");
        assert_eq!(roots["manifests"][0]["digest"], digest);
        let index = json_of(&files, &roots["manifests"][0]);
        for (number, architecture) in Architecture::ALL.into_iter().enumerate() {
            let descriptor = &index["manifests"][number];
            assert_eq!(descriptor["platform"], json!({"architecture": architecture.name(), "os": "linux"}));
            let config = json_of(&files, &json_of(&files, descriptor)["config"]);
            assert_eq!(config["architecture"], architecture.name());
            // Only images have names.
            let artifact = &roots["manifests"][1 + number];
            assert!(artifact["annotations"].is_null());
            let artifact = json_of(&files, artifact);
            assert_eq!(artifact["artifactType"], "application/vnd.cyclonedx+json");
            assert_eq!(artifact["subject"]["digest"], descriptor["digest"]);
            assert_eq!(blob(&files, &artifact["config"]), b"{}");
            assert_eq!(blob(&files, &artifact["layers"][0]), architecture.name().as_bytes());
        }
    }

    #[test]
    fn the_same_images_are_the_same_archive() {
        let write = |architecture| {
            let mut layout = Layout::default();
            layout.image("localhost/x:1", &built(architecture));
            let mut bytes = Vec::new();
            layout.write(&mut bytes).expect("an archive");
            bytes
        };
        assert_eq!(write(Architecture::Amd64), write(Architecture::Amd64));
        assert_ne!(write(Architecture::Amd64), write(Architecture::Arm64));
    }
}
