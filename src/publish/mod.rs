//! A verified image becomes what a registry's users pull: blobs, platform manifests, index, artifacts, and **then** the tag.
//!
//! A tag of a destination therefore stands for the old image or for the whole new one, whenever this ends. What a run has
//! brought there is found by the next one, which sends the rest. With several destinations a blob is read once, and no
//! tag is set before all of them have everything.

mod attach;
mod blobs;
mod error;
mod promote;
mod record;
mod signatures;
mod tags;

use std::sync::Arc;

use futures_util::future::{try_join, try_join_all};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::layout::{self, Layout};
use crate::oci::{Artifact, Content, ImageReference, Place, RepositoryName};
use crate::progress::Progress;
use crate::registry::{Access, Meter, Registries, Repository, Source};
use crate::verify::{Verdict, Verified};

pub use attach::attach;
pub use blobs::Counts;
pub use error::PublishError;
pub use promote::promote;
pub use record::RECORD_TYPE;
pub use tags::TagChange;

/// A tag to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub repository: RepositoryName,
    pub tag: String,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

impl Destination {
    /// Destinations as the person wrote them; those without a tag get `default_tag`.
    pub fn parse_all(references: &[String], default_tag: Option<&str>) -> anyhow::Result<Vec<Self>> {
        let parsed = references.iter().map(|text| {
            let reference: ImageReference = text.parse()?;
            Ok(Self::new(&reference, default_tag)?)
        });
        parsed.collect()
    }

    /// A destination as the person wrote it; without a tag, that of the source.
    pub fn new(reference: &ImageReference, default_tag: Option<&str>) -> Result<Self, PublishError> {
        let bad = |reason: &str| PublishError::Destination {
            reference: reference.to_string(),
            reason: reason.to_string(),
        };
        if reference.digest.is_some() {
            return Err(bad("a digest cannot be chosen; name a tag"));
        }
        let tag = reference.tag.as_deref().or(default_tag);
        Ok(Self {
            repository: reference.repository.clone(),
            tag: tag.ok_or_else(|| bad("it has no tag"))?.to_string(),
        })
    }
}

