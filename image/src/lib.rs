//! Container images in the form of the [OCI image specification](https://github.com/opencontainers/image-spec), made
//! without a container engine. The same input yields the same bytes: entries have an order, and no time is written that
//! is not given.
//!
//! A [`Tree`] of files becomes a layer, an [`Image`] its configuration and manifest ([`Built`]), a [`Layout`] the
//! archive with the images of several architectures that `ctr images import`, `docker load`, `skopeo` and others read.
//! [`shipped`] says which images there are of this product.

mod architecture;
mod blob;
mod image;
mod layout;
pub mod shipped;
mod tree;

use std::path::PathBuf;

pub use architecture::Architecture;
pub use blob::Blob;
pub use image::{Built, Image};
pub use layout::{Layout, Variant};
pub use tree::Tree;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct Error {
    /// A file that cannot be read or has a name that no archive can hold.
    path: PathBuf,
    /// Why.
    source: std::io::Error,
}

impl Error {
    fn new(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self { path: path.into(), source }
    }
}
