//! An OCI image layout on disk (image-spec, image-layout.md): blobs by digest, and `index.json` with one entry per tag.
//!
//! A layout is valid at every moment. Blobs get their name only when they are whole and on the disk; `index.json` is
//! replaced last, in one step. Whoever writes holds an exclusive advisory lock on the directory, readers a shared one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oci_spec::image::{Descriptor, Digest, DigestAlgorithm, ImageIndex, ImageManifest, MediaType};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::limits::Limits;
use crate::oci::sha256_digest;

pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Files of ours that are not part of the layout; what an interrupted run leaves is removed by the next one.
const TEMPORARY: &str = ".obgp-";
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: cannot {doing}: {source}", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is in use by another process; wait for it, or choose another directory", .0.display())]
    Locked(PathBuf),
    #[error("{} is not an OCI image layout: {reason}", path.display())]
    NotALayout { path: PathBuf, reason: String },
    #[error("{} is not empty and not an OCI image layout; choose another directory", .0.display())]
    Occupied(PathBuf),
    #[error("{path}: {reason}", path = path.display())]
    BadBlob { path: PathBuf, reason: String },
    #[error("{path} has no tag {tag:?}; it has: {known}", path = path.display())]
    NoSuchTag { path: PathBuf, tag: String, known: String },
    #[error("{path} holds {known}: say which, as oci:{path}:TAG", path = path.display())]
    WhichTag { path: PathBuf, known: String },
    #[error("{0} is not a SHA-256 digest")]
    NotSha256(String),
    #[error("this layout was opened for reading")]
    ReadOnly,
}

/// An open layout. Threads may share it; its lock lasts as long as the value.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    /// The directory, which carries the lock.
    lock: File,
    writable: bool,
    /// Blobs this value wrote or met: what refers to them may not be in the index yet, so they are never collected.
    used: Mutex<HashSet<String>>,
    index: Mutex<()>,
}

