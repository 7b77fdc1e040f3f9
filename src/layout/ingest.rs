//! Turns an engine's export stream, in one pass, into an image in the layout and the tree for `verify`.
//!
//! While the stream arrives, each layer is hashed, its entries are listed, its bytes are spooled, and its large files
//! are compressed on all cores. A base layer is written as soon as it is complete; the others when the configuration,
//! which arrives late, gives their order.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest, MediaType};
use serde_json::json;

use super::assemble::{self, AssembleError, Assembled};
use super::canonical::{self, CanonicalError};
use super::compress::{Compression, Pool};
use super::config::{self, EngineConfig, Fate};
use super::export::{self, Export, ExportError, Layers};
use super::layer::{Discard, Entry, ParsedLayer, ReadOptions};
use super::merge::{Data, MergeError, Merged};
use super::spool::{Spool, SpoolWriter};
use super::store::{Layout, StoreError, canonical_json};
use super::tree::Tree;
use crate::oci::{Platform, sha256_digest};
use crate::progress::Progress;

/// The inputs of an image's bytes besides its content, and the contents to keep for `verify`.
#[derive(Clone)]
pub struct IngestOptions<'a> {
    pub platform: Platform,
    /// The base's layers, lowest first. If the image's lowest layers are these, they keep their bytes, so the base
    /// layers can be shared.
    pub base_diff_ids: Vec<Digest>,
    /// Upper limit of all file times and of dates in the configuration; seconds since 1970.
    pub source_date_epoch: i64,
    pub compression: Compression,
    /// Added to the configuration; they replace engine labels of the same name.
    pub labels: BTreeMap<String, String>,
    /// The export's size for the progress bar, if known.
    pub expected_size: Option<u64>,
    pub read: ReadOptions<'a>,
}

/// An image in the layout. Unreferenced until an index contains it and a tag is set.
#[derive(Clone, Debug)]
pub struct Ingested {
    /// Includes the platform.
    pub manifest: Descriptor,
    pub image_manifest: ImageManifest,
    pub config: ImageConfiguration,
    /// All layers merged.
    pub tree: Tree,
    /// Base first.
    pub layers: Vec<LayerInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    pub diff_id: Digest,
    /// Digest of the compressed blob.
    pub digest: Digest,
    /// Size of the compressed blob.
    pub size: u64,
    pub uncompressed_size: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("layer {number} of the image: {source}")]
    Merge { number: usize, source: MergeError },
    #[error("layer {number} of the image: {source}")]
    Canonical { number: usize, source: CanonicalError },
    #[error("layer {number} of the image: {source}")]
    Assemble { number: usize, source: AssembleError },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the image's configuration: {0}")]
    Config(String),
}

/// Reads `export` to its end and writes its image for `options.platform` into `layout`.
pub fn ingest(
    layout: &Layout,
    export: impl Read + Send,
    options: &IngestOptions<'_>,
    progress: &dyn Progress,
) -> Result<Ingested, IngestError> {
    std::thread::scope(|scope| {
        let receiving = Receiving {
            layout,
            pool: Pool::start(scope, options.compression),
            scope,
            base: options
                .base_diff_ids
                .iter()
                .filter_map(|d| export::parse_digest(d.as_ref()))
                .collect(),
            media_type: options.compression.media_type(),
        };
        let export = export::read(
            export,
            options.platform,
            &options.read,
            options.expected_size,
            &receiving,
            progress,
        )?;
        progress.step("writing layers");
        write_image(&receiving, export, options)
    })
}

