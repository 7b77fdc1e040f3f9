//! Reads an image from a registry: index and manifests into memory, layers as streams. Nothing is stored.

use std::io::Read;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use tokio::runtime::Handle;

use super::error::RegistryError;
use super::repository::{Access, Repository};
use super::settings::Registries;
use crate::config::file::ConfigError;
use crate::layout::{self, ImageBlobs, OtherManifest, ReadError, Role};
use crate::oci::{Content, ImageReference, Platform};
use crate::util::bridge;

/// Concurrent manifest requests.
const AT_ONCE: usize = 8;

/// The image of a tag or digest, with all manifests.
#[derive(Clone)]
pub struct RemoteImage {
    pub repository: Repository,
    /// The index, or the only manifest.
    pub root: Content,
    /// Manifests of the supported platforms, in the index's order.
    pub platforms: Vec<(Platform, Content)>,
    /// Other manifests of the index, such as BuildKit's attestations.
    pub others: Vec<Content>,
    /// The same, described for messages.
    pub other_manifests: Vec<OtherManifest>,
}

/// The document of a tag or digest, before its manifests are fetched.
pub struct RemoteRoot {
    pub repository: Repository,
    content: Content,
    /// The manifests of the index; `None` if it is not an index.
    named: Option<Vec<Descriptor>>,
}

impl RemoteRoot {
    /// What a reference with a tag or a digest stands for in its registry.
    pub async fn find(registries: &Registries, reference: &ImageReference) -> anyhow::Result<Self> {
        let target = reference.target().ok_or_else(|| {
            ConfigError::Invalid(format!(
                "{reference} names a repository; say which image, with :TAG or @DIGEST"
            ))
        })?;
        let repository = registries.repository(&reference.repository, Access::Pull)?;
        Ok(Self::open(&repository, &target).await?)
    }

    pub async fn open(repository: &Repository, target: &str) -> Result<Self, RegistryError> {
        let content = repository.manifest(target).await?;
        let named = match layout::is_index(content.descriptor.media_type()) {
            true => {
                let index: ImageIndex = repository.parse(&content.descriptor, &content.bytes)?;
                Some(index.manifests().clone())
            }
            false => None,
        };
        Ok(Self {
            repository: repository.clone(),
            content,
            named,
        })
    }

    /// The descriptors to sign: the index and the supported platforms, or the only manifest.
    pub fn subjects(&self) -> Vec<Descriptor> {
        let known = |d: &&Descriptor| known_platform(d).is_some();
        let platforms = self.named.iter().flatten().filter(known);
        std::iter::once(&self.content.descriptor)
            .chain(platforms)
            .cloned()
            .collect()
    }
}

fn known_platform(descriptor: &Descriptor) -> Option<Platform> {
    let platform = descriptor.platform().as_ref()?;
    layout::known_platform(platform.os(), platform.architecture())
}

/// What a manifest is whose entry in the index does not say it.
async fn role(repository: &Repository, content: &Content) -> Result<Role, RegistryError> {
    Ok(match Role::by_manifest(&content.bytes) {
        Ok(config) => Role::by_config(&repository.blob(&config).await?),
        Err(role) => role,
    })
}

impl RemoteImage {
    pub async fn open(root: RemoteRoot) -> Result<Self, RegistryError> {
        let RemoteRoot {
            repository,
            content,
            named,
        } = root;
        let mut image = Self {
            repository: repository.clone(),
            platforms: Vec::new(),
            others: Vec::new(),
            other_manifests: Vec::new(),
            root: content,
        };
        if let Some(named) = named {
            let repository = &repository;
            let fetched = stream::iter(&named).map(|child| async move {
                let content = repository.manifest(child.digest().as_ref()).await?;
                Ok::<_, RegistryError>((child, content))
            });
            let mut fetched = fetched.buffered(AT_ONCE);
            while let Some((child, mut content)) = fetched.try_next().await? {
                content.descriptor = child.clone();
                let role = match Role::by_entry(child) {
                    Some(role) => role,
                    None => role(repository, &content).await?,
                };
                image.add(content, &role);
            }
        } else {
            let manifest: ImageManifest = image.parse(&image.root)?;
            let config = repository.blob(manifest.config()).await?;
            image.add(image.root.clone(), &Role::by_config(&config));
        }
        Ok(image)
    }

    /// The manifests that are not judged if these platforms are, or all if none is chosen.
    pub fn others_than(&self, chosen: &[Platform]) -> Vec<OtherManifest> {
        let images = self.platforms.iter();
        let images = images.map(|(platform, content)| (*platform, &content.descriptor));
        OtherManifest::all(&self.other_manifests, images, chosen)
    }

    fn add(&mut self, content: Content, role: &Role) {
        self.other_manifests
            .extend(OtherManifest::new(&content.descriptor, role));
        match role {
            Role::Image(platform) => self.platforms.push((*platform, content)),
            Role::Attestation | Role::Other(_) => self.others.push(content),
        }
    }

    /// Configs and layers of all manifests, without duplicates.
    pub fn blobs(&self) -> Result<Vec<Descriptor>, RegistryError> {
        let mut blobs: Vec<Descriptor> = Vec::new();
        for content in self.platforms.iter().map(|(_, content)| content).chain(&self.others) {
            let manifest: ImageManifest = self.parse(content)?;
            for blob in manifest.layers().iter().chain([manifest.config()]) {
                if !blobs.iter().any(|known| known.digest() == blob.digest()) {
                    blobs.push(blob.clone());
                }
            }
        }
        Ok(blobs)
    }

    pub fn parse<T: serde::de::DeserializeOwned>(&self, content: &Content) -> Result<T, RegistryError> {
        self.repository.parse(&content.descriptor, &content.bytes)
    }

    /// The index, or the only manifest, and every other manifest that the index names.
    pub fn manifests(&self) -> Vec<Descriptor> {
        let root = &self.root.descriptor;
        let named = self.platforms.iter().map(|(_, content)| content).chain(&self.others);
        let named = named
            .map(|content| &content.descriptor)
            .filter(|d| d.digest() != root.digest());
        std::iter::once(root).chain(named).cloned().collect()
    }

    /// For [`layout::read_image`], on a thread that may block.
    pub fn blocking(self: Arc<Self>, handle: Handle) -> BlockingBlobs {
        BlockingBlobs { image: self, handle }
    }
}

/// Reads an image's blobs from its registry. Each call blocks.
pub struct BlockingBlobs {
    image: Arc<RemoteImage>,
    handle: Handle,
}

impl ImageBlobs for BlockingBlobs {
    fn read_blob(&self, blob: &Descriptor) -> Result<Vec<u8>, ReadError> {
        let known = self.image.platforms.iter().map(|(_, content)| content);
        if let Some(content) = known.into_iter().find(|c| c.descriptor.digest() == blob.digest()) {
            return Ok(content.bytes.to_vec());
        }
        let fetched = self.handle.block_on(self.image.repository.blob(blob));
        Ok(fetched.map_err(ReadError::elsewhere)?.to_vec())
    }

    fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, ReadError> {
        let stream = self.image.repository.download(blob, 0).map_err(std::io::Error::other);
        Ok(Box::new(bridge::reader(&self.handle, stream)))
    }
}
