//! cosign 2's way to find what belongs to an image: a tag made of its digest, under which one manifest holds a layer per
//! signature. A layer is added to what is there; nothing that is there is lost.

use oci_spec::image::{Descriptor, Digest, ImageManifest, MediaType};
use serde_json::{Value, json};

use super::error::SignError;
use super::manifest::{json_content, sha256_hex};
use super::{LAYERS_LIMIT, MANIFEST_LIMIT};
use crate::oci::{Artifact, Content, Place};

/// The annotation that holds a payload's signature; on an attestation it is there and empty.
pub(super) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// Where cosign 2 looks for the signatures of `digest`.
pub fn signature_tag(digest: &Digest) -> Result<String, SignError> {
    Ok(format!("sha256-{}.sig", sha256_hex(digest)?))
}

/// Where cosign 2 looks for the attestations of `digest`.
pub fn attestation_tag(digest: &Digest) -> Result<String, SignError> {
    Ok(format!("sha256-{}.att", sha256_hex(digest)?))
}

/// What a tag's manifest has, read before something is added to it.
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
                "its {} bytes are over the limit of {MANIFEST_LIMIT}",
                bytes.len()
            )));
        }
        let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(|e| refused(e.to_string()))?;
        let is_image = manifest.media_type().as_ref() == Some(&MediaType::ImageManifest);
        if !is_image || *manifest.config().media_type() != MediaType::ImageConfig {
            return Err(refused("it is not an OCI manifest as cosign makes it".into()));
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

    /// The artifact as it is, for when there is nothing to add to it.
    pub fn unchanged(&self, blob: Content) -> Artifact {
        Artifact {
            manifest: Content::new(MediaType::ImageManifest, self.bytes.to_vec()),
            blobs: vec![blob],
            place: Place::Tag(self.tag.to_string()),
        }
    }
}

/// The manifest with `blob` as one layer more, and a configuration to fit. The blobs of what is there already are not
/// repeated: they are in the registry.
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
            // As bare as cosign's own.
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }),
    )?;
    let unwritable = |reason: String| SignError::Write {
        what: "a signature's manifest",
        reason,
    };
    document["config"] = serde_json::to_value(&config.descriptor).map_err(|e| unwritable(e.to_string()))?;
    let layer = serde_json::to_value(&blob.descriptor).map_err(|e| unwritable(e.to_string()))?;
    // As JSON: the other layers keep fields that this program does not know.
    let list = document["layers"].as_array_mut();
    list.ok_or_else(|| unwritable("it has no list of layers".into()))?
        .push(layer);
    Ok(Artifact {
        manifest: json_content(MediaType::ImageManifest, "a signature's manifest", &document)?,
        blobs: vec![blob, config],
        place: Place::Tag(tag.to_string()),
    })
}
