//! cosign 2's discovery of artifacts: a tag derived from the image's digest, with one manifest that has a layer per
//! signature. New layers are added; existing layers are kept.

use oci_spec::image::{Descriptor, Digest, ImageManifest, MediaType};
use serde_json::{Value, json};

use super::error::SignError;
use super::manifest::{json_content, sha256_hex};
use super::{LAYERS_LIMIT, MANIFEST_LIMIT};
use crate::oci::{Artifact, Content, Place};

/// The annotation with a payload's signature; on an attestation it is present and empty.
pub(super) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// The tag of the signatures of `digest`.
pub fn signature_tag(digest: &Digest) -> Result<String, SignError> {
    Ok(format!("sha256-{}.sig", sha256_hex(digest)?))
}

/// The tag of the attestations of `digest`.
pub fn attestation_tag(digest: &Digest) -> Result<String, SignError> {
    Ok(format!("sha256-{}.att", sha256_hex(digest)?))
}

/// The existing manifest of a tag, before a layer is added.
pub(super) struct Existing<'a> {
    tag: &'a str,
    bytes: &'a [u8],
    document: Value,
    layers: Vec<Descriptor>,
}

impl<'a> Existing<'a> {
    pub fn read(tag: &'a str, bytes: &'a [u8]) -> Result<Self, SignError> {
        let refused = |reason: String| SignError::Existing {
            tag: tag.to_string(),
            reason,
        };
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(refused(format!(
                "its {} bytes exceed the limit of {MANIFEST_LIMIT}",
                bytes.len()
            )));
        }
        let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(|e| refused(e.to_string()))?;
        let is_image = manifest.media_type().as_ref() == Some(&MediaType::ImageManifest);
        if !is_image || *manifest.config().media_type() != MediaType::ImageConfig {
            return Err(refused("it is not an OCI manifest in cosign's format".into()));
        }
        Ok(Self {
            tag,
            bytes,
            document: serde_json::from_slice(bytes).map_err(|e| refused(e.to_string()))?,
            layers: manifest.layers().clone(),
        })
    }

    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// The unchanged artifact, if there is nothing to add.
    pub fn unchanged(&self, blob: Content) -> Artifact {
        Artifact {
            manifest: Content::new(MediaType::ImageManifest, self.bytes.to_vec()),
            blobs: vec![blob],
            place: Place::Tag(self.tag.to_string()),
        }
    }
}

/// Adds `blob` as a layer, and a matching config. The blobs of the existing layers are in the registry and not
/// repeated.
pub(super) fn append(tag: &str, existing: Option<Existing<'_>>, blob: Content) -> Result<Artifact, SignError> {
    if let Some(full) = existing
        .as_ref()
        .filter(|existing| existing.layers.len() >= LAYERS_LIMIT)
    {
        return Err(SignError::Existing {
            tag: tag.to_string(),
            reason: format!("it already has {} layers", full.layers.len()),
        });
    }
    let (mut document, mut layers) = match existing {
        Some(existing) => (existing.document, existing.layers),
        None => (
            json!({"schemaVersion": 2, "mediaType": MediaType::ImageManifest.as_ref(), "layers": []}),
            Vec::new(),
        ),
    };
    layers.push(blob.descriptor.clone());
    let diff_ids: Vec<&Digest> = layers.iter().map(Descriptor::digest).collect();
    let config = json_content(
        MediaType::ImageConfig,
        "a signature's configuration",
        &json!({
            "architecture": "",
            "config": {},
            "os": "",
            // Minimal, like cosign's.
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }),
    )?;
    let unwritable = |reason: String| SignError::Write {
        what: "a signature's manifest",
        reason,
    };
    document["config"] = serde_json::to_value(&config.descriptor).map_err(|e| unwritable(e.to_string()))?;
    let layer = serde_json::to_value(&blob.descriptor).map_err(|e| unwritable(e.to_string()))?;
    // Edited as JSON, so that the other layers keep unknown fields.
    let list = document["layers"].as_array_mut();
    list.ok_or_else(|| unwritable("it has no list of layers".into()))?
        .push(layer);
    Ok(Artifact {
        manifest: json_content(MediaType::ImageManifest, "a signature's manifest", &document)?,
        blobs: vec![blob, config],
        place: Place::Tag(tag.to_string()),
    })
}
