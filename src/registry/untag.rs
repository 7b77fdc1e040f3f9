//! Removes a tag but not its image, which may have other tags.

use oci_spec::image::MediaType;
use serde_json::json;

use super::error::RegistryError;
use super::repository::Repository;
use super::source::Source;
use crate::oci::Content;

impl Repository {
    /// Removes a tag. Registries before distribution-spec 1.1 delete manifests only by digest, with every tag that
    /// points to them. There the tag is first moved to a dummy manifest, which is then deleted.
    pub async fn remove_tag(&self, tag: &str) -> Result<(), RegistryError> {
        if self.delete(tag).await? {
            return Ok(());
        }
        let config = Content::new(MediaType::ImageConfig, "{}".to_string());
        if !self.has_blob(&config.descriptor).await? {
            let source = Source::Memory(config.bytes.clone());
            self.upload(&config.descriptor, &source, None, &Default::default())
                .await?;
        }
        // The tag and the time make the dummy unique.
        let dummy = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.to_string(),
            "config": config.descriptor,
            "layers": [],
            "annotations": { "dev.obgp-build.removing": format!("{tag} {}", jiff::Timestamp::now()) },
        });
        let dummy = Content::new(MediaType::ImageManifest, dummy.to_string());
        self.put_manifest(tag, &dummy).await?;
        self.delete(dummy.descriptor.digest().as_ref()).await?;
        Ok(())
    }
}
