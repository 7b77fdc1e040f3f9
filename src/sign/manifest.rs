//! Reads and writes the manifests of signatures: bytes to and from [`Artifact`], with every digest checked.

use oci_spec::image::{Descriptor, Digest, ImageManifest, MediaType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::error::{SignError, VerifyError};
use super::{LAYERS_LIMIT, MANIFEST_LIMIT};
use crate::layout::canonical_json;
use crate::oci::{Artifact, Content, sha256_digest};

pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    sha256_digest(&Sha256::digest(bytes).into())
}

/// Keys are sorted, so that equal documents have equal digests.
pub(super) fn json_content(
    media_type: MediaType,
    what: &'static str,
    document: &impl Serialize,
) -> Result<Content, SignError> {
    let bytes = canonical_json(document).map_err(|e| SignError::Write {
        what,
        reason: e.to_string(),
    })?;
    Ok(Content::new(media_type, bytes))
}

/// The hexadecimal digits in cosign's tags and in-toto's subjects.
pub(super) fn sha256_hex(digest: &Digest) -> Result<&str, SignError> {
    match digest.algorithm() {
        oci_spec::image::DigestAlgorithm::Sha256 => Ok(digest.digest()),
        _ => Err(SignError::NotSha256(digest.clone())),
    }
}

/// A fetched artifact whose parts all have the digests and sizes in their descriptors.
pub(super) struct Checked<'a> {
    what: &'static str,
    blobs: &'a [Content],
    pub manifest: ImageManifest,
}

impl<'a> Checked<'a> {
    /// `what` is the manifest's name in errors.
    pub fn new(what: &'static str, artifact: &'a Artifact) -> Result<Self, VerifyError> {
        limit(what, artifact.manifest.bytes.len(), MANIFEST_LIMIT)?;
        same(what, &artifact.manifest)?;
        for blob in &artifact.blobs {
            same("one of its blobs", blob)?;
        }
        let manifest: ImageManifest = parse(what, &artifact.manifest.bytes)?;
        let malformed = |reason: String| Err(VerifyError::Malformed { what, reason });
        if manifest.schema_version() != 2 || *manifest.media_type() != Some(MediaType::ImageManifest) {
            return malformed("it is not an OCI image manifest".into());
        }
        if *artifact.manifest.descriptor.media_type() != MediaType::ImageManifest {
            let announced = artifact.manifest.descriptor.media_type();
            return malformed(format!(
                "its descriptor has the type {announced}, but it is an OCI image manifest"
            ));
        }
        if manifest.layers().len() > LAYERS_LIMIT {
            return malformed(format!(
                "{} layers exceed the limit of {LAYERS_LIMIT}",
                manifest.layers().len()
            ));
        }
        Ok(Self {
            what,
            blobs: &artifact.blobs,
            manifest,
        })
    }

    /// The content of a layer.
    pub fn blob(&self, what: &'static str, layer: &Descriptor, bytes: u64) -> Result<&'a [u8], VerifyError> {
        // Looks up the verified digest.
        let found = self
            .blobs
            .iter()
            .find(|blob| blob.descriptor.digest() == layer.digest());
        let blob = found.ok_or_else(|| VerifyError::Missing {
            what,
            digest: layer.digest().clone(),
        })?;
        if blob.bytes.len() as u64 != layer.size() {
            return Err(VerifyError::Size {
                what,
                expected: layer.size(),
                found: blob.bytes.len() as u64,
            });
        }
        limit(what, blob.bytes.len(), bytes)?;
        Ok(&blob.bytes)
    }

    /// Applies `check` to each layer of this media type. Rejected layers (signatures by other keys) are skipped if at
    /// least one layer is accepted.
    pub fn accepted<T>(
        &self,
        media_type: &str,
        wanted: &'static str,
        check: impl Fn(&Descriptor) -> Result<T, VerifyError>,
    ) -> Result<Vec<T>, VerifyError> {
        let (mut accepted, mut reasons) = (Vec::new(), Vec::new());
        for layer in self.manifest.layers() {
            if layer.media_type().as_ref() != media_type {
                continue;
            }
            match check(layer) {
                Ok(claim) => accepted.push(claim),
                Err(reason) => reasons.push(reason),
            }
        }
        if !accepted.is_empty() {
            return Ok(accepted);
        }
        let what = self.what;
        match (reasons.pop(), reasons.is_empty()) {
            (None, _) => Err(VerifyError::Nothing { what, wanted }),
            (Some(only), true) => Err(only),
            (Some(last), false) => {
                reasons.push(last);
                Err(VerifyError::AllRefused { what, reasons })
            }
        }
    }
}

pub(super) fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, VerifyError> {
    serde_json::from_slice(bytes).map_err(|e| VerifyError::Malformed {
        what,
        reason: e.to_string(),
    })
}

pub(super) fn limit(what: &'static str, size: usize, limit: u64) -> Result<(), VerifyError> {
    let size = size as u64;
    if size > limit {
        return Err(VerifyError::TooLarge { what, size, limit });
    }
    Ok(())
}

fn same(what: &'static str, content: &Content) -> Result<(), VerifyError> {
    let (expected, found) = (content.descriptor.size(), content.bytes.len() as u64);
    if expected != found {
        return Err(VerifyError::Size { what, expected, found });
    }
    let found = digest_of(&content.bytes);
    if found != *content.descriptor.digest() {
        return Err(VerifyError::Damaged {
            what,
            expected: content.descriptor.digest().clone(),
            found,
        });
    }
    Ok(())
}
