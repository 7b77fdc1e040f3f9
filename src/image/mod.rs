//! One platform of an image, wherever it is: in a layout, a registry, an engine or memory. And what such an image contains:
//! installed packages, applied patches, os-release, and the differences between two images.
//!
//! An [`Image`] is opened lazily. Its digest costs nothing, its configuration one small blob. [`Image::contents`] reads every
//! layer in one pass, once; [`Image::forget`] frees the files again.

pub mod applied;
pub(crate) mod diff;
mod name;
pub mod open;
pub(crate) mod os_release;
pub mod packages;
pub(crate) mod state;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};

use crate::engine::storage::ReadFrom;
use crate::engine::{Engine, EngineImage};
use crate::layout::{self, ImageBlobs, IngestError, Ingested, ReadError, ReadOptions};
use crate::oci::Platform;
use crate::progress::Lines;
use state::State;

pub use crate::layout::Contents;
pub use name::ImageName;

/// One platform of an image.
pub struct Image {
    platform: Platform,
    source: Source,
    contents: OnceLock<Contents>,
}

/// Where the contents come from.
enum Source {
    /// A layout or a registry.
    Blobs {
        blobs: Arc<dyn ImageBlobs>,
        manifest: Descriptor,
        options: ReadOptions<'static>,
    },
    /// An archive that the engine writes.
    Engine {
        engine: Engine,
        name: String,
        image: EngineImage,
        /// The archive takes a line while it is read.
        lines: Arc<dyn Lines>,
        options: ReadOptions<'static>,
        /// Whether the engine's storage may be read.
        storage: bool,
        /// Set when the contents are read.
        read_from: OnceLock<ReadFrom>,
    },
    /// The contents were in memory from the start, and stay there.
    Memory { manifest: Option<Descriptor> },
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Blobs(#[from] ReadError),
    #[error("reading {name} from the engine")]
    Engine { name: String, source: IngestError },
    #[error("the image was not read")]
    NotRead,
}

impl Image {
    /// An image whose manifest `blobs` can read. `options` is what [`Image::contents`] keeps of the files.
    pub fn of_blobs(
        platform: Platform,
        blobs: Arc<dyn ImageBlobs>,
        manifest: Descriptor,
        options: ReadOptions<'static>,
    ) -> Self {
        Self {
            platform,
            source: Source::Blobs {
                blobs,
                manifest,
                options,
            },
            contents: OnceLock::new(),
        }
    }

    /// An image that somebody has read already. An image that is not packed yet has no manifest.
    pub fn in_memory(platform: Platform, manifest: Option<Descriptor>, contents: Contents) -> Self {
        Self {
            platform,
            source: Source::Memory { manifest },
            contents: contents.into(),
        }
    }

    /// The image that an ingest has just written.
    pub fn ingested(platform: Platform, ingested: Ingested) -> Self {
        let Ingested {
            manifest,
            config,
            tree,
            layers,
            ..
        } = ingested;
        let contents = Contents {
            config,
            tree,
            compressed: layers.iter().map(|layer| layer.size).sum(),
            uncompressed: layers.iter().map(|layer| layer.uncompressed_size).sum(),
        };
        Self::in_memory(platform, Some(manifest), contents)
    }

    /// Bytes of the layers as they are stored, without reading them; 0 for an image in an engine. May block.
    pub fn compressed_size(&self) -> Result<u64, ImageError> {
        match (&self.source, self.contents.get()) {
            (Source::Blobs { blobs, manifest, .. }, None) => {
                let manifest = layout::read_document(blobs.as_ref(), manifest)?;
                Ok(layout::compressed_size(&manifest))
            }
            _ => Ok(self.contents()?.compressed),
        }
    }

    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// `None` for an image in an engine.
    pub fn manifest(&self) -> Option<&Descriptor> {
        match &self.source {
            Source::Blobs { manifest, .. } => Some(manifest),
            Source::Memory { manifest } => manifest.as_ref(),
            Source::Engine { .. } => None,
        }
    }

