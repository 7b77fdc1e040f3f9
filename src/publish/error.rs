//! Errors of publishing.

use crate::layout::StoreError;
use crate::registry::RegistryError;

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("publishing to {reference}: {reason}")]
    Destination { reference: String, reason: String },
    #[error("publishing {digest}: it was not verified")]
    Unverified { digest: String },
    #[error("{digest} is not a valid JSON document: {source}")]
    Document { digest: String, source: serde_json::Error },
    #[error(
        "pushing {new} to {reference}: the tag points to {has} and is immutable ([[registries]] of build.toml)\n\
         help: push under another tag"
    )]
    Immutable {
        reference: String,
        has: String,
        new: String,
    },
    #[error(
        "setting {reference} to {new}: a concurrent push set it to {found}\n\
         help: the image is complete in the repository; push or promote again if the tag should point to it"
    )]
    TagTaken {
        reference: String,
        new: String,
        found: String,
    },
    #[error("adding to {tag} of {repository}: both manifests must be image manifests to be merged")]
    Unmergeable { repository: String, tag: String },
    #[error("{0}")]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("interrupted")]
    Cancelled,
}

impl PublishError {
    /// Whether the destination does not take an artifact: another try would end the same way.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Unmergeable { .. } => true,
            Self::Registry(error) => error.is_refusal(),
            _ => false,
        }
    }
}