/// What was done. Its JSON is user interface.
#[derive(Clone, Debug, Serialize)]
pub struct Published {
    pub digest: String,
    pub destinations: Vec<Delivered>,
    /// Bytes of blobs that were sent, all destinations together.
    pub bytes_sent: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Delivered {
    /// `HOST/PATH:TAG`
    pub reference: String,
    pub tag: TagChange,
    /// Blobs of its repository, by how they came there.
    pub blobs: Counts,
    /// Signatures, attestations and other artifacts.
    pub artifacts: usize,
}

/// Publishes an image of a layout, verified, with `artifacts` made for it, under every destination.
///
/// `index` is what the layout's tag stands for; the verdicts have to cover each of its platforms.
pub async fn publish(
    layout: &Layout,
    index: &Verified<Descriptor>,
    destinations: &[Destination],
    artifacts: &[Artifact],
    registries: &Registries,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Published, PublishError> {
    let shipment = Shipment::from_layout(layout, index, artifacts)?;
    tokio::select! {
        published = ship(&shipment, destinations, registries, progress) => published,
        () = cancel.cancelled() => Err(PublishError::Cancelled),
    }
}

/// Everything that belongs to an image, and where its bytes are.
struct Shipment {
    root: Content,
    /// The manifests that the root names.
    manifests: Vec<Content>,
    blobs: Vec<Item>,
    artifacts: Vec<(Content, Place)>,
    artifact_blobs: Vec<Item>,
    /// Repositories that may have some of the blobs.
    mount_from: Vec<RepositoryName>,
    /// The repository that has all of it already.
    origin: Option<RepositoryName>,
}

struct Item {
    blob: Descriptor,
    source: Source,
}

/// A repository among the destinations.
struct Site {
    name: RepositoryName,
    repository: Repository,
    tags: Vec<String>,
    /// Has all of the image, being where it comes from.
    complete: bool,
}

impl Shipment {
    fn from_layout(
        layout: &Layout,
        index: &Verified<Descriptor>,
        artifacts: &[Artifact],
    ) -> Result<Self, PublishError> {
        let content = |descriptor: &Descriptor| {
            let bytes = layout.read_blob(descriptor)?.into();
            let descriptor = descriptor.clone();
            Ok::<_, PublishError>(Content { descriptor, bytes })
        };
        let root = content(index)?;
        let mut manifests = Vec::new();
        if layout::is_index(root.descriptor.media_type()) {
            let parsed: ImageIndex = parse(&root)?;
            for child in parsed.manifests() {
                manifests.push(content(child)?);
            }
        }
        let images = if manifests.is_empty() {
            std::slice::from_ref(&root)
        } else {
            &manifests
        };
        all_verified(images, index.verdicts())?;
        let mut blobs: Vec<Item> = Vec::new();
        let mut mount_from = Vec::new();
        for image in images {
            let manifest: ImageManifest = parse(image)?;
            for blob in manifest.layers().iter().chain([manifest.config()]) {
                blobs.push(Item {
                    source: Source::File(layout.blob_path(blob.digest())?),
                    blob: blob.clone(),
                });
            }
            let config: Option<ImageConfiguration> = layout.read_json(manifest.config()).ok();
            mount_from.extend(config.as_ref().and_then(base_repository));
        }
        Ok(Self {
            root,
            manifests,
            blobs,
            artifacts: artifacts
                .iter()
                .map(|a| (a.manifest.clone(), a.place.clone()))
                .collect(),
            artifact_blobs: artifacts.iter().flat_map(|a| &a.blobs).map(in_memory).collect(),
            mount_from,
            origin: None,
        })
    }
}

fn in_memory(content: &Content) -> Item {
    Item {
        blob: content.descriptor.clone(),
        source: Source::Memory(content.bytes.clone()),
    }
}

/// The repository of the base, which has the base's layers if it is on the same registry.
fn base_repository(config: &ImageConfiguration) -> Option<RepositoryName> {
    let labels = config.config().as_ref()?.labels().as_ref()?;
    let base: ImageReference = labels.get("org.opencontainers.image.base.name")?.parse().ok()?;
    Some(base.repository)
}

fn parse<T: serde::de::DeserializeOwned>(content: &Content) -> Result<T, PublishError> {
    serde_json::from_slice(&content.bytes).map_err(|source| PublishError::Document {
        digest: content.descriptor.digest().to_string(),
        source,
    })
}

/// Every manifest is one that a verdict is about. BuildKit's attestations, of the platform `unknown/unknown`, cannot be run.
fn all_verified(images: &[Content], verdicts: &[Verdict]) -> Result<(), PublishError> {
    let is_attestation = |d: &Descriptor| d.platform().as_ref().is_some_and(|p| p.os().to_string() == "unknown");
    let judged = |digest: &str| verdicts.iter().any(|v| v.digest() == Some(digest) && v.passed());
    let unverified = images
        .iter()
        .map(|image| &image.descriptor)
        .find(|d| !is_attestation(d) && !judged(d.digest().as_ref()));
    match unverified {
        None => Ok(()),
        Some(descriptor) => Err(PublishError::Unverified {
            digest: descriptor.digest().to_string(),
        }),
    }
}

/// Brings a shipment to every destination, in the order that makes it safe to stop anywhere.
async fn ship(
    shipment: &Shipment,
    destinations: &[Destination],
    registries: &Registries,
    progress: &dyn Progress,
) -> Result<Published, PublishError> {
    let sites = sites(shipment, destinations, registries)?;
    progress.step("looking at the destinations");
    let before = tags::look(&sites, shipment, registries).await?;
    let incomplete: Vec<&Site> = sites.iter().filter(|site| !site.complete).collect();
    let meter = Arc::new(Meter::default());
    progress.step("uploading blobs");
    let (counts, missing) = try_join(
        blobs::deliver(&incomplete, &shipment.blobs, &shipment.mount_from, &meter, progress),
        try_join_all(incomplete.iter().map(|site| missing_manifests(site, shipment))),
    )
    .await?;
    progress.step("uploading manifests");
    let puts = incomplete.iter().zip(&missing);
    try_join_all(puts.map(|(site, missing)| put_manifests(site, shipment, missing))).await?;
    progress.step("uploading artifacts");
    let record = |site: &Site| record::of(site, shipment, &before, registries);
    blobs::deliver(
        &incomplete,
        &shipment.artifact_blobs,
        &shipment.mount_from,
        &meter,
        progress,
    )
    .await?;
    let artifacts = try_join_all(
        sites
            .iter()
            .map(|site| put_artifacts(site, shipment, record(site), &meter)),
    )
    .await?;
    progress.step("setting tags");
    let changes = tags::set(&sites, shipment, &before, registries).await?;
    let mut delivered = Vec::new();
    for (destination, tag) in destinations.iter().zip(changes) {
        let of = |s: &&Site| s.name == destination.repository;
        let counted = incomplete.iter().position(of);
        let at = sites.iter().position(|site| of(&site));
        delivered.push(Delivered {
            reference: destination.to_string(),
            tag,
            blobs: counted.map(|i| counts[i]).unwrap_or_default(),
            artifacts: at.map(|i| artifacts[i]).unwrap_or_default(),
        });
    }
    Ok(Published {
        digest: shipment.root.descriptor.digest().to_string(),
        destinations: delivered,
        bytes_sent: meter.sent(),
    })
}

fn sites(
    shipment: &Shipment,
    destinations: &[Destination],
    registries: &Registries,
) -> Result<Vec<Site>, PublishError> {
    let mut sites: Vec<Site> = Vec::new();
    for destination in destinations {
        let name = &destination.repository;
        match sites.iter_mut().find(|site| site.name == *name) {
            Some(site) if site.tags.contains(&destination.tag) => {}
            Some(site) => site.tags.push(destination.tag.clone()),
            None => sites.push(Site {
                repository: registries.repository(name, Access::Push)?,
                complete: shipment.origin.as_ref() == Some(name),
                tags: vec![destination.tag.clone()],
                name: name.clone(),
            }),
        }
    }
    Ok(sites)
}

/// The manifests that the site does not have.
async fn missing_manifests<'a>(site: &Site, shipment: &'a Shipment) -> Result<Vec<&'a Content>, PublishError> {
    let all = shipment.manifests.iter().chain([&shipment.root]);
    let looked = try_join_all(all.map(async |manifest| {
        let has = site.repository.has_manifest(manifest.descriptor.digest()).await?;
        Ok::<_, PublishError>((!has).then_some(manifest))
    }));
    Ok(looked.await?.into_iter().flatten().collect())
}