impl Layout {
    /// Opens `dir` for writing; makes it a layout if it is missing or empty.
    pub fn open_or_create(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let root = dir.as_ref().to_path_buf();
        fs::create_dir_all(&root).map_err(failed("create it", &root))?;
        let layout = Self::lock(root, true)?;
        let root = &layout.root;
        layout.remove_leftovers()?;
        if !root.join("oci-layout").exists() {
            let mut entries = fs::read_dir(root).map_err(failed("list it", root))?;
            if entries.any(|entry| entry.is_ok_and(|e| e.file_name() != "blobs" && e.file_name() != "index.json")) {
                return Err(StoreError::Occupied(root.clone()));
            }
        }
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed("create it", &blobs))?;
        if !root.join("index.json").exists() {
            let empty = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex.to_string(), "manifests": []});
            layout.replace("index.json", &empty)?;
        }
        // Last: what has this file has all the rest.
        if !root.join("oci-layout").exists() {
            layout.replace("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        }
        layout.check()?;
        Ok(layout)
    }

    /// Opens an existing layout for reading.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let layout = Self::lock(dir.as_ref().to_path_buf(), false)?;
        layout.check()?;
        Ok(layout)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn lock(root: PathBuf, writable: bool) -> Result<Self, StoreError> {
        let lock = File::open(&root).map_err(failed("open it", &root))?;
        let operation = if writable {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        let started = Instant::now();
        while let Err(e) = flock(&lock, operation) {
            if e != rustix::io::Errno::WOULDBLOCK {
                return Err(failed("lock it", &root)(e.into()));
            }
            if started.elapsed() > LOCK_PATIENCE {
                return Err(StoreError::Locked(root));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
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
            Some(other) => Err(not(format!("its version is {other}, known is 1.0.0"))),
            None => Err(not("oci-layout says no version".into())),
        }
    }

    fn remove_leftovers(&self) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.root)
            .map_err(failed("list it", &self.root))?
            .flatten()
        {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let path = entry.path();
                fs::remove_file(&path).map_err(failed("remove an interrupted run's file", &path))?;
            }
        }
        Ok(())
    }

    /// A file without a name, in the layout's file system, gone when closed.
    pub(super) fn scratch(&self) -> Result<File, StoreError> {
        self.must_be_writable()?;
        tempfile::tempfile_in(&self.root).map_err(failed("create a temporary file in it", &self.root))
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
            .map_err(failed("create a temporary file in it", &self.root))
    }

    pub fn blob_path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        // The algorithm says that the value is 64 hexadecimal digits; others could hold anything.
        if *digest.algorithm() != DigestAlgorithm::Sha256 {
            return Err(StoreError::NotSha256(digest.to_string()));
        }
        Ok(self.root.join("blobs/sha256").join(digest.digest()))
    }

    /// Whether the blob is there with the size its descriptor says.
    pub fn has(&self, descriptor: &Descriptor) -> bool {
        let path = self.blob_path(descriptor.digest());
        path.is_ok_and(|path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == descriptor.size()))
    }

    /// Whether a manifest is there with its configuration and all its layers. If so, they are kept from now on, as if
    /// they had just been written: whoever asks is about to refer to them.
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
        blob.write_all(bytes)
            .map_err(failed("write a blob into it", &self.root))?;
        blob.finish(media_type)
    }

    /// Stores a JSON document with its keys in order, so that equal documents have equal digests.
    pub fn write_json(&self, media_type: MediaType, document: &impl Serialize) -> Result<Descriptor, StoreError> {
        let bytes = canonical_json(document).map_err(failed("write a document into it", &self.root))?;
        self.write_blob(media_type, &bytes)
    }

    /// Opens a blob after comparing its size with the descriptor's. Who reads it checks the digest.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<File, StoreError> {
        let path = self.blob_path(descriptor.digest())?;
        let file = File::open(&path).map_err(failed("open the blob", &path))?;
        let size = file.metadata().map_err(failed("open the blob", &path))?.len();
        if size != descriptor.size() {
            let reason = format!("it has {size} bytes, its descriptor says {}", descriptor.size());
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
                "a document of {} bytes is over the limit of {limit}",
                descriptor.size()
            )));
        }
        let mut bytes = Vec::new();
        let file = self.open_blob(descriptor)?;
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(failed("read the blob", &path))?;
        let found = hex::encode(Sha256::digest(&bytes));
        if found != descriptor.digest().digest() {
            return Err(bad(format!(
                "its content has the digest sha256:{found}: the blob is damaged"
            )));
        }
        Ok(bytes)
    }

    pub fn read_json<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, StoreError> {
        let bytes = self.read_blob(descriptor)?;
        serde_json::from_slice(&bytes).map_err(|e| StoreError::BadBlob {
            path: self.blob_path(descriptor.digest()).unwrap_or_default(),
            reason: format!("not the JSON document it should be: {e}"),
        })
    }

    /// The entries of `index.json`.
    pub fn index(&self) -> Result<ImageIndex, StoreError> {
        read_small_json(&self.root.join("index.json"))
    }

    /// The descriptor that `tag` stands for; without a tag, that of the only entry.
    pub fn resolve(&self, tag: Option<&str>) -> Result<Descriptor, StoreError> {
        let index = self.index()?;
        let mut entries = index.manifests().iter();
        match tag {
            Some(tag) => entries
                .find(|d| tag_of(d) == Some(tag))
                .cloned()
                .ok_or_else(|| StoreError::NoSuchTag {
                    path: self.root.clone(),
                    tag: tag.to_string(),
                    known: known_tags(&index),
                }),
            None => match (entries.next(), entries.next()) {
                (Some(only), None) => Ok(only.clone()),
                _ => Err(StoreError::WhichTag {
                    path: self.root.clone(),
                    known: known_tags(&index),
                }),
            },
        }
    }

    /// Makes `tag` stand for `descriptor`, whose blobs must be there, then removes the blobs that only the tag's old
    /// descriptor needed. Entries of other tags, and of other programs, stay as they are.
    pub fn set_tag(&self, tag: &str, descriptor: &Descriptor) -> Result<(), StoreError> {
        self.must_be_writable()?;
        let _one_at_a_time = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        // The renames of the blobs have to be on the disk before a name for them is.
        sync_dir(&self.root.join("blobs/sha256"))?;
        let path = self.root.join("index.json");
        // As plain JSON: fields that this program does not know survive.
        let mut index: Value = read_small_json(&path)?;
        let new = descriptor_json(descriptor, tag).map_err(failed("write it", &path))?;
        let not_an_index = || StoreError::NotALayout {
            path: self.root.clone(),
            reason: "index.json has no list of manifests".into(),
        };
        let manifests = index["manifests"].as_array_mut().ok_or_else(not_an_index)?;
        let mut replaced = Vec::new();
        manifests.retain(|entry| {
            let keep = entry["annotations"][REF_NAME].as_str() != Some(tag);
            if !keep {
                replaced.push(entry.clone());
            }
            keep
        });
        manifests.push(new);
        self.replace("index.json", &index)?;
        for old in replaced {
            // Not being able to tidy up is no failure: the tag is set.
            if let Ok(old) = serde_json::from_value::<Descriptor>(old)
                && let Err(e) = self.collect(&old)
            {
                tracing::warn!(layout = %self.root.display(), error = %e, "old blobs were left in place");
            }
        }
        Ok(())
    }

    /// Removes the blobs reachable from `old` that neither the index nor work in progress needs.
    fn collect(&self, old: &Descriptor) -> Result<(), StoreError> {
        let mut gone = BTreeSet::new();
        // A damaged old image: what it reached is unknown and stays.
        if self.reachable(old, &mut gone, 0).is_err() {
            return Ok(());
        }
        let mut kept = BTreeSet::new();
        for entry in self.index()?.manifests() {
            self.reachable(entry, &mut kept, 0)?;
        }
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in gone.iter().filter(|d| !kept.contains(*d) && !used.contains(*d)) {
            let path = self.root.join("blobs/sha256").join(digest);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove the old blob", &path)(e)),
                _ => {}
            }
        }
        Ok(())
    }

    fn reachable(&self, descriptor: &Descriptor, found: &mut BTreeSet<String>, depth: usize) -> Result<(), StoreError> {
        if *descriptor.digest().algorithm() != DigestAlgorithm::Sha256 {
            return Ok(());
        }
        if !found.insert(descriptor.digest().digest().to_string()) || depth > 8 || !self.has(descriptor) {
            return Ok(());
        }
        match descriptor.media_type() {
            MediaType::ImageIndex => {
                let index: ImageIndex = self.read_json(descriptor)?;
                for child in index.manifests() {
                    self.reachable(child, found, depth + 1)?;
                }
            }
            MediaType::ImageManifest => {
                let manifest: ImageManifest = self.read_json(descriptor)?;
                for child in manifest.layers().iter().chain([manifest.config()]) {
                    found.insert(child.digest().digest().to_string());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Replaces a file of the layout in one step.
    fn replace(&self, name: &str, document: &Value) -> Result<(), StoreError> {
        let path = self.root.join(name);
        let mut file = self.temporary()?;
        let bytes = canonical_json(document).map_err(failed("write it", &path))?;
        file.write_all(&bytes).map_err(failed("write it", &path))?;
        file.as_file().sync_all().map_err(failed("write it", &path))?;
        file.persist(&path).map_err(|e| failed("write it", &path)(e.error))?;
        self.lock.sync_all().map_err(failed("write it", &path))
    }
}

/// A blob being written. Dropped before [`BlobWriter::finish`], it leaves nothing.
pub struct BlobWriter<'a> {
    layout: &'a Layout,
    file: NamedTempFile,
    sha: Sha256,
    size: u64,
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.as_file_mut().write(bytes)?;
        self.sha.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter<'_> {
    /// Of what was written until now.
    pub fn digest(&self) -> Digest {
        sha256_digest(&self.sha.clone().finalize().into())
    }

    /// Puts the blob on the disk and gives it its name. One that is there already, with the same size, stays.
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
                .map_err(failed("write the blob", &path))?;
            self.file
                .persist(&path)
                .map_err(|e| failed("write the blob", &path)(e.error))?;
        }
        Ok(descriptor)
    }
}

