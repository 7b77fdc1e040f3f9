//! Copies an image into other repositories by digest: index, manifests, blobs, signatures, attestations, referrers, and
//! the tag.

use std::collections::HashSet;

use futures_util::future::try_join_all;
use oci_spec::image::{Digest, ImageManifest, MediaType};
use tokio_util::sync::CancellationToken;

use super::{Destination, Item, Publication, PublishError, Published, RECORD_TYPE, all_verified, parse, transfer};
use crate::layout;
use crate::oci::{Content, Place, RepositoryName};
use crate::progress::Progress;
use crate::registry::{Registries, RemoteImage, Repository, Source, fallback_tag};
use crate::verify::Verified;

/// Suffixes of cosign 2's tags for an image.
const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];
/// A signature of an attestation of an image; deeper nesting does not occur.
const DEPTH: usize = 3;

/// Copies a verified image to every destination. Within a registry, blobs are mounted instead of transferred.
pub async fn promote(
    image: &Verified<RemoteImage>,
    destinations: &[Destination],
    registries: &Registries,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Published, PublishError> {
    let work = async {
        let publication = publication(image, destinations, progress).await?;
        transfer(&publication, destinations, registries, progress).await
    };
    tokio::select! {
        published = work => published,
        () = cancel.cancelled() => Err(PublishError::Cancelled),
    }
}

async fn publication(
    image: &Verified<RemoteImage>,
    destinations: &[Destination],
    progress: &dyn Progress,
) -> Result<Publication, PublishError> {
    let repository = &image.repository;
    let origin = RepositoryName {
        registry: repository.host().to_string(),
        path: repository.path().to_string(),
    };
    let manifests: Vec<Content> = image
        .platforms
        .iter()
        .map(|(_, content)| content)
        .chain(&image.others)
        .cloned()
        .collect();
    all_verified(&manifests, image.verdicts())?;
    let from = |blob| Item {
        blob,
        source: Source::Remote(repository.clone()),
    };
    let mut artifacts = Vec::new();
    // In the source repository itself, the artifacts are already in place.
    if destinations.iter().any(|destination| destination.repository != origin) {
        progress.step("finding signatures, attestations and referrers");
        artifacts = beside(image).await?;
    }
    let mut seen = HashSet::new();
    let mut artifact_blobs = Vec::new();
    for (content, _) in &artifacts {
        let manifest: ImageManifest = parse(content)?;
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            if seen.insert(blob.digest().to_string()) {
                artifact_blobs.push(from(blob.clone()));
            }
        }
    }
    let is_index = layout::is_index(image.root.descriptor.media_type());
    Ok(Publication {
        root: image.root.clone(),
        manifests: if is_index { manifests } else { Vec::new() },
        blobs: image.blobs()?.into_iter().map(from).collect(),
        artifacts,
        artifact_blobs,
        mount_from: vec![origin.clone()],
        origin: Some(origin),
    })
}

/// All artifacts that can be found from the image's digests.
async fn beside(image: &RemoteImage) -> Result<Vec<(Content, Place)>, PublishError> {
    let repository = &image.repository;
    let children = image.platforms.iter().map(|(_, content)| content).chain(&image.others);
    let mut digests: Vec<Digest> = vec![image.root.descriptor.digest().clone()];
    for child in children {
        if !digests.contains(child.descriptor.digest()) {
            digests.push(child.descriptor.digest().clone());
        }
    }
    let tagged = digests
        .iter()
        .flat_map(|digest| SUFFIXES.map(|suffix| format!("{}.{suffix}", fallback_tag(digest))))
        .map(|tag| async move {
            let found = repository.find_manifest(&tag).await?;
            Ok::<_, PublishError>(found.map(|content| (content, Place::Tag(tag))))
        });
    let mut found: Vec<(Content, Place)> = try_join_all(tagged).await?.into_iter().flatten().collect();
    let mut known = HashSet::new();
    for _ in 0..DEPTH {
        let listed = try_join_all(digests.iter().map(|digest| referrers(repository, digest))).await?;
        digests.clear();
        for content in listed.into_iter().flatten() {
            if known.insert(content.descriptor.digest().to_string()) {
                digests.push(content.descriptor.digest().clone());
                found.push((content, Place::Referrer));
            }
        }
    }
    Ok(found)
}

async fn referrers(repository: &Repository, subject: &Digest) -> Result<Vec<Content>, PublishError> {
    let listed = repository.referrers(subject).await?;
    let wanted = listed.iter().filter(|referrer| {
        // The record of a push applies only to its repository.
        *referrer.media_type() == MediaType::ImageManifest
            && referrer
                .artifact_type()
                .as_ref()
                .is_none_or(|t| t.as_ref() != RECORD_TYPE)
    });
    let fetched = wanted.map(|referrer| async move { repository.manifest(referrer.digest().as_ref()).await });
    Ok(try_join_all(fetched).await?)
}
