//! Reads an image in a layout into the tree that a runtime would see. Checks every digest.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os};

use super::export::{Packing, parse_digest, read_packed};
use super::layer::{Discard, KeptBytes, ReadOptions};
use super::members::TarError;
use super::merge::{MergeError, Merged};
use super::role::{OtherManifest, Role};
use super::store::{Layout, StoreError, Wait};
use super::tree::Tree;
use crate::oci::{ImageReference, Platform};

const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOCKER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("layer {number} ({digest}): {source}")]
    Layer {
        number: usize,
        digest: String,
        source: TarError,
    },
    #[error("layer {number} ({digest}): its content has the {what} sha256:{found}, expected {expected}")]
    WrongDigest {
        number: usize,
        digest: String,
        what: &'static str,
        found: String,
        expected: String,
    },
    #[error("layer {number} ({digest}): {source}")]
    Merge {
        number: usize,
        digest: String,
        source: MergeError,
    },
    #[error("layer {number} ({digest}) has the unknown type {media_type}")]
    UnknownLayer {
        number: usize,
        digest: String,
        media_type: String,
    },
    #[error("{digest} has the type {media_type}, which is neither an image nor an index")]
    NotAnImage { digest: String, media_type: String },
    #[error("the manifest lists {layers} layers and the configuration {diff_ids} diff IDs")]
    LayerCount { layers: usize, diff_ids: usize },
    #[error("{digest} is not a valid JSON document: {source}")]
    Json { digest: String, source: serde_json::Error },
    /// An error of blobs outside a layout.
    #[error(transparent)]
    Elsewhere(Box<dyn std::error::Error + Send + Sync>),
}

impl ReadError {
    pub fn elsewhere(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Elsewhere(Box::new(error))
    }
}

/// The source of an image's blobs.
pub trait ImageBlobs: Send + Sync {
    /// A small blob, checked against its descriptor.
    fn read_blob(&self, blob: &Descriptor) -> Result<Vec<u8>, ReadError>;
    /// Opens a layer. The reader checks its digest.
    fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, ReadError>;
}

impl ImageBlobs for Layout {
    fn read_blob(&self, blob: &Descriptor) -> Result<Vec<u8>, ReadError> {
        Ok(Layout::read_blob(self, blob)?)
    }

    fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, ReadError> {
        Ok(Box::new(Layout::open_blob(self, blob)?))
    }
}

/// `DIR[:TAG]`: the part after `oci:` in an image name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutReference {
    pub dir: PathBuf,
    pub tag: Option<String>,
}

impl LayoutReference {
    /// The image's tag in a registry. Of a tag that is a whole image name, it is the name's tag.
    pub fn image_tag(&self) -> Option<String> {
        let tag = self.tag.as_deref()?;
        match tag.contains('/') {
            true => ImageReference::familiar(tag).ok()?.tag,
            false => Some(tag.to_string()),
        }
    }
}

impl FromStr for LayoutReference {
    type Err = std::convert::Infallible;

    /// The tag may be a whole image name, as in skopeo's layouts: `DIR:docker.io/a/b:tag`. The first colon after an existing
    /// layout starts it. Without a layout, the last colon does, unless a slash follows.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_layout = |dir: &str| Path::new(dir).join("index.json").is_file();
        let colons = text.match_indices(':').map(|(at, _)| (&text[..at], &text[at + 1..]));
        let mut splits = colons.filter(|(dir, tag)| !dir.is_empty() && !tag.is_empty());
        let (dir, tag) = match splits.clone().find(|(dir, _)| is_layout(dir)) {
            Some((dir, tag)) => (dir, Some(tag)),
            None if is_layout(text) => (text, None),
            None => match splits.next_back() {
                Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag)),
                _ => (text, None),
            },
        };
        Ok(Self {
            dir: dir.into(),
            tag: tag.map(str::to_string),
        })
    }
}

impl std::fmt::Display for LayoutReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "oci:{}", self.dir.display())?;
        match &self.tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

/// A tagged image: one or more platforms.
#[derive(Debug)]
pub struct LayoutImage {
    layout: Arc<Layout>,
    /// The descriptor of the tag.
    pub descriptor: Descriptor,
    /// In the index's order.
    pub platforms: Vec<(Platform, Descriptor)>,
    /// The manifests that are not images of a supported platform.
    pub others: Vec<OtherManifest>,
    /// Annotations of the index, if the tag is one.
    pub annotations: std::collections::HashMap<String, String>,
}

