//! Inspects an image in a registry: platforms, sizes, labels, signatures and referrers. Reads no layers.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use oci_spec::image::{Digest, ImageConfiguration, ImageManifest};
use serde::Serialize;

use super::{RegistryError, RemoteImage, fallback_tag};
use crate::oci::{Content, ImageReference, Platform};

/// The JSON is part of the user interface.
#[derive(Serialize)]
pub struct Inspected {
    pub reference: String,
    pub digest: String,
    pub media_type: String,
    pub annotations: BTreeMap<String, String>,
    pub platforms: Vec<PlatformImage>,
    /// Artifacts of the index and of each platform's manifest.
    pub artifacts: Vec<Beside>,
}

#[derive(Serialize)]
pub struct PlatformImage {
    pub platform: Platform,
    pub digest: String,
    /// Compressed size of the layers, in bytes.
    pub size: u64,
    pub layers: usize,
    pub created: Option<String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Serialize)]
pub struct Beside {
    /// Digest of the manifest that the artifact refers to.
    pub subject: String,
    pub kind: Kind,
    pub digest: String,
    /// The artifact's type; for a tag, the number of signatures or attestations.
    pub what: String,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// cosign 2: the tag `sha256-<hex>.sig`
    Signatures,
    /// cosign 2: the tag `sha256-<hex>.att`
    Attestations,
    /// OCI 1.1
    Referrer,
}

pub async fn inspect(reference: &ImageReference, image: &RemoteImage) -> Result<Inspected, RegistryError> {
    let platforms = try_join_all(image.platforms.iter().map(|(p, content)| platform(image, *p, content))).await?;
    let mut subjects: Vec<&Digest> = vec![image.root.descriptor.digest()];
    subjects.extend(image.platforms.iter().map(|(_, content)| content.descriptor.digest()));
    subjects.dedup();
    let artifacts = try_join_all(subjects.into_iter().map(|subject| beside(image, subject))).await?;
    let root: serde_json::Value = image.parse(&image.root)?;
    Ok(Inspected {
        reference: reference.to_string(),
        digest: image.root.descriptor.digest().to_string(),
        media_type: image.root.descriptor.media_type().to_string(),
        annotations: serde_json::from_value(root["annotations"].clone()).unwrap_or_default(),
        platforms,
        artifacts: artifacts.into_iter().flatten().collect(),
    })
}

async fn platform(image: &RemoteImage, platform: Platform, content: &Content) -> Result<PlatformImage, RegistryError> {
    let manifest: ImageManifest = image.parse(content)?;
    let bytes = image.repository.blob(manifest.config()).await?;
    let config: ImageConfiguration = image.parse(&Content {
        descriptor: manifest.config().clone(),
        bytes,
    })?;
    Ok(PlatformImage {
        platform,
        digest: content.descriptor.digest().to_string(),
        size: manifest.layers().iter().map(|layer| layer.size()).sum(),
        layers: manifest.layers().len(),
        created: config.created().clone(),
        labels: config
            .labels_of_config()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
    })
}

async fn beside(image: &RemoteImage, subject: &Digest) -> Result<Vec<Beside>, RegistryError> {
    let repository = &image.repository;
    let mut found = Vec::new();
    for (suffix, kind) in [("sig", Kind::Signatures), ("att", Kind::Attestations)] {
        let tag = format!("{}.{suffix}", fallback_tag(subject));
        if let Some(content) = repository.find_tag(&tag).await? {
            let manifest: ImageManifest = image.parse(&content)?;
            found.push(Beside {
                subject: subject.to_string(),
                kind,
                digest: content.descriptor.digest().to_string(),
                what: manifest.layers().len().to_string(),
                annotations: BTreeMap::new(),
            });
        }
    }
    for referrer in repository.referrers(subject).await? {
        found.push(Beside {
            subject: subject.to_string(),
            kind: Kind::Referrer,
            digest: referrer.digest().to_string(),
            what: referrer
                .artifact_type()
                .as_ref()
                .map_or("without a type".into(), ToString::to_string),
            annotations: referrer.annotations().clone().unwrap_or_default().into_iter().collect(),
        });
    }
    Ok(found)
}
