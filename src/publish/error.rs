//! What can go wrong while an image is published.

use crate::layout::StoreError;
use crate::registry::RegistryError;

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("{reference} cannot be published to: {reason}")]
    Destination { reference: String, reason: String },
    #[error("{digest} was not verified, and what was not verified is not published")]
    Unverified { digest: String },
    #[error("{digest} is not the JSON document it should be: {source}")]
    Document { digest: String, source: serde_json::Error },
    #[error(
        "{reference} is {has} and the policy in build.toml ([[registries]], immutable) says that it stays; \
         this image is {new}. Push it under another tag"
    )]
    Immutable {
        reference: String,
        has: String,
        new: String,
    },
    #[error(
        "{reference} was set to {new}, and read back it is {found}: someone else sets the same tag at the same time. \
         The image itself is complete in the repository; decide which one the tag is for, and push or promote that again"
    )]
    TagTaken {
        reference: String,
        new: String,
        found: String,
    },
    #[error("{0}")]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("interrupted")]
    Cancelled,
}
