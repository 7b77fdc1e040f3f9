//! An OCI image layout on disk (image-spec, image-layout.md): blobs by digest, and `index.json` with one entry per tag.
//!
//! A layout is always valid. Blobs are named only when they are complete and on disk; `index.json` is replaced last,
//! atomically. A writer holds an exclusive advisory lock on the directory, readers a shared lock.

mod blob;
mod holder;
mod lock;
mod scratch;
mod tags;

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oci_spec::image::{Descriptor, Digest, DigestAlgorithm, ImageManifest, MediaType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::limits::Limits;
use crate::util::cancel::Interrupted;
use crate::util::files::with_free_bytes;

pub use blob::BlobWriter;
pub use lock::Wait;
pub use scratch::Scratch;
pub use tags::tags_in;

/// Prefix of temporary files; the next run removes those of an interrupted one.
const TEMPORARY: &str = ".obgp-";

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{doing} {path}: {source}", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is in use by {holder}\nhelp: wait for it, or choose another directory", path.display())]
    Locked { path: PathBuf, holder: String },
    #[error("waiting for the layout")]
    Interrupted(#[source] Interrupted),
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    #[error("{} is not an OCI image layout: {reason}", path.display())]
    NotALayout { path: PathBuf, reason: String },
    #[error("{} is not empty and not an OCI image layout\nhelp: choose another directory", .0.display())]
    Occupied(PathBuf),
    #[error("{path}: {reason}", path = path.display())]
    BadBlob { path: PathBuf, reason: String },
    #[error("{path} has no tag {tag:?}; it has: {known}", path = path.display())]
    NoSuchTag { path: PathBuf, tag: String, known: String },
    #[error("{path} contains {known}\nhelp: name one as oci:{path}:TAG", path = path.display())]
    WhichTag { path: PathBuf, known: String },
    #[error("{0} is not a SHA-256 digest")]
    NotSha256(String),
    #[error("this layout was opened for reading")]
    ReadOnly,
}

impl StoreError {
    /// Whether the caller named a wrong directory or tag.
    pub fn is_wrong_name(&self) -> bool {
        matches!(
            self,
            Self::Missing(_)
                | Self::NotALayout { .. }
                | Self::Occupied(_)
                | Self::NoSuchTag { .. }
                | Self::WhichTag { .. }
        )
    }
}

/// An open layout. Threads may share it; the lock is held until the value is dropped.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    /// The locked directory.
    lock: File,
    writable: bool,
    /// Blobs that this value wrote or found: they are never collected, because their referrer may not be in the index
    /// yet.
    used: Mutex<HashSet<String>>,
    index: Mutex<()>,
}

impl Layout {
    /// Opens `dir` for writing; creates the layout if the directory is missing or empty.
    pub fn open_or_create(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::create(dir.as_ref().to_path_buf(), None)
    }

    /// The same; waits while another process uses it.
    pub fn open_or_create_with(dir: impl AsRef<Path>, wait: &Wait<'_>) -> Result<Self, StoreError> {
        Self::create(dir.as_ref().to_path_buf(), Some(wait))
    }

