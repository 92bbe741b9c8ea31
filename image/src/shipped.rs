//! The images of this product: static programs and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{Architecture, Built, Error, Image, Tree};

/// An image and the programs in it.
#[derive(Debug, Clone, Copy)]
pub struct Shipped {
    /// Last part of its repository: `ringfence/NAME`.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub description: &'static str,
    /// The programs, all at its root, each with the crate that builds it. The first one is its entry point.
    pub programs: &'static [(&'static str, &'static str)],
    /// As whom it runs, `uid:gid`.
    pub user: &'static str,
}

/// Where it comes from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Version of the programs.
    pub version: String,
    /// The commit that they were built from.
    pub revision: Option<String>,
    /// When that was made, as RFC 3339.
    pub created: Option<String>,
}

/// All.
pub const ALL: [Shipped; 2] = [
    Shipped {
        name: "enforcer",
        description: "Ringfence's agent of a node, and the command line that speaks to it",
        programs: &[("enforcer", "ringfence-enforcer"), ("ringfence", "ringfence-cli")],
        // It loads programs into the node's kernel.
        user: "0:0",
    },
    Shipped {
        name: "webhook",
        description: "Ringfence's admission webhook",
        programs: &[("ringfence-webhook", "ringfence-webhook")],
        // Nobody in particular; the chart says the same.
        user: "65532:65532",
    },
];

impl Shipped {
    /// Its reference in a registry.
    pub fn reference(&self, registry: &str, tag: &str) -> String {
        format!("{registry}/ringfence/{}:{tag}", self.name)
    }

    /// What is said about it: labels of the image, annotations of its manifest and index.
    pub fn labels(&self, origin: &Origin) -> BTreeMap<String, String> {
        let fixed = [
            ("title", Some(format!("ringfence-{}", self.name))),
            ("description", Some(self.description.to_owned())),
            ("licenses", Some("Apache-2.0".to_owned())),
            ("version", Some(origin.version.clone())),
            ("revision", origin.revision.clone()),
            ("created", origin.created.clone()),
        ];
        let label = |(key, value): (&str, Option<String>)| Some((format!("org.opencontainers.image.{key}"), value?));
        fixed.into_iter().filter_map(label).collect()
    }

    /// The image of the programs in a folder.
    pub fn build(&self, programs: &Path, architecture: Architecture, origin: &Origin) -> Result<Built, Error> {
        let tree = self.programs.iter().fold(Tree::default(), |tree, (program, _)| {
            tree.file(&programs.join(program), &format!("/{program}"), 0o755)
        });
        let entrypoint = self.programs.first().map_or_else(String::new, |(program, _)| format!("/{program}"));
        let mut image = Image::new(architecture)
            .entrypoint(&[&entrypoint])
            .user(self.user)
            .labels(&self.labels(origin))
            .compressed();
        if let Some(created) = &origin.created {
            image = image.created(created);
        }
        Ok(image.build(tree.archive()?))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;

    fn origin() -> Origin {
        Origin { version: "0.1.0".to_owned(), revision: None, created: Some("2026-01-01T00:00:00Z".to_owned()) }
    }

    /// A folder with something in place of every program.
    fn programs() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (program, _) in ALL.iter().flat_map(|image| image.programs) {
            fs::write(folder.path().join(program), program.repeat(100)).expect("a file");
        }
        folder
    }

    #[test]
    fn built_twice_they_are_the_same() {
        let digests = |folder: &Path| {
            ALL.map(|image| image.build(folder, Architecture::Amd64, &origin()).expect("an image").manifest.digest)
        };
        let (one, other) = (programs(), programs());
        assert_eq!(digests(one.path()), digests(other.path()));
        fs::write(other.path().join("enforcer"), "something else").expect("a file");
        assert_ne!(digests(one.path())[0], digests(other.path())[0]);
        assert_eq!(digests(one.path())[1], digests(other.path())[1]);
    }

    #[test]
    fn they_hold_their_programs_and_nothing_else() {
        let folder = programs();
        for image in ALL {
            let built = image.build(folder.path(), Architecture::Arm64, &origin()).expect("an image");
            let layer = flate2::read::GzDecoder::new(built.layer.bytes.as_slice());
            let mut archive = tar::Archive::new(layer);
            let entries = archive.entries().expect("entries").map(|entry| entry.expect("an entry"));
            let found: Vec<_> = entries.map(|entry| entry.path().expect("a path").display().to_string()).collect();
            assert_eq!(found, image.programs.iter().map(|(program, _)| *program).collect::<Vec<_>>());
            let config: Value = serde_json::from_slice(&built.config.bytes).expect("JSON");
            assert_eq!(config["config"]["Entrypoint"][0], format!("/{}", found[0]));
            assert_eq!(config["config"]["User"], image.user);
        }
    }

    #[test]
    fn the_chart_runs_the_webhook_as_the_user_of_its_image() {
        let template = include_str!("../../charts/ringfence/templates/webhook.yaml");
        let (user, _) = ALL[1].user.split_once(':').expect("a user and a group");
        assert!(template.contains(&format!("runAsUser: {user}\n")));
    }
}
