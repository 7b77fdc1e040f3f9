//! Attaches artifacts to an image in a registry.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Item, Publication, PublishError, Site, blobs, in_memory, put_artifacts};
use crate::oci::{Artifact, RepositoryName};
use crate::progress::{Progress, Silent};
use crate::registry::{Access, Meter, Registries, RemoteImage};

/// Uploads `artifacts` into the image's repository. Returns their number.
pub async fn attach(
    image: &RemoteImage,
    artifacts: &[Artifact],
    registries: &Registries,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<usize, PublishError> {
    let name = RepositoryName {
        registry: image.repository.host().to_string(),
        path: image.repository.path().to_string(),
    };
    let site = Site {
        repository: registries.repository(&name, Access::Push)?,
        complete: false,
        tags: Vec::new(),
        name,
    };
    let publication = Publication {
        root: image.root.clone(),
        manifests: Vec::new(),
        blobs: Vec::new(),
        artifacts: artifacts
            .iter()
            .map(|a| (a.manifest.clone(), a.place.clone()))
            .collect(),
        artifact_blobs: Vec::new(),
        left: Vec::new(),
        mount_from: Vec::new(),
        origin: None,
    };
    let work = async {
        let meter = Arc::new(Meter::default());
        progress.step("uploading artifacts");
        let items: Vec<Item> = artifacts.iter().flat_map(|a| &a.blobs).map(in_memory).collect();
        blobs::deliver(&[&site], &items, &[], &meter, &Silent).await?;
        Ok(put_artifacts(&site, &publication, None, &meter).await?.0)
    };
    tokio::select! {
        attached = work => attached,
        () = cancel.cancelled() => Err(PublishError::Cancelled),
    }
}
