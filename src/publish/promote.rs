//! Copies an image into other repositories by digest: index, manifests, blobs, signatures, attestations, referrers, and
//! the tag.

use tokio_util::sync::CancellationToken;

use super::beside::{Beside, beside};
use super::{Destination, Item, Publication, PublishError, Published, all_verified, transfer};
use crate::layout;
use crate::oci::{Content, RepositoryName};
use crate::progress::Progress;
use crate::registry::{Registries, RemoteImage, Source};
use crate::verify::Verified;

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
    let mut found = Beside::default();
    // In the source repository itself, the artifacts are already in place.
    if destinations.iter().any(|destination| destination.repository != origin) {
        progress.step("finding signatures, attestations and referrers");
        found = beside(image).await?;
    }
    let is_index = layout::is_index(image.root.descriptor.media_type());
    Ok(Publication {
        root: image.root.clone(),
        manifests: if is_index { manifests } else { Vec::new() },
        blobs: image.blobs()?.into_iter().map(from).collect(),
        artifacts: found.artifacts,
        artifact_blobs: found.blobs.into_iter().map(from).collect(),
        left: found.left,
        mount_from: vec![origin.clone()],
        origin: Some(origin),
    })
}