/// The content of one platform's image.
#[derive(Clone, Debug)]
pub struct Contents {
    pub config: ImageConfiguration,
    /// The files of all layers, merged.
    pub tree: Tree,
    /// Bytes of the layers as they are stored and pulled; 0 for an engine's image, which is not compressed.
    pub compressed: u64,
    /// Bytes of the layers' tar streams.
    pub uncompressed: u64,
}

impl ReadError {
    /// Whether the caller named a wrong directory or tag.
    pub fn is_wrong_name(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_wrong_name())
    }
}

impl LayoutImage {
    pub fn open(reference: &LayoutReference) -> Result<Self, ReadError> {
        Self::of(Layout::open(&reference.dir)?, reference)
    }

    /// The same; waits while another process writes to the layout.
    pub fn open_with(reference: &LayoutReference, wait: &Wait<'_>) -> Result<Self, ReadError> {
        Self::of(Layout::open_with(&reference.dir, wait)?, reference)
    }

    fn of(layout: Layout, reference: &LayoutReference) -> Result<Self, ReadError> {
        let layout = Arc::new(layout);
        let descriptor = layout.resolve(reference.tag.as_deref())?;
        let mut image = Self {
            layout,
            descriptor: descriptor.clone(),
            platforms: Vec::new(),
            others: Vec::new(),
            annotations: Default::default(),
        };
        match descriptor.media_type() {
            index if is_index(index) => image.read_index(&descriptor)?,
            manifest if is_manifest(manifest) => image.read_manifest(&descriptor)?,
            other => {
                return Err(ReadError::NotAnImage {
                    digest: descriptor.digest().to_string(),
                    media_type: other.to_string(),
                });
            }
        }
        Ok(image)
    }

