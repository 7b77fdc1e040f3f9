//! Reads and writes the referrers of a manifest (`subject`): with the referrers API of distribution-spec 1.1, or with
//! its fallback tag (`sha256-<hex>`, an index of the referrers).

use std::collections::HashMap;

use http::Method;
use oci_spec::image::{Descriptor, Digest, ImageIndex, MediaType};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Target, bounded_body};
use super::error::RegistryError;
use super::repository::Repository;
use crate::oci::Content;

const INDEX_BYTES: usize = 4 << 20;
/// Tries to update the fallback tag against concurrent writers.
const TRIES: usize = 5;

/// The fallback tag of the referrers API.
pub fn fallback_tag(subject: &Digest) -> String {
    format!("{}-{}", subject.algorithm(), subject.digest())
}

impl Repository {
    /// The descriptors of a manifest's referrers, with `artifactType` and annotations.
    pub async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let doing = format!("listing the referrers in {} of {subject}", self.path());
        let mut call = self.call(doing, Method::GET, &format!("referrers/{subject}"));
        let mut found = Vec::new();
        loop {
            let response = self.send(&call).await?;
            match response.status() {
                StatusCode::OK => {}
                // Without the API, the specification requires the fallback tag.
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST => {
                    return self.fallback_referrers(subject).await;
                }
                _ => return Err(self.client.refused(&call.doing, response).await),
            }
            let next = super::repository::next_page(&response);
            let body = bounded_body(response, INDEX_BYTES).await;
            let body = body.map_err(|reason| self.client.protocol(&call.doing, reason))?;
            let page: ImageIndex =
                serde_json::from_slice(&body).map_err(|e| self.client.protocol(&call.doing, e.to_string()))?;
            found.extend(page.manifests().iter().cloned());
            match next {
                Some(url) => call.target = Target::Url(url),
                None => return Ok(found),
            }
        }
    }

    async fn fallback_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        match self.find_manifest(&fallback_tag(subject)).await? {
            Some(content) => self.listed(&content),
            None => Ok(Vec::new()),
        }
    }

    fn listed(&self, index: &Content) -> Result<Vec<Descriptor>, RegistryError> {
        let parsed: Result<ImageIndex, _> = serde_json::from_slice(&index.bytes);
        let parsed = parsed.map_err(|e| {
            let doing = format!("reading the referrers in {}", self.path());
            self.client
                .protocol(&doing, format!("{} is not an index: {e}", index.descriptor.digest()))
        })?;
        Ok(parsed.manifests().clone())
    }

    /// Puts a manifest with a subject, and adds it to the fallback tag if the registry has no referrers API.
    pub async fn attach(&self, referrer: &Content) -> Result<(), RegistryError> {
        let digest = referrer.descriptor.digest().to_string();
        if self.put_manifest(&digest, referrer).await? {
            return Ok(());
        }
        let (subject, descriptor) = self.as_referrer(referrer)?;
        let tag = fallback_tag(&subject);
        for _ in 0..TRIES {
            let mut all = self.fallback_referrers(&subject).await?;
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
        }
        let doing = format!("adding a referrer to {tag} of {}", self.path());
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
