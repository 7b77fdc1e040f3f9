//! Publishes a verified image to registries: blobs, platform manifests, index, artifacts, and **then** the tag.
//!
//! Therefore a tag in a destination always points to the old image or to the complete new one, even if a run is
//! interrupted. The next run finds the uploaded parts and sends the rest. With several destinations, a blob is read
//! once, and no tag is set before all destinations are complete.

mod attach;
mod beside;
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

/// A tag to set.
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
    /// Parses destinations as given by the user; those without a tag get `default_tag`.
    pub fn parse_all(references: &[String], default_tag: Option<&str>) -> anyhow::Result<Vec<Self>> {
        let parsed = references.iter().map(|text| {
            let reference: ImageReference = text.parse()?;
            Ok(Self::new(&reference, default_tag)?)
        });
        parsed.collect()
    }

    /// Parses a destination as given by the user; without a tag, it has the source's tag.
    pub fn new(reference: &ImageReference, default_tag: Option<&str>) -> Result<Self, PublishError> {
        let bad = |reason: &str| PublishError::Destination {
            reference: reference.to_string(),
            reason: reason.to_string(),
        };
        if reference.digest.is_some() {
            return Err(bad("use a tag instead of a digest"));
        }
        let tag = reference.tag.as_deref().or(default_tag);
        Ok(Self {
            repository: reference.repository.clone(),
            tag: tag.ok_or_else(|| bad("it has no tag"))?.to_string(),
        })
    }
}

/// The result of a publication. Its JSON is part of the user interface.
#[derive(Clone, Debug, Serialize)]
pub struct Published {
    pub digest: String,
    pub destinations: Vec<Delivered>,
    /// Bytes of sent blobs, over all destinations.
    pub bytes_sent: u64,
}

impl Published {
    /// `HOST/PATH@DIGEST` in every repository, once.
    pub fn images_by_digest(&self) -> Vec<String> {
        let repositories = self.destinations.iter().filter_map(|d| d.reference.rsplit_once(':'));
        let mut images: Vec<String> = repositories
            .map(|(name, _)| format!("{name}@{}", self.digest))
            .collect();
        images.dedup();
        images
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Delivered {
    /// `HOST/PATH:TAG`
    pub reference: String,
    pub tag: TagChange,
    /// Blobs in its repository, by origin.
    pub blobs: Counts,
    /// Number of signatures, attestations and other artifacts.
    pub artifacts: usize,
    /// Artifacts of the source that the repository does not have, with the reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}

/// Publishes a verified image in a layout, with its `artifacts`, to every destination.
///
/// `index` is the layout's tagged descriptor; the verdicts must cover each of its platforms.
pub async fn publish(
    layout: &Layout,
    index: &Verified<Descriptor>,
    destinations: &[Destination],
    artifacts: &[Artifact],
    registries: &Registries,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Published, PublishError> {
    let publication = Publication::from_layout(layout, index, artifacts)?;
    tokio::select! {
        published = transfer(&publication, destinations, registries, progress) => published,
        () = cancel.cancelled() => Err(PublishError::Cancelled),
    }
}

/// All content of an image to publish, and the sources of its bytes.
struct Publication {
    root: Content,
    /// The manifests in the root index.
    manifests: Vec<Content>,
    blobs: Vec<Item>,
    artifacts: Vec<(Content, Place)>,
    artifact_blobs: Vec<Item>,
    /// Artifacts that cannot be copied, with the reasons.
    left: Vec<String>,
    /// Repositories that may have some blobs.
    mount_from: Vec<RepositoryName>,
    /// The repository that already has the complete image.
    origin: Option<RepositoryName>,
}

struct Item {
    blob: Descriptor,
    source: Source,
}

/// A repository in the destinations.
struct Site {
    name: RepositoryName,
    repository: Repository,
    tags: Vec<String>,
    /// Whether it is the image's source, and thus complete.
    complete: bool,
}

impl Publication {
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
            left: Vec::new(),
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

/// The base's repository, which has the base's layers if it is in the same registry.
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

/// Checks that a verdict covers every manifest. Attestations cannot run: each of their layers is an in-toto statement.
fn all_verified(images: &[Content], verdicts: &[Verdict]) -> Result<(), PublishError> {
    let is_attestation = |image: &Content| layout::Role::by_manifest(&image.bytes) == Err(layout::Role::Attestation);
    let judged = |digest: &str| verdicts.iter().any(|v| v.digest() == Some(digest) && v.passed());
    let unverified = images
        .iter()
        .find(|image| !judged(image.descriptor.digest().as_ref()) && !is_attestation(image));
    match unverified {
        None => Ok(()),
        Some(image) => Err(PublishError::Unverified {
            digest: image.descriptor.digest().to_string(),
        }),
    }
}

/// Transfers the content to every destination, in an order that is safe to interrupt.
async fn transfer(
    publication: &Publication,
    destinations: &[Destination],
    registries: &Registries,
    progress: &dyn Progress,
) -> Result<Published, PublishError> {
    let sites = sites(publication, destinations, registries)?;
    progress.step("checking the destinations");
    let before = tags::look(&sites, publication, registries).await?;
    let incomplete: Vec<&Site> = sites.iter().filter(|site| !site.complete).collect();
    let meter = Arc::new(Meter::default());
    progress.step("uploading blobs");
    let (counts, missing) = try_join(
        blobs::deliver(
            &incomplete,
            &publication.blobs,
            &publication.mount_from,
            &meter,
            progress,
        ),
        try_join_all(incomplete.iter().map(|site| missing_manifests(site, publication))),
    )
    .await?;
    progress.step("uploading manifests");
    let puts = incomplete.iter().zip(&missing);
    try_join_all(puts.map(|(site, missing)| put_manifests(site, publication, missing))).await?;
    progress.step("uploading artifacts");
    let record = |site: &Site| record::of(site, publication, &before, registries);
    blobs::deliver(
        &incomplete,
        &publication.artifact_blobs,
        &publication.mount_from,
        &meter,
        progress,
    )
    .await?;
    let artifacts = try_join_all(
        sites
            .iter()
            .map(|site| put_artifacts(site, publication, record(site), &meter)),
    )
    .await?;
    progress.step("setting tags");
    let changes = tags::set(&sites, publication, &before, registries).await?;
    let mut delivered = Vec::new();
    for (destination, tag) in destinations.iter().zip(changes) {
        let of = |s: &&Site| s.name == destination.repository;
        let counted = incomplete.iter().position(of);
        let at = sites.iter().position(|site| of(&site));
        delivered.push(Delivered {
            reference: destination.to_string(),
            tag,
            blobs: counted.map(|i| counts[i]).unwrap_or_default(),
            artifacts: at.map(|i| artifacts[i].0).unwrap_or_default(),
            left: at.map(|i| artifacts[i].1.clone()).unwrap_or_default(),
        });
    }
    Ok(Published {
        digest: publication.root.descriptor.digest().to_string(),
        destinations: delivered,
        bytes_sent: meter.sent(),
    })
}

fn sites(
    publication: &Publication,
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
                complete: publication.origin.as_ref() == Some(name),
                tags: vec![destination.tag.clone()],
                name: name.clone(),
            }),
        }
    }
    Ok(sites)
}

/// The manifests that the site lacks.
async fn missing_manifests<'a>(site: &Site, publication: &'a Publication) -> Result<Vec<&'a Content>, PublishError> {
    let all = publication.manifests.iter().chain([&publication.root]);
    let looked = try_join_all(all.map(async |manifest| {
        let has = site.repository.has_manifest(manifest.descriptor.digest()).await?;
        Ok::<_, PublishError>((!has).then_some(manifest))
    }));
    Ok(looked.await?.into_iter().flatten().collect())
}