/// Reads the image for `platform` from an export without writing.
pub fn read_export(
    export: impl Read,
    platform: Platform,
    options: &ReadOptions<'_>,
    progress: &dyn Progress,
) -> Result<(ImageConfiguration, Tree), IngestError> {
    struct TreeOnly;
    impl Layers for TreeOnly {
        type Sink = Discard;
        type Layer = Vec<Entry>;
        fn open(&self) -> Result<Discard, StoreError> {
            Ok(Discard)
        }
        fn close(&self, _: Discard, layer: ParsedLayer) -> io::Result<Vec<Entry>> {
            Ok(layer.entries)
        }
    }
    let mut export = export::read(export, platform, options, None, &TreeOnly, progress)?;
    let config = serde_json::from_slice(&export.config).map_err(|e| IngestError::Config(e.to_string()))?;
    let mut merged = Merged::default();
    for (i, diff_id) in export.diff_ids.iter().enumerate() {
        let again = export.diff_ids[i + 1..].contains(diff_id);
        let entries = match again {
            true => export.layers.get(diff_id).cloned(),
            false => export.layers.remove(diff_id),
        };
        merged
            .apply(entries.unwrap_or_default(), i)
            .map_err(|source| IngestError::Merge { number: i + 1, source })?;
    }
    Ok((config, merged.into_tree()))
}

struct Receiving<'scope, 'env> {
    layout: &'env Layout,
    pool: Pool,
    scope: &'scope Scope<'scope, 'env>,
    base: Vec<[u8; 32]>,
    media_type: MediaType,
}

struct Received<'scope> {
    entries: Vec<Entry>,
    spool: Arc<Spool>,
    /// The base layer that is being written.
    base: Option<Assembly<'scope>>,
}

impl<'scope> Layers for Receiving<'scope, '_> {
    type Sink = SpoolWriter;
    type Layer = Received<'scope>;

    fn open(&self) -> Result<SpoolWriter, StoreError> {
        SpoolWriter::new(self.layout, self.pool.clone())
    }

    fn close(&self, sink: SpoolWriter, layer: ParsedLayer) -> io::Result<Received<'scope>> {
        let spool = Arc::new(sink.finish()?);
        let ParsedLayer {
            diff_id,
            uncompressed_size: size,
            entries,
            ..
        } = layer;
        let base = self.base.contains(&diff_id).then(|| {
            let (layout, pool, media_type) = (self.layout, self.pool.clone(), self.media_type.clone());
            let spool = Arc::clone(&spool);
            self.scope
                .spawn(move || assemble::verbatim(layout, &pool, media_type, &spool, diff_id, size))
        });
        Ok(Received { entries, spool, base })
    }
}

fn write_image(
    receiving: &Receiving<'_, '_>,
    mut export: Export<Received<'_>>,
    options: &IngestOptions<'_>,
) -> Result<Ingested, IngestError> {
    let epoch = options.source_date_epoch;
    let diff_ids = export.diff_ids;
    let spools: Arc<[Arc<Spool>]> = diff_ids.iter().map(|id| Arc::clone(&export.layers[id].spool)).collect();
    let same_data = |a: Data, b: Data, size| spools[a.source].same(a.offset, &spools[b.source], b.offset, size);

    let mut merged = Merged::default();
    let mut fates = Vec::new();
    let mut layers = Assemblies::default();
    for (i, diff_id) in diff_ids.iter().enumerate() {
        let number = i + 1;
        let in_base = receiving.base.get(i) == Some(diff_id) && fates.iter().all(|fate| *fate == Fate::Base);
        let again = diff_ids[i + 1..].contains(diff_id);
        let Some(received) = export.layers.get_mut(diff_id) else {
            continue;
        };
        let entries = match again {
            true => received.entries.clone(),
            false => std::mem::take(&mut received.entries),
        };
        if in_base {
            merged
                .apply(entries, i)
                .map_err(|source| IngestError::Merge { number, source })?;
            fates.push(Fate::Base);
            match received.base.take() {
                Some(assembly) => layers.add(number, assembly)?,
                None => layers.add_again(diff_id)?,
            }
            continue;
        }
        let changes = canonical::apply(&mut merged, entries, i, epoch, &same_data)
            .map_err(|source| IngestError::Canonical { number, source })?;
        if changes.is_empty() {
            fates.push(Fate::Gone);
            continue;
        }
        fates.push(Fate::Own);
        let (layout, pool, media_type) = (receiving.layout, receiving.pool.clone(), receiving.media_type.clone());
        let (tree, spools) = (Arc::clone(&merged.tree), Arc::clone(&spools));
        // While it is written, the next layer is compared.
        let assembly = receiving
            .scope
            .spawn(move || assemble::canonical(layout, &pool, media_type, &tree, &changes, &spools, epoch));
        layers.add(number, assembly)?;
    }
    let layers = layers.finish()?;
    let tree = merged.into_tree();
    write_documents(receiving.layout, &export.config, &fates, &layers, tree, options)
}

