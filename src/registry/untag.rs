//! Removes a tag but not its image, which may have other tags. After a failure, the tag points to what it did before;
//! after a crash between two steps it may point to a [`Dummy`], from which the next removal continues.

use oci_spec::image::{ImageManifest, MediaType};
use reqwest::StatusCode;
use serde_json::json;

use super::error::RegistryError;
use super::repository::Repository;
use super::source::Source;
use crate::oci::Content;

const ENABLE: &str = "enable deletion in the registry (docker-registry: storage.delete.enabled), or remove the tag with \
                      the registry's own interface";

/// Tries to see that a tag is gone; with the default patience some 8 seconds.
const LATE: usize = 5;

/// The annotation of a dummy with the digest of the image that the tag had.
const REMOVING: &str = "dev.obgp-build.removing";

/// The manifest to which a tag points while it is removed.
pub(super) struct Dummy {
    /// The digest of the image that the tag had.
    pub image: String,
}

impl Dummy {
    /// `None` if the manifest is not a dummy.
    pub fn read(content: &Content) -> Option<Self> {
        let manifest: ImageManifest = serde_json::from_slice(&content.bytes).ok()?;
        let image = manifest.annotations().as_ref()?.get(REMOVING)?.clone();
        manifest.layers().is_empty().then_some(Self { image })
    }
}

/// The responses of registries before distribution-spec 1.1 to DELETE of a tag. Other errors are about this tag.
fn lacks_deletion_of_tags(error: &RegistryError) -> bool {
    let statuses = [
        StatusCode::BAD_REQUEST,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::NOT_IMPLEMENTED,
    ];
    matches!(error, RegistryError::Status { status, .. } if statuses.contains(status))
}

/// The response to a DELETE.
enum Deletion {
    Done,
    /// There is no such manifest or tag.
    Unknown,
    Refused(RegistryError),
}

impl Repository {
    /// Removes a tag that points to `image`. Registries before distribution-spec 1.1 delete manifests only by digest,
    /// with every tag that points to them. There the tag is first moved to a dummy manifest, which is then deleted.
    /// `image` may be the dummy of a removal that did not end.
    pub async fn remove_tag(&self, tag: &str, image: &Content) -> Result<(), RegistryError> {
        match self.delete(tag).await? {
            Deletion::Done => return Ok(()),
            Deletion::Refused(error) if !lacks_deletion_of_tags(&error) => {
                return Err(self.not_removed(tag, &error.to_string()));
            }
            Deletion::Unknown | Deletion::Refused(_) => {}
        }
        if let Some(dummy) = Dummy::read(image) {
            let Err(error) = self.delete_tagged(tag, image).await else {
                return Ok(());
            };
            return match self.find_manifest(&dummy.image).await? {
                Some(image) => Err(self.set_back(tag, &image, error.to_string()).await),
                None => Err(self.not_removed(tag, &error.to_string())),
            };
        }
        let config = Content::new(MediaType::ImageConfig, "{}".to_string());
        // The tag and the time make the dummy unique.
        let dummy = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.to_string(),
            "config": config.descriptor,
            "layers": [],
            "annotations": {
                REMOVING: image.descriptor.digest(),
                "dev.obgp-build.tag": format!("{tag} {}", jiff::Timestamp::now()),
            },
        });
        let dummy = Content::new(MediaType::ImageManifest, dummy.to_string());
        // A registry that deletes nothing refuses this as well, before anything is written.
        if let Deletion::Refused(error) = self.delete(dummy.descriptor.digest().as_ref()).await? {
            return Err(self.not_removed(tag, &error.to_string()));
        }
        if !self.has_blob(&config.descriptor).await? {
            let source = Source::Memory(config.bytes.clone());
            self.upload(&config.descriptor, &source, None, &Default::default())
                .await?;
        }
        let deleted = match self.put_manifest(tag, &dummy).await {
            Ok(_) => self.delete_tagged(tag, &dummy).await,
            // The tag was not moved.
            Err(error) if error.is_refusal() => return Err(self.not_removed(tag, &error.to_string())),
            Err(error) => Err(error),
        };
        match deleted {
            Ok(()) => Ok(()),
            Err(error) => Err(self.set_back(tag, image, error.to_string()).await),
        }
    }

    /// Sets a tag that could not be removed to its image again, and returns the error of the removal.
    async fn set_back(&self, tag: &str, image: &Content, reason: String) -> RegistryError {
        match self.put_manifest(tag, image).await {
            Ok(_) => self.not_removed(tag, &reason),
            Err(source) => RegistryError::NotSetBack {
                repository: self.name(),
                tag: tag.to_string(),
                digest: image.descriptor.digest().to_string(),
                reason,
                source: Box::new(source),
            },
        }
    }

    /// Deletes the dummy, and waits until the tag is gone.
    async fn delete_tagged(&self, tag: &str, dummy: &Content) -> Result<(), RegistryError> {
        let digest = dummy.descriptor.digest();
        if let Deletion::Refused(error) = self.delete(digest.as_ref()).await? {
            return Err(error);
        }
        // Some registries delete a manifest and keep its tags; others show a deleted tag for some seconds.
        let mut waits = self.client.patience.waits().take(LATE);
        while self.read_tag_digest(tag).await?.as_deref() == Some(digest.as_ref()) {
            let Some(wait) = waits.next() else {
                let doing = format!("deleting the manifest {digest} of {}", self.path());
                return Err(self.client.protocol(&doing, "the registry still has its tag"));
            };
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    fn not_removed(&self, tag: &str, reason: &str) -> RegistryError {
        RegistryError::NotRemoved {
            reference: format!("{}:{tag}", self.name()),
            // Without the help of that error: this one has its own.
            reason: reason.lines().next().unwrap_or_default().to_string(),
            help: ENABLE,
        }
    }

    /// Deletes a manifest by digest, or a tag.
    async fn delete(&self, target: &str) -> Result<Deletion, RegistryError> {
        let doing = format!("deleting the manifest {target} of {}", self.path());
        let call = self.call(doing, http::Method::DELETE, &format!("manifests/{target}"));
        let response = match self.send(&call).await {
            Ok(response) => response,
            Err(error @ RegistryError::Status { .. }) if !error.is_transient() => return Ok(Deletion::Refused(error)),
            Err(error) => return Err(error),
        };
        match response.status() {
            status if status.is_success() => Ok(Deletion::Done),
            StatusCode::NOT_FOUND => Ok(Deletion::Unknown),
            _ => Ok(Deletion::Refused(self.client.refused(&call.doing, response).await)),
        }
    }
}
