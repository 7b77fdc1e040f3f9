//! Reads and writes the referrers of a manifest (`subject`): with the referrers API of distribution-spec 1.1, or with
//! its fallback tag (`sha256-<hex>`, an index of the referrers).

use std::collections::HashMap;

use http::header::ACCEPT;
use http::{HeaderValue, Method};
use oci_spec::image::{Descriptor, Digest, ImageIndex, MediaType};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::RegistryError;
use super::list::List;
use super::repository::Repository;
use crate::oci::Content;

/// Tries to update the fallback tag against concurrent writers.
const TRIES: usize = 5;

/// The fallback tag of the referrers API.
pub fn fallback_tag(subject: &Digest) -> String {
    format!("{}-{}", subject.algorithm(), subject.digest())
}

impl Repository {
    /// The descriptors of a manifest's referrers, with `artifactType` and annotations.
    pub async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        match self.listed_referrers(subject).await? {
            Some(listed) => Ok(listed),
            // Without the API, the specification requires the fallback tag.
            None => self.fallback_referrers(subject).await,
        }
    }

    /// The referrers API. Only an image index proves that the registry has it: others respond with an error, a redirect
    /// or a web page, some with status 200.
    async fn listed_referrers(&self, subject: &Digest) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let doing = format!("listing the referrers in {} of {subject}", self.path());
        let mut call = self.call(doing, Method::GET, &format!("referrers/{subject}"));
        let index = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
        call.headers.insert(ACCEPT, index);
        let mut list = List::new(self, call, |body| {
            let page = index_of(body).ok_or("it is not an image index")?;
            let entries = page.manifests().iter().cloned();
            Ok(entries.map(|entry| (entry.digest().to_string(), entry)).collect())
        });
        let page = match list.request(None).await {
            Ok(page) if page.status() == StatusCode::OK => page,
            Ok(_) | Err(RegistryError::Denied { .. } | RegistryError::Token { .. }) => return Ok(None),
            Err(RegistryError::Status { status, .. }) if no_api(status) => return Ok(None),
            Err(error) => return Err(error),
        };
        match list.read(page).await {
            Ok(_) => Ok(Some(list.items)),
            Err(_) if list.is_foreign => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the registry's list of referrers can be read. A proxy may block it although the registry itself has it
    /// and sends `OCI-Subject`. Then the clients behind the proxy need the fallback tag.
    async fn has_referrers_api(&self, subject: &Digest) -> Result<bool, RegistryError> {
        if !self.client.lists_referrers() && self.listed_referrers(subject).await?.is_some() {
            self.client.note_list_of_referrers();
        }
        Ok(self.client.lists_referrers())
    }

    /// The referrers under the fallback tag. Anything but an index is not a list of referrers, and neither is the
    /// subject, which a registry returns if it takes the tag for the digest.
    async fn fallback_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let content = self.find_tag(&fallback_tag(subject)).await?;
        let content = content.filter(|content| content.descriptor.digest() != subject);
        let index = content.and_then(|content| index_of(&content.bytes));
        Ok(index.map(|index| index.manifests().clone()).unwrap_or_default())
    }

    /// Puts a manifest with a subject, and adds it to the fallback tag if the registry has no referrers API.
    pub async fn attach(&self, referrer: &Content) -> Result<(), RegistryError> {
        let digest = referrer.descriptor.digest().to_string();
        let processed = self.put_manifest(&digest, referrer).await?;
        let (subject, descriptor) = self.as_referrer(referrer)?;
        if processed && self.has_referrers_api(&subject).await? {
            return Ok(());
        }
        let tag = fallback_tag(&subject);
        let doing = format!("adding a referrer to {tag} of {}", self.path());
        for _ in 0..TRIES {
            let there = self.find_tag(&tag).await?;
            let there_digest = there.as_ref().map(|content| content.descriptor.digest().to_string());
            let mut all = match &there {
                Some(content) if *content.descriptor.digest() == subject => {
                    self.client.note(&format!(
                        "{}: the registry has neither the referrers API nor its fallback tag; it does not list {digest}",
                        self.name()
                    ));
                    return Ok(());
                }
                Some(content) => match index_of(&content.bytes) {
                    Some(index) => index.manifests().clone(),
                    None => return Err(self.client.protocol(&doing, "the tag is not an image index")),
                },
                None => Vec::new(),
            };
            if all.iter().any(|known| known.digest() == descriptor.digest()) {
                return Ok(());
            }
            all.push(descriptor.clone());
            let index = json!({
                "schemaVersion": 2,
                "mediaType": MediaType::ImageIndex.to_string(),
                "manifests": all,
            });
            let content = Content::new(MediaType::ImageIndex, index.to_string());
            self.put_manifest(&tag, &content).await?;
            // Some registries show the earlier list for some seconds. The next addition must start from this one.
            for wait in self.client.patience.waits() {
                if self.read_tag_digest(&tag).await? != there_digest {
                    break;
                }
                tokio::time::sleep(wait).await;
            }
        }
        Err(self.client.protocol(&doing, "concurrent writers keep changing it"))
    }

    /// A referrer's subject, and the referrer's entry in a list of referrers.
    fn as_referrer(&self, referrer: &Content) -> Result<(Digest, Descriptor), RegistryError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Manifest {
            subject: Option<Descriptor>,
            artifact_type: Option<String>,
            config: Option<Value>,
            annotations: Option<HashMap<String, String>>,
        }
        let digest = referrer.descriptor.digest();
        let doing = format!("attaching {digest} in {}", self.path());
        let manifest: Manifest =
            serde_json::from_slice(&referrer.bytes).map_err(|e| self.client.protocol(&doing, e.to_string()))?;
        let subject = manifest
            .subject
            .ok_or_else(|| self.client.protocol(&doing, "it has no subject"))?;
        let mut descriptor = Descriptor::new(
            referrer.descriptor.media_type().clone(),
            referrer.bytes.len() as u64,
            digest.clone(),
        );
        let config_type = manifest
            .config
            .and_then(|c| c["mediaType"].as_str().map(str::to_string));
        let artifact_type = manifest.artifact_type.or(config_type);
        descriptor.set_artifact_type(artifact_type.map(|t| t.as_str().into()));
        descriptor.set_annotations(manifest.annotations);
        Ok((subject.digest().clone(), descriptor))
    }
}

/// The image index in a body; `None` if it is something else.
fn index_of(body: &[u8]) -> Option<ImageIndex> {
    let index: ImageIndex = serde_json::from_slice(body).ok()?;
    let is_index = index.media_type().as_ref().is_none_or(|t| *t == MediaType::ImageIndex);
    is_index.then_some(index)
}

/// Statuses of a registry, or of a proxy in front of it, that does not know the API.
fn no_api(status: StatusCode) -> bool {
    status == StatusCode::NOT_IMPLEMENTED || status == StatusCode::TOO_MANY_REQUESTS
}