/// A layer that its own thread writes.
type Assembly<'scope> = ScopedJoinHandle<'scope, Result<Assembled, AssembleError>>;

/// The number of layers still being written while the next one is compared. Each needs memory, so this does not depend
/// on the image.
const ASSEMBLIES: usize = 1;

/// An image's layers, base first; the last ones are still being written.
#[derive(Default)]
struct Assemblies<'scope> {
    done: Vec<Assembled>,
    writing: VecDeque<(usize, Assembly<'scope>)>,
}

impl<'scope> Assemblies<'scope> {
    fn add(&mut self, number: usize, assembly: Assembly<'scope>) -> Result<(), IngestError> {
        self.writing.push_back((number, assembly));
        self.wait_until_at_most(ASSEMBLIES)
    }

    /// Repeats the base layer with this diff ID.
    fn add_again(&mut self, diff_id: &[u8; 32]) -> Result<(), IngestError> {
        self.wait_until_at_most(0)?;
        let layer = self.done.iter().find(|layer| layer.diff_id == *diff_id).cloned();
        self.done.extend(layer);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Assembled>, IngestError> {
        self.wait_until_at_most(0)?;
        Ok(self.done)
    }

    fn wait_until_at_most(&mut self, writing: usize) -> Result<(), IngestError> {
        while self.writing.len() > writing
            && let Some((number, assembly)) = self.writing.pop_front()
        {
            let result = assembly.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.done
                .push(result.map_err(|source| IngestError::Assemble { number, source })?);
        }
        Ok(())
    }
}

fn write_documents(
    layout: &Layout,
    engine_config: &[u8],
    fates: &[Fate],
    layers: &[Assembled],
    tree: Tree,
    options: &IngestOptions<'_>,
) -> Result<Ingested, IngestError> {
    let wrong = |e: &dyn std::fmt::Display| IngestError::Config(e.to_string());
    let engine_config: EngineConfig = serde_json::from_slice(engine_config).map_err(|e| wrong(&e))?;
    let diff_ids = layers
        .iter()
        .map(|layer| sha256_digest(&layer.diff_id).to_string())
        .collect();
    let config = config::rewrite(
        engine_config,
        options.platform,
        fates,
        diff_ids,
        &options.labels,
        options.source_date_epoch,
    )
    .map_err(|e| wrong(&e))?;
    let config = canonical_json(&config).map_err(|e| wrong(&e))?;
    let config_descriptor = layout.write_blob(MediaType::ImageConfig, &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.to_string(),
        "config": config_descriptor,
        "layers": layers.iter().map(|layer| &layer.blob).collect::<Vec<_>>(),
    });
    let mut descriptor = layout.write_json(MediaType::ImageManifest, &manifest)?;
    descriptor.set_platform(Some(options.platform.to_oci()));
    Ok(Ingested {
        manifest: descriptor,
        image_manifest: serde_json::from_value(manifest).map_err(|e| wrong(&e))?,
        config: serde_json::from_slice(&config).map_err(|e| wrong(&e))?,
        tree,
        layers: layers.iter().map(LayerInfo::from).collect(),
    })
}

impl From<&Assembled> for LayerInfo {
    fn from(layer: &Assembled) -> Self {
        Self {
            diff_id: sha256_digest(&layer.diff_id),
            digest: layer.blob.digest().clone(),
            size: layer.blob.size(),
            uncompressed_size: layer.uncompressed_size,
        }
    }
}
