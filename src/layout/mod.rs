//! OCI image layouts on disk, and the pass that writes an engine's export into one.
//!
//! ```text
//! export ──members──> layer ──spool──┐
//!   (tar in tar)      (entries)      ├─> merge/canonical ──assemble──> store (blobs) ──> index ──> tag
//! config.json ───────────────────────┘        (tree)      (compress)
//! ```
//!
//! [`read`] is the inverse: from a layout, or an export, to a [`tree::Tree`].

mod assemble;
mod canonical;
mod compress;
mod compressed;
mod config;
mod export;
mod index;
mod ingest;
mod layer;
mod limits;
mod members;
mod merge;
mod read;
mod role;
mod secret;
mod spool;
mod store;
#[cfg(test)]
mod tests;
pub mod tree;

pub use compress::Compression;
pub use export::ExportError;
pub use index::write_index;
pub use ingest::{IngestError, IngestOptions, Ingested, LayerInfo, ingest, read_export};
pub use layer::{Hashes, ReadOptions};
pub use limits::Limits;
pub use read::{
    Contents, ImageBlobs, LayoutImage, LayoutReference, ReadError, compressed_size, is_index, is_manifest,
    known_platform, read_document, read_image,
};
pub use role::{OtherManifest, Role};
pub use secret::Secret;
pub use store::{BlobWriter, Layout, StoreError, Wait, canonical_json, tags_in};
pub use tree::Tree;
