//! Contents and their digests.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Something that is found by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// What it is.
    pub media_type: String,
    /// `sha256:...`
    pub digest: String,
    /// Itself.
    pub bytes: Arc<Vec<u8>>,
}

impl Blob {
    /// Computes the digest.
    pub fn new(media_type: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { media_type: media_type.into(), digest: digest(&bytes), bytes: Arc::new(bytes) }
    }

    /// A value as JSON, its keys in their order.
    pub(crate) fn json(media_type: impl Into<String>, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    /// How another blob refers to this one.
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

/// A media type of the image specification.
pub(crate) fn media_type(kind: &str) -> String {
    format!("application/vnd.oci.image.{kind}")
}