/// Puts the manifests by digest: the platforms' before the index.
async fn put_manifests(site: &Site, publication: &Publication, manifests: &[&Content]) -> Result<(), PublishError> {
    let put = async |manifest: &&Content| {
        let digest = manifest.descriptor.digest();
        site.repository.put_manifest(digest.as_ref(), manifest).await
    };
    let root = publication.root.descriptor.digest();
    let (root, others): (Vec<_>, Vec<_>) = manifests.iter().partition(|m| m.descriptor.digest() == root);
    try_join_all(others.into_iter().map(put)).await?;
    try_join_all(root.into_iter().map(put)).await?;
    Ok(())
}

/// Sequential, because several artifacts may have the same subject, whose list of referrers is read and written.
/// Returns the number of artifacts, and those that the site does not have.
async fn put_artifacts(
    site: &Site,
    publication: &Publication,
    record: Option<Artifact>,
    meter: &Arc<Meter>,
) -> Result<(usize, Vec<String>), PublishError> {
    if let Some(record) = &record {
        let blobs: Vec<Item> = record.blobs.iter().map(in_memory).collect();
        blobs::deliver(&[site], &blobs, &[], meter, &crate::progress::Silent).await?;
        site.repository.attach(&record.manifest).await?;
    }
    if site.complete {
        return Ok((0, Vec::new()));
    }
    let mut left = publication.left.clone();
    let mut put = 0;
    for (manifest, place) in &publication.artifacts {
        let digest = manifest.descriptor.digest();
        let done = match place {
            Place::Tag(tag) => signatures::put(site, tag, manifest, meter).await,
            Place::Referrer => site.repository.attach(manifest).await.map_err(PublishError::from),
            Place::Part => {
                let put = site.repository.put_manifest(digest.as_ref(), manifest).await;
                put.map(drop).map_err(PublishError::from)
            }
        };
        match done {
            Ok(()) => put += usize::from(*place != Place::Part),
            // Not every registry takes indexes with a subject, and artifact manifests.
            Err(error) if !layout::is_manifest(manifest.descriptor.media_type()) && error.is_refusal() => {
                left.push(format!("{digest} ({}): {error}", manifest.descriptor.media_type()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((put, left))
}
