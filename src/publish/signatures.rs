//! Adds signatures to a tag (`sha256-<hex>.sig`, `.att`), and keeps existing ones, as cosign does.

use std::sync::Arc;

use oci_spec::image::MediaType;
use serde_json::{Value, json};

use super::{Item, PublishError, Site, blobs, in_memory, parse};
use crate::layout;
use crate::oci::Content;
use crate::progress::Silent;
use crate::registry::Meter;

/// Puts the manifest under the tag; if the tag exists, a manifest with the layers of both.
pub(super) async fn put(site: &Site, tag: &str, manifest: &Content, meter: &Arc<Meter>) -> Result<(), PublishError> {
    let Some(there) = site.repository.find_tag(tag).await? else {
        site.repository.put_manifest(tag, manifest).await?;
        return Ok(());
    };
    if there.descriptor.digest() == manifest.descriptor.digest() {
        return Ok(());
    }
    if [&there, manifest]
        .iter()
        .any(|one| !layout::is_manifest(one.descriptor.media_type()))
    {
        return Err(PublishError::Unmergeable {
            repository: site.name.to_string(),
            tag: tag.to_string(),
        });
    }
    let Some((config, merged)) = merge(&there, manifest)? else {
        return Ok(());
    };
    let blobs: Vec<Item> = vec![in_memory(&config)];
    blobs::deliver(&[site], &blobs, &[], meter, &Silent).await?;
    site.repository.put_manifest(tag, &merged).await?;
    Ok(())
}

/// The layers of both manifests and their config; `None` if `there` has all layers of `new`.
fn merge(there: &Content, new: &Content) -> Result<Option<(Content, Content)>, PublishError> {
    let mut merged: Value = parse(there)?;
    let new: Value = parse(new)?;
    let list = |manifest: &Value| manifest["layers"].as_array().cloned().unwrap_or_default();
    let mut layers = list(&merged);
    let before = layers.len();
    // Several keys may sign the same payload: the annotations distinguish their signatures.
    let same = |a: &Value, b: &Value| a["digest"] == b["digest"] && a["annotations"] == b["annotations"];
    for layer in list(&new) {
        if !layers.iter().any(|known| same(known, &layer)) {
            layers.push(layer);
        }
    }
    if layers.len() == before {
        return Ok(None);
    }
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = Content::new(MediaType::ImageConfig, config.to_string());
    merged["config"] = json!(config.descriptor);
    merged["layers"] = layers.into();
    let manifest = Content::new(there.descriptor.media_type().clone(), merged.to_string());
    Ok(Some((config, manifest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(by: &[&str]) -> Content {
        let digest = format!("sha256:{}", "a".repeat(64));
        let layers: Vec<Value> = by
            .iter()
            .map(|key| json!({"mediaType": "x/y", "digest": digest, "size": 1, "annotations": {"sig": key}}))
            .collect();
        Content::new(
            MediaType::ImageManifest,
            json!({"schemaVersion": 2, "layers": layers}).to_string(),
        )
    }

    #[test]
    fn others_signatures_stay_and_ours_comes_once() {
        let (config, merged) = merge(&signed(&["theirs"]), &signed(&["ours"])).unwrap().unwrap();
        let manifest: Value = serde_json::from_slice(&merged.bytes).unwrap();
        let keys: Vec<&str> = manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["annotations"]["sig"].as_str().unwrap())
            .collect();
        assert_eq!(keys, ["theirs", "ours"]);
        assert_eq!(manifest["config"]["digest"], json!(config.descriptor.digest()));
        assert!(merge(&merged, &signed(&["ours"])).unwrap().is_none());
    }
}