    /// The manifests that are not judged if these platforms are, or all if none is chosen.
    pub fn others_than(&self, chosen: &[Platform]) -> Vec<OtherManifest> {
        let images = self.platforms.iter().map(|(platform, manifest)| (*platform, manifest));
        OtherManifest::all(&self.others, images, chosen)
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The layout for an owner that may outlive this value.
    pub fn shared_layout(&self) -> Arc<Layout> {
        Arc::clone(&self.layout)
    }

    /// The index and the manifests that it names, or the only manifest.
    pub fn subjects(&self) -> Result<Vec<Descriptor>, ReadError> {
        let mut subjects = vec![self.descriptor.clone()];
        if is_index(self.descriptor.media_type()) {
            let index: ImageIndex = self.layout.read_json(&self.descriptor)?;
            subjects.extend(index.manifests().iter().cloned());
        }
        Ok(subjects)
    }

    fn read_index(&mut self, descriptor: &Descriptor) -> Result<(), ReadError> {
        let index: ImageIndex = self.layout.read_json(descriptor)?;
        for manifest in index.manifests() {
            let role = Role::by_entry(manifest).unwrap_or_else(|| self.role(manifest));
            self.add(manifest, &role);
        }
        self.annotations = index.annotations().clone().unwrap_or_default();
        Ok(())
    }

    fn read_manifest(&mut self, descriptor: &Descriptor) -> Result<(), ReadError> {
        let manifest: ImageManifest = self.layout.read_json(descriptor)?;
        let config = self.layout.read_blob(manifest.config())?;
        self.add(descriptor, &Role::by_config(&config));
        Ok(())
    }

    /// A layout may lack the manifests of other platforms.
    fn role(&self, manifest: &Descriptor) -> Role {
        let Ok(document) = self.layout.read_blob(manifest) else {
            return Role::Other("a manifest that is not in the layout".to_string());
        };
        Role::by_manifest(&document).map_or_else(
            |role| role,
            |config| match self.layout.read_blob(&config) {
                Ok(config) => Role::by_config(&config),
                Err(_) => Role::Other("an image whose configuration is not in the layout".to_string()),
            },
        )
    }

    fn add(&mut self, manifest: &Descriptor, role: &Role) {
        if let Role::Image(platform) = role {
            self.platforms.push((*platform, manifest.clone()));
        }
        self.others.extend(OtherManifest::new(manifest, role));
    }

    /// Reads one of the image's manifests with all its layers.
    pub fn read_tree(&self, manifest: &Descriptor, options: &ReadOptions<'_>) -> Result<Contents, ReadError> {
        read_image(self.layout.as_ref(), manifest, options)
    }
}

/// Reads a manifest and all its layers: one pass over each blob checks its digest and diff ID, and lists its files.
pub fn read_image(
    blobs: &dyn ImageBlobs,
    manifest: &Descriptor,
    options: &ReadOptions<'_>,
) -> Result<Contents, ReadError> {
    let image_manifest: ImageManifest = read_document(blobs, manifest)?;
    let config: ImageConfiguration = read_document(blobs, image_manifest.config())?;
    let (layers, diff_ids) = (image_manifest.layers(), config.rootfs().diff_ids());
    if layers.len() != diff_ids.len() {
        return Err(ReadError::LayerCount {
            layers: layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    let mut merged = Merged::default();
    let kept = KeptBytes::default();
    let mut options = *options;
    let mut uncompressed = 0;
    for (i, (blob, diff_id)) in layers.iter().zip(diff_ids).enumerate() {
        uncompressed += read_layer(blobs, i, blob, diff_id, &mut options, &kept, &mut merged)?;
    }
    Ok(Contents {
        config,
        tree: merged.into_tree(),
        compressed: compressed_size(&image_manifest),
        uncompressed,
    })
}

/// Bytes of all layers as they are stored.
pub fn compressed_size(manifest: &ImageManifest) -> u64 {
    manifest.layers().iter().map(Descriptor::size).sum()
}

/// Returns the layer's uncompressed size.
fn read_layer(
    blobs: &dyn ImageBlobs,
    i: usize,
    blob: &Descriptor,
    diff_id: &str,
    options: &mut ReadOptions<'_>,
    kept: &KeptBytes,
    merged: &mut Merged,
) -> Result<u64, ReadError> {
    let (number, digest) = (i + 1, blob.digest().to_string());
    let packing = match blob.media_type() {
        MediaType::ImageLayer => Packing::None,
        MediaType::ImageLayerGzip => Packing::Gzip,
        MediaType::ImageLayerZstd => Packing::Zstd,
        MediaType::Other(other) if other == DOCKER_GZIP => Packing::Gzip,
        MediaType::Other(other) if other == DOCKER_TAR => Packing::None,
        other => {
            let media_type = other.to_string();
            return Err(ReadError::UnknownLayer {
                number,
                digest,
                media_type,
            });
        }
    };
    let file = blobs.open_blob(blob)?;
    let (layer, packed) = match packing {
        Packing::None => read_packed(io::BufReader::new(file), packing, &mut Discard, options, kept),
        _ => read_packed(file, packing, &mut Discard, options, kept),
    }
    .map_err(|source| ReadError::Layer {
        number,
        digest: digest.clone(),
        source,
    })?;
    let checks = [
        ("digest", packed.unwrap_or(layer.diff_id), digest.as_str()),
        ("diff ID", layer.diff_id, diff_id),
    ];
    for (what, found, expected) in checks {
        if parse_digest(expected) != Some(found) {
            return Err(ReadError::WrongDigest {
                number,
                digest: digest.clone(),
                what,
                found: hex::encode(found),
                expected: expected.to_string(),
            });
        }
    }
    options.limits = layer.limits_left;
    merged
        .apply(layer.entries, i)
        .map_err(|source| ReadError::Merge { number, digest, source })?;
    Ok(layer.uncompressed_size)
}

/// A small JSON blob: a manifest or a configuration.
pub fn read_document<T: serde::de::DeserializeOwned>(
    blobs: &dyn ImageBlobs,
    descriptor: &Descriptor,
) -> Result<T, ReadError> {
    let bytes = blobs.read_blob(descriptor)?;
    serde_json::from_slice(&bytes).map_err(|source| ReadError::Json {
        digest: descriptor.digest().to_string(),
        source,
    })
}

pub fn is_index(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::ImageIndex) || media_type.as_ref() == DOCKER_INDEX
}

pub fn is_manifest(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::ImageManifest) || media_type.as_ref() == DOCKER_MANIFEST
}

/// The platform, if it is supported.
pub fn known_platform(os: &Os, architecture: &Arch) -> Option<Platform> {
    format!("{os}/{architecture}").parse().ok()
}
