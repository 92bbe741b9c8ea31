//! What matters of a pod here: its name, labels and annotations.

use std::collections::BTreeMap;

use ringfence_policy::Labels;
use serde::Deserialize;

/// Annotation of the API server's copy of a pod that comes from a file of its node.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod, or anything else that has labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its name. Empty if the API server has yet to make one up (`generateName`).
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// There is no map of labels, not even an empty one.
    pub without_labels: bool,
}

/// An object as the API server writes it.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    name: Option<String>,
    labels: Option<Labels>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Pod {
    /// From an object in JSON.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        let Metadata { name, labels, annotations } = serde_json::from_str::<Object>(json)?.metadata;
        Ok(Self {
            name: name.unwrap_or_default(),
            without_labels: labels.is_none(),
            labels: labels.unwrap_or_default(),
            annotations: annotations.unwrap_or_default(),
        })
    }

    /// Whether it comes from a file of its node, or says so.
    pub fn is_static(&self) -> bool {
        self.annotations.contains_key(MIRROR)
    }
}
