//! What goes beside an image in a registry, made in memory: a signature or an attestation as manifest and blobs.

use bytes::Bytes;
use oci_spec::image::{Descriptor, MediaType};
use sha2::{Digest as _, Sha256};

use super::digest::sha256_digest;

/// Content with what names it.
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

/// One manifest and the blobs it names (configuration and layers).
#[derive(Clone, Debug)]
pub struct Artifact {
    pub manifest: Content,
    pub blobs: Vec<Content>,
    pub place: Place,
}

/// How an artifact is found from the image it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Under a tag made from the image's digest, as cosign 2 has it (`sha256-<hex>.sig`, `.att`).
    Tag(String),
    /// By the `subject` of its manifest: the referrers API of distribution-spec 1.1, or its fallback tag.
    Referrer,
}