    /// `sha256:…` of the manifest.
    pub fn digest(&self) -> Option<&str> {
        self.manifest().map(|manifest| manifest.digest().as_ref())
    }

    /// The configuration, without the layers unless the image is in an engine. Blocks like [`Image::contents`].
    pub fn config(&self) -> Result<Cow<'_, ImageConfiguration>, ImageError> {
        match (&self.source, self.contents.get()) {
            (Source::Blobs { blobs, manifest, .. }, None) => {
                let manifest: ImageManifest = layout::read_document(blobs.as_ref(), manifest)?;
                let config = layout::read_document(blobs.as_ref(), manifest.config())?;
                Ok(Cow::Owned(config))
            }
            _ => Ok(Cow::Borrowed(&self.contents()?.config)),
        }
    }

    /// The configuration and all files. The first call reads and checks every layer: it takes seconds and blocks, so it
    /// belongs on a thread that may block (see [`open::read`]). A registry's image panics on a thread of the runtime.
    pub fn contents(&self) -> Result<&Contents, ImageError> {
        if let Some(contents) = self.contents.get() {
            return Ok(contents);
        }
        let contents = self.read()?;
        Ok(self.contents.get_or_init(|| contents))
    }

    fn read(&self) -> Result<Contents, ImageError> {
        match &self.source {
            Source::Blobs {
                blobs,
                manifest,
                options,
            } => Ok(layout::read_image(blobs.as_ref(), manifest, options)?),
            Source::Engine {
                engine,
                name,
                image,
                lines,
                options,
                storage,
                read_from,
            } => {
                let progress = lines.line(name);
                let read = engine.read_image(image, *storage, |archive| {
                    layout::read_export(archive, self.platform, options, progress.as_ref())
                });
                let ((config, tree), from) = read.map_err(|source| ImageError::Engine {
                    name: name.clone(),
                    source,
                })?;
                progress.step(&from.to_string());
                read_from.get_or_init(|| from);
                Ok(Contents {
                    config,
                    tree,
                    // The engine compresses nothing.
                    compressed: 0,
                    uncompressed: image.size,
                })
            }
            Source::Memory { .. } => Err(ImageError::NotRead),
        }
    }

    /// Where the contents of an engine's image came from; `None` for other images, and before they are read.
    pub fn read_from(&self) -> Option<ReadFrom> {
        match &self.source {
            Source::Engine { read_from, .. } => read_from.get().copied(),
            Source::Blobs { .. } | Source::Memory { .. } => None,
        }
    }

    /// Whether [`Image::contents`] returns at once.
    fn is_read(&self) -> bool {
        self.contents.get().is_some()
    }

    /// Takes the contents from `state`, if the last build left them there. Returns whether the image is read now.
    pub fn recall(&self, state: &State) -> bool {
        if !self.is_read()
            && let Source::Blobs { blobs, manifest, .. } = &self.source
            && let Some(contents) = recalled(blobs.as_ref(), manifest, state)
        {
            self.contents.get_or_init(|| contents);
        }
        self.is_read()
    }

    /// Frees the files, which can be read again. Contents that were in memory from the start stay.
    pub fn forget(&mut self) {
        if !matches!(self.source, Source::Memory { .. }) {
            self.contents.take();
        }
    }
}

/// What `state` has of the image with this manifest.
fn recalled(blobs: &dyn ImageBlobs, manifest: &Descriptor, state: &State) -> Option<Contents> {
    let image_manifest: ImageManifest = layout::read_document(blobs, manifest).ok()?;
    let config = layout::read_document(blobs, image_manifest.config()).ok()?;
    let (remembered, tree) = state.recall_tree(manifest.digest().as_ref())?;
    Some(Contents {
        config,
        tree,
        compressed: layout::compressed_size(&image_manifest),
        uncompressed: remembered.uncompressed_bytes,
    })
}
