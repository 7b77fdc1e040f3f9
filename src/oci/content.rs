//! Artifacts that accompany an image in a registry, in memory: the manifest and blobs of a signature or attestation.

use bytes::Bytes;
use oci_spec::image::{Descriptor, MediaType};
use sha2::{Digest as _, Sha256};

use super::digest::sha256_digest;

/// Bytes with their media type and digest.
#[derive(Clone, Debug)]
pub struct Content {
    pub descriptor: Descriptor,
    pub bytes: Bytes,
}

impl Content {
    pub fn new(media_type: MediaType, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = sha256_digest(&Sha256::digest(&bytes).into());
        Self {
            descriptor: Descriptor::new(media_type, bytes.len() as u64, digest),
            bytes,
        }
    }
}

/// One manifest with its config and layer blobs.
#[derive(Clone, Debug)]
pub struct Artifact {
    pub manifest: Content,
    pub blobs: Vec<Content>,
    pub place: Place,
}

/// How clients find an artifact of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Under a tag derived from the image's digest, as in cosign 2 (`sha256-<hex>.sig`, `.att`).
    Tag(String),
    /// By the `subject` of its manifest: the referrers API of distribution-spec 1.1, or its fallback tag.
    Referrer,
    /// By its digest in the index of another artifact.
    Part,
}
