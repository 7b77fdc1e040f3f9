//! Writes the image index over the platforms of one image.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;

use super::store::{Layout, StoreError};

/// Writes the index over `manifests`, in order; each is a descriptor with its platform, as in
/// [`super::ingest::Ingested`]. Does not set a tag: see [`Layout::set_tag`].
pub fn write_index(
    layout: &Layout,
    manifests: &[Descriptor],
    annotations: &BTreeMap<String, String>,
) -> Result<Descriptor, StoreError> {
    let mut index = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageIndex.to_string(),
        "manifests": manifests,
    });
    if !annotations.is_empty() {
        index["annotations"] = json!(annotations);
    }
    layout.write_json(MediaType::ImageIndex, &index)
}
