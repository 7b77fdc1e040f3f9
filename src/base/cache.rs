//! Bootstrapped bases on disk, one per distro and platform: `<cache>/bases/<distro>-<arch>/<key>.tar`, each with a
//! description file. Writes are atomic; concurrent runs for the same base take turns.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::BaseError;
use crate::oci::Platform;
use crate::progress::Progress;

/// A base on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BaseArchive {
    /// The file for `docker load -i`.
    #[serde(skip)]
    pub path: PathBuf,
    /// The image's name after loading.
    pub image_name: String,
    pub platform: Platform,
    /// `sha256:…` of the image's manifest.
    pub digest: String,
    /// `sha256:…` of its only layer, uncompressed.
    pub diff_id: String,
    /// Size of that layer, in bytes.
    pub size: u64,
    pub packages: usize,
    pub suite: String,
    pub mirror: String,
    /// The date of the archive's newest release file at build time.
    pub snapshot: Timestamp,
}

/// Waits until no other run uses the same base.
pub(super) async fn lock(
    directory: &Path,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<File, BaseError> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(|e| BaseError::io("creating", &path, e))?;
    let mut noted = false;
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(e) => return Err(BaseError::io("locking", &path, e.into())),
        }
        if !std::mem::replace(&mut noted, true) {
            progress.step("waiting for another run that builds the same base");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            () = cancel.cancelled() => return Err(BaseError::Cancelled),
        }
    }
}

/// Reads a base written by [`store`].
pub(super) fn load(path: &Path) -> Option<BaseArchive> {
    let text = fs::read_to_string(path.with_extension("json")).ok()?;
    let base: BaseArchive = serde_json::from_str(&text).ok()?;
    path.is_file().then(|| BaseArchive {
        path: path.to_path_buf(),
        ..base
    })
}

/// The description is written last: if it exists, the archive is complete.
pub(super) fn store(base: &BaseArchive, archive: &Path, scratch: &Path) -> Result<(), BaseError> {
    let description = scratch.join("archive.json");
    let write = || {
        fs::rename(archive, &base.path)?;
        let mut file = File::create(&description)?;
        file.write_all(serde_json::to_string_pretty(base)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&description, base.path.with_extension("json"))
    };
    write().map_err(|e| BaseError::io("writing", &base.path, e))
}

pub(super) fn directory(cache: &Path, distro_name: &str, platform: Platform) -> PathBuf {
    cache
        .join("bases")
        .join(format!("{distro_name}-{}", platform.architecture().name()))
}

pub(super) fn newest(directory: &Path) -> Option<BaseArchive> {
    let entries = fs::read_dir(directory)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    entries
        .filter(|path| path.extension().is_some_and(|e| e == "tar"))
        .filter_map(|path| load(&path))
        .max_by_key(|base| base.snapshot)
}

/// Keeps only the newest base of a distro and platform. Files that cannot be removed do no harm.
pub(super) fn remove_others(directory: &Path, keep: &Path) {
    for path in fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
    {
        if path.extension().is_some_and(|e| e == "tar" || e == "json") && path.file_stem() != keep.file_stem() {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_described_archive_is_taken_from_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.tar");
        fs::write(&path, "half").unwrap();
        assert!(load(&path).is_none() && newest(dir.path()).is_none());
        let base = BaseArchive {
            path: path.clone(),
            image_name: "t".into(),
            platform: "arm64".parse().unwrap(),
            digest: "sha256:0".into(),
            diff_id: "sha256:1".into(),
            size: 4,
            packages: 1,
            suite: "noble".into(),
            mirror: "http://mirror.example".into(),
            snapshot: Timestamp::UNIX_EPOCH,
        };
        let archive = dir.path().join("archive");
        fs::write(&archive, "whole").unwrap();
        store(&base, &archive, dir.path()).unwrap();
        assert_eq!(newest(dir.path()).unwrap().path, path);
        remove_others(dir.path(), &dir.path().join("other.tar"));
        assert!(newest(dir.path()).is_none());
    }
}