/// The manifests by digest: what the index names before the index.
async fn put_manifests(site: &Site, shipment: &Shipment, manifests: &[&Content]) -> Result<(), PublishError> {
    let put = async |manifest: &&Content| {
        let digest = manifest.descriptor.digest();
        site.repository.put_manifest(digest.as_ref(), manifest).await
    };
    let root = shipment.root.descriptor.digest();
    let (root, others): (Vec<_>, Vec<_>) = manifests.iter().partition(|m| m.descriptor.digest() == root);
    try_join_all(others.into_iter().map(put)).await?;
    try_join_all(root.into_iter().map(put)).await?;
    Ok(())
}

/// One after the other: several may have the same subject, whose list of referrers is read and written.
async fn put_artifacts(
    site: &Site,
    shipment: &Shipment,
    record: Option<Artifact>,
    meter: &Arc<Meter>,
) -> Result<usize, PublishError> {
    if let Some(record) = &record {
        let blobs: Vec<Item> = record.blobs.iter().map(in_memory).collect();
        blobs::deliver(&[site], &blobs, &[], meter, &crate::progress::Silent).await?;
        site.repository.attach(&record.manifest).await?;
    }
    if site.complete {
        return Ok(0);
    }
    for (manifest, place) in &shipment.artifacts {
        match place {
            Place::Tag(tag) => signatures::put(site, tag, manifest, meter).await?,
            Place::Referrer => site.repository.attach(manifest).await?,
        }
    }
    Ok(shipment.artifacts.len())
}