/// JSON without spaces, objects' keys in order at every depth.
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

fn tag_of(descriptor: &Descriptor) -> Option<&str> {
    let annotations: Option<&HashMap<String, String>> = descriptor.annotations().as_ref();
    annotations?.get(REF_NAME).map(String::as_str)
}

fn known_tags(index: &ImageIndex) -> String {
    let tags: Vec<&str> = index.manifests().iter().filter_map(tag_of).collect();
    match (tags.is_empty(), index.manifests().len()) {
        (_, 0) => "no image".into(),
        (true, n) => format!("{n} images without a tag"),
        _ => tags.join(", "),
    }
}

fn descriptor_json(descriptor: &Descriptor, tag: &str) -> io::Result<Value> {
    let mut annotations = descriptor.annotations().clone().unwrap_or_default();
    annotations.insert(REF_NAME.into(), tag.into());
    let mut value = serde_json::to_value(descriptor)?;
    value["annotations"] = serde_json::to_value(annotations)?;
    Ok(value)
}

fn read_small_json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let limit = Limits::default().json_bytes;
    let file = File::open(path).map_err(failed("open it", path))?;
    let mut bytes = Vec::new();
    BufReader::new(file)
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read it", path))?;
    let bad = |reason: String| StoreError::BadBlob {
        path: path.to_path_buf(),
        reason,
    };
    if bytes.len() as u64 > limit {
        return Err(bad(format!("it is longer than {limit} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(|e| bad(format!("not the JSON document it should be: {e}")))
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let dir = File::open(path).map_err(failed("open it", path))?;
    dir.sync_all().map_err(failed("write it to the disk", path))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_path_buf();
    move |source| StoreError::Io { doing, path, source }
}