    fn create(root: PathBuf, wait: Option<&Wait<'_>>) -> Result<Self, StoreError> {
        fs::create_dir_all(&root).map_err(failed("creating", &root))?;
        let layout = Self::lock(root, true, wait)?;
        let root = &layout.root;
        layout.remove_leftovers()?;
        if !root.join("oci-layout").exists() {
            let mut entries = fs::read_dir(root).map_err(failed("listing", root))?;
            if entries.any(|entry| entry.is_ok_and(|e| e.file_name() != "blobs" && e.file_name() != "index.json")) {
                return Err(StoreError::Occupied(root.clone()));
            }
        }
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed("creating", &blobs))?;
        if !root.join("index.json").exists() {
            let empty = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex.to_string(), "manifests": []});
            layout.replace("index.json", &empty)?;
        }
        // Written last: a directory with this file is complete.
        if !root.join("oci-layout").exists() {
            layout.replace("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        }
        layout.check()?;
        Ok(layout)
    }

    /// Opens an existing layout for reading.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::read(dir.as_ref(), None)
    }

    /// The same; waits while another process writes to it.
    pub fn open_with(dir: impl AsRef<Path>, wait: &Wait<'_>) -> Result<Self, StoreError> {
        Self::read(dir.as_ref(), Some(wait))
    }

    fn read(dir: &Path, wait: Option<&Wait<'_>>) -> Result<Self, StoreError> {
        let layout = Self::lock(dir.to_path_buf(), false, wait)?;
        layout.check()?;
        Ok(layout)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn lock(root: PathBuf, writable: bool, wait: Option<&Wait<'_>>) -> Result<Self, StoreError> {
        let lock = lock::lock(&root, writable, wait)?;
        Ok(Self {
            root,
            lock,
            writable,
            used: Mutex::default(),
            index: Mutex::default(),
        })
    }

    fn check(&self) -> Result<(), StoreError> {
        let not = |reason: String| StoreError::NotALayout {
            path: self.root.clone(),
            reason,
        };
        let marker: Value = read_small_json(&self.root.join("oci-layout")).map_err(|e| not(e.to_string()))?;
        match marker["imageLayoutVersion"].as_str() {
            Some("1.0.0") => Ok(()),
            Some(other) => Err(not(format!("its version is {other}, supported is 1.0.0"))),
            None => Err(not("oci-layout has no version".into())),
        }
    }

    fn remove_leftovers(&self) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.root)
            .map_err(failed("listing", &self.root))?
            .flatten()
        {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let path = entry.path();
                fs::remove_file(&path).map_err(failed("removing the temporary file", &path))?;
            }
        }
        Ok(())
    }

    fn must_be_writable(&self) -> Result<(), StoreError> {
        if self.writable {
            Ok(())
        } else {
            Err(StoreError::ReadOnly)
        }
    }

    fn temporary(&self) -> Result<NamedTempFile, StoreError> {
        self.must_be_writable()?;
        tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(&self.root)
            .map_err(failed("creating a temporary file in", &self.root))
    }

    pub fn blob_path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        // Only for SHA-256 is the value known to be 64 hexadecimal digits.
        if *digest.algorithm() != DigestAlgorithm::Sha256 {
            return Err(StoreError::NotSha256(digest.to_string()));
        }
        Ok(self.root.join("blobs/sha256").join(digest.digest()))
    }

    /// Whether the blob exists with its descriptor's size.
    pub fn has(&self, descriptor: &Descriptor) -> bool {
        let path = self.blob_path(descriptor.digest());
        path.is_ok_and(|path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == descriptor.size()))
    }

    /// Whether a manifest exists with its configuration and all layers. If so, they are kept from now on like new
    /// blobs, because the caller is about to refer to them.
    pub fn holds(&self, manifest: &Descriptor) -> bool {
        let Ok(image) = self.read_json::<ImageManifest>(manifest) else {
            return false;
        };
        let blobs = || image.layers().iter().chain([image.config(), manifest]);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let all = blobs().all(|blob| self.has(blob));
        if all {
            used.extend(blobs().map(|blob| blob.digest().digest().to_string()));
        }
        all
    }

    /// Opens a blob after comparing its size with the descriptor's. The reader checks the digest.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<File, StoreError> {
        let path = self.blob_path(descriptor.digest())?;
        let file = File::open(&path).map_err(failed("opening the blob", &path))?;
        let size = file.metadata().map_err(failed("opening the blob", &path))?.len();
        if size != descriptor.size() {
            let reason = format!("it has {size} bytes, but its descriptor has {}", descriptor.size());
            return Err(StoreError::BadBlob { path, reason });
        }
        Ok(file)
    }

    /// A small blob's bytes, checked against its descriptor.
    pub fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(descriptor.digest())?;
        let bad = |reason: String| StoreError::BadBlob {
            path: path.clone(),
            reason,
        };
        let limit = Limits::default().json_bytes;
        if descriptor.size() > limit {
            return Err(bad(format!(
                "a document of {} bytes exceeds the limit of {limit}",
                descriptor.size()
            )));
        }
        let mut bytes = Vec::new();
        let file = self.open_blob(descriptor)?;
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(failed("reading the blob", &path))?;
        let found = hex::encode(Sha256::digest(&bytes));
        if found != descriptor.digest().digest() {
            return Err(bad(format!(
                "the blob is damaged: its content has the digest sha256:{found}"
            )));
        }
        Ok(bytes)
    }

    pub fn read_json<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, StoreError> {
        let bytes = self.read_blob(descriptor)?;
        serde_json::from_slice(&bytes).map_err(|e| StoreError::BadBlob {
            path: self.blob_path(descriptor.digest()).unwrap_or_default(),
            reason: format!("not a valid JSON document: {e}"),
        })
    }

    /// Replaces a file of the layout atomically.
    fn replace(&self, name: &str, document: &Value) -> Result<(), StoreError> {
        let path = self.root.join(name);
        let mut file = self.temporary()?;
        let bytes = canonical_json(document).map_err(failed("writing", &path))?;
        file.write_all(&bytes).map_err(failed("writing", &path))?;
        file.as_file().sync_all().map_err(failed("writing", &path))?;
        file.persist(&path).map_err(|e| failed("writing", &path)(e.error))?;
        self.lock.sync_all().map_err(failed("writing", &path))
    }
}

/// JSON without spaces, with sorted keys at every depth.
pub fn canonical_json(document: &impl Serialize) -> io::Result<Vec<u8>> {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                Value::Object(Map::from_iter(entries))
            }
            Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
            other => other,
        }
    }
    Ok(serde_json::to_vec(&sorted(serde_json::to_value(document)?))?)
}

fn read_small_json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let limit = Limits::default().json_bytes;
    let file = File::open(path).map_err(failed("opening", path))?;
    let mut bytes = Vec::new();
    BufReader::new(file)
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("reading", path))?;
    let bad = |reason: String| StoreError::BadBlob {
        path: path.to_path_buf(),
        reason,
    };
    if bytes.len() as u64 > limit {
        return Err(bad(format!("it is longer than {limit} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(|e| bad(format!("not a valid JSON document: {e}")))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_path_buf();
    move |source| StoreError::Io {
        doing,
        source: with_free_bytes(source, &path),
        path,
    }
}

/// The error of a write to a file without a name, or with a temporary one.
fn write_failed(error: io::Error, root: &Path) -> io::Error {
    let error = with_free_bytes(error, root);
    io::Error::new(error.kind(), format!("writing to {}: {error}", root.display()))
}
