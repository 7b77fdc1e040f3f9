//! Opens `type=local` cache entries as stores of the session, in buildx's format: an OCI image layout per directory,
//! with the cache under a tag in the index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use super::{Store, Stores};
use crate::config::cache::{Cache, CacheEntry, CacheType};
use crate::layout::{Layout, StoreError, is_index};

const DEFAULT_TAG: &str = "latest";

/// BuildKit builds the store's ID from this prefix and the entry's `src` or `dest`.
const STORE_PREFIX: &str = "local:";

/// The open caches of a solve. Their directories are locked until this is dropped.
#[derive(Default)]
pub struct LocalCaches {
    /// The entries for BuildKit: without unreadable local entries; the others have their store's name instead of a
    /// path.
    pub cache: Cache,
    /// Warnings about skipped caches.
    pub warnings: Vec<String>,
    stores: Stores,
    written: Vec<Written>,
}

struct Written {
    layout: Arc<Layout>,
    tag: String,
}

#[derive(Debug, thiserror::Error)]
pub enum LocalCacheError {
    #[error("writing the local cache: {0}")]
    Store(#[from] StoreError),
    #[error("the build succeeded, but the cache in {directory} was not written", directory = directory.display())]
    NotWritten { directory: PathBuf },
}

impl LocalCaches {
    /// Fails if a cache cannot be written. Skips unreadable and missing caches with a warning, except one that this solve
    /// writes for the first time. Blocks.
    pub fn open(cache: &Cache) -> Result<Self, LocalCacheError> {
        let mut opened = Self::default();
        let mut layouts = BTreeMap::new();
        for entry in &cache.to {
            let mut entry = entry.clone();
            if entry.kind == CacheType::Local {
                let (directory, tag) = place(&mut entry, "dest");
                let layout = match layouts.get(&directory) {
                    Some(layout) => Arc::clone(layout),
                    None => Arc::new(Layout::open_or_create(&directory)?),
                };
                opened.offer(&mut entry, "dest", &layout);
                layouts.insert(directory, Arc::clone(&layout));
                opened.written.push(Written { layout, tag });
            }
            opened.cache.to.push(entry);
        }
        for entry in &cache.from {
            let mut entry = entry.clone();
            if entry.kind == CacheType::Local {
                let (directory, tag) = place(&mut entry, "src");
                let found = match layouts.get(&directory) {
                    Some(layout) => Ok(Arc::clone(layout)),
                    None => Layout::open(&directory).map(Arc::new),
                };
                let found = found.and_then(|layout| Ok((root(&layout, &tag)?, layout)));
                let (root, layout) = match found {
                    Ok((Some(root), layout)) => (root, layout),
                    Ok((None, _)) if layouts.contains_key(&directory) => continue,
                    Ok((None, _)) => {
                        let directory = directory.display();
                        opened
                            .warnings
                            .push(format!("skipping a cache: {directory} has no tag {tag}"));
                        continue;
                    }
                    Err(error) => {
                        opened.warnings.push(format!("skipping a cache: {error}"));
                        continue;
                    }
                };
                entry.attrs.insert("digest".into(), root.digest().to_string());
                opened.offer(&mut entry, "src", &layout);
            }
            opened.cache.from.push(entry);
        }
        Ok(opened)
    }

    /// Uses a name that reveals nothing about this machine.
    fn offer(&mut self, entry: &mut CacheEntry, attribute: &str, layout: &Arc<Layout>) {
        let name = format!("cache-{}", self.stores.len());
        self.stores
            .insert(format!("{STORE_PREFIX}{name}"), Store::Cache(Arc::clone(layout)));
        entry.attrs.insert(attribute.into(), name);
    }

    pub fn stores(&self) -> Stores {
        self.stores.clone()
    }

    /// Tags the written caches, and removes blobs that only an earlier cache needed. `manifest` is BuildKit's
    /// descriptor in JSON. Blocks.
    pub fn finish(&self, manifest: Option<&str>) -> Result<(), LocalCacheError> {
        let manifest: Option<Descriptor> = manifest.and_then(|json| serde_json::from_str(json).ok());
        for Written { layout, tag } in &self.written {
            let Some(manifest) = manifest.as_ref().filter(|manifest| layout.has(manifest)) else {
                let directory = layout.root().to_path_buf();
                return Err(LocalCacheError::NotWritten { directory });
            };
            layout.set_tag(tag, manifest)?;
        }
        Ok(())
    }
}

/// Removes directory and tag, which are for this program, from an entry.
fn place(entry: &mut CacheEntry, attribute: &str) -> (PathBuf, String) {
    let directory = entry.attrs.remove(attribute).unwrap_or_default();
    let tag = entry.attrs.remove("tag").unwrap_or_else(|| DEFAULT_TAG.into());
    (Path::new(&directory).to_path_buf(), tag)
}

/// The descriptor of the tag, if it exists. Checks documents: BuildKit checks only layers.
fn root(layout: &Layout, tag: &str) -> Result<Option<Descriptor>, StoreError> {
    let root = match layout.resolve(Some(tag)) {
        Ok(root) => root,
        Err(StoreError::NoSuchTag { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    if is_index(root.media_type()) {
        let index: ImageIndex = layout.read_json(&root)?;
        let config = |d: &&Descriptor| {
            d.media_type()
                .as_ref()
                .starts_with("application/vnd.buildkit.cacheconfig.")
        };
        for config in index.manifests().iter().filter(config) {
            layout.read_blob(config)?;
        }
    } else {
        let manifest: ImageManifest = layout.read_json(&root)?;
        layout.read_blob(manifest.config())?;
    }
    Ok(Some(root))
}
