//! Writes blobs into a layout. A blob gets its name, the digest, once it is complete and on disk.

use std::io::{self, Write};
use std::sync::PoisonError;

use oci_spec::image::{Descriptor, Digest, MediaType};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{Layout, StoreError, canonical_json, failed, write_failed};
use crate::oci::sha256_digest;

impl Layout {
    pub fn blob_writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        Ok(BlobWriter {
            layout: self,
            file: self.temporary()?,
            sha: Sha256::new(),
            size: 0,
        })
    }

    /// Stores bytes as a blob.
    pub fn write_blob(&self, media_type: MediaType, bytes: &[u8]) -> Result<Descriptor, StoreError> {
        let mut blob = self.blob_writer()?;
        blob.write_all(bytes).map_err(failed("storing a blob in", &self.root))?;
        blob.finish(media_type)
    }

    /// Stores a JSON document with sorted keys, so that equal documents have equal digests.
    pub fn write_json(&self, media_type: MediaType, document: &impl Serialize) -> Result<Descriptor, StoreError> {
        let bytes = canonical_json(document).map_err(failed("writing a document to", &self.root))?;
        self.write_blob(media_type, &bytes)
    }
}

/// A blob being written. If it is dropped before [`BlobWriter::finish`], nothing remains.
pub struct BlobWriter<'a> {
    layout: &'a Layout,
    file: NamedTempFile,
    sha: Sha256,
    size: u64,
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.as_file_mut().write(bytes);
        let n = written.map_err(|e| write_failed(e, &self.layout.root))?;
        self.sha.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter<'_> {
    /// The digest of the bytes written so far.
    pub fn digest(&self) -> Digest {
        sha256_digest(&self.sha.clone().finalize().into())
    }

    /// Syncs the blob to disk and names it. An existing blob with the same size is kept.
    pub fn finish(self, media_type: MediaType) -> Result<Descriptor, StoreError> {
        let digest = sha256_digest(&self.sha.finalize().into());
        let descriptor = Descriptor::new(media_type, self.size, digest);
        let path = self.layout.blob_path(descriptor.digest())?;
        let mut used = self.layout.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(descriptor.digest().digest().to_string());
        drop(used);
        if !self.layout.has(&descriptor) {
            self.file
                .as_file()
                .sync_data()
                .map_err(failed("writing the blob", &path))?;
            self.file
                .persist(&path)
                .map_err(|e| failed("writing the blob", &path)(e.error))?;
        }
        Ok(descriptor)
    }
}
