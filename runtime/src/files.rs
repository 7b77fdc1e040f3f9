//! Files that other processes depend on: size-limited reads and atomic writes.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Gid, Uid};

/// The largest ConfigMap or Secret.
const MOUNTED_LIMIT: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path} is larger than {limit} bytes", path = path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{path} is not UTF-8 text", path = path.display())]
    NotText { path: PathBuf },
    #[error("{path} is not a regular file", path = path.display())]
    NotAFile { path: PathBuf },
}

/// The text of a regular file of at most 1 MiB.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let failed = |source| FileError::Io {
        doing: "read",
        path: path.into(),
        source,
    };
    // Without NONBLOCK, opening a FIFO could wait for ever.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(|error| failed(error.into()))?;
    let file = File::from(file);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(FileError::NotAFile { path: path.into() });
    }
    let content = read_limited(&file, path, MOUNTED_LIMIT)?;
    String::from_utf8(content).map_err(|_| FileError::NotText { path: path.into() })
}

/// The content of an open file, from its current offset. `path` is for errors only.
pub fn read_limited(file: &File, path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let mut content = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut content);
    read.map_err(|source| FileError::Io {
        doing: "read",
        path: path.into(),
        source,
    })?;
    match content.len() as u64 <= limit {
        true => Ok(content),
        false => Err(FileError::TooLarge {
            path: path.into(),
            limit,
        }),
    }
}

/// Removes a file. Does nothing if it does not exist.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FileError::Io {
            doing: "remove",
            path: path.into(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The owner of a file, written as `UID:GID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl FromStr for Owner {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (uid, gid) = text.split_once(':')?;
            let owner = Self {
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
            };
            // To the kernel, -1 means "do not change".
            (owner.uid != u32::MAX && owner.gid != u32::MAX).then_some(owner)
        };
        parse().ok_or("UID:GID is expected as two numbers, for example 100:101")
    }
}

/// What [`write()`] guarantees when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Other processes see the file. A power failure may lose it, which is harmless if every start writes it again.
    Visible,
    /// The file is on the disk. This takes milliseconds.
    Synced,
}

/// Replaces `path` atomically: a reader sees the old file or the complete new one. `owner` is ignored unless the process is
/// root, because only root can give files away.
pub fn write(
    path: &Path,
    content: &[u8],
    mode: u32,
    owner: Option<Owner>,
    durability: Durability,
) -> Result<(), FileError> {
    let failed = |doing| {
        move |source| FileError::Io {
            doing,
            path: path.into(),
            source,
        }
    };
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".obgp-")
        .tempfile_in(directory)
        .map_err(failed("write"))?;
    file.write_all(content).map_err(failed("write"))?;
    let handle = file.as_file();
    if let Some(owner) = owner.filter(|_| rustix::process::geteuid().is_root()) {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::fchown(handle, Some(uid), Some(gid))
            .map_err(|error| failed("change the owner of")(error.into()))?;
    }
    // After the owner, because a change of owner clears mode bits. Independent of the umask.
    handle
        .set_permissions(Permissions::from_mode(mode))
        .map_err(failed("set the mode of"))?;
    if durability == Durability::Synced {
        handle.sync_all().map_err(failed("write"))?;
    }
    file.persist(path).map_err(|error| failed("replace")(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_written_file_has_the_given_mode_and_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let owner = Owner { uid: 100, gid: 101 };
        write(&path, b"new", 0o640, Some(owner), Durability::Synced).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        if rustix::process::geteuid().is_root() {
            assert_eq!((metadata.uid(), metadata.gid()), (100, 101));
        }
        assert_eq!(read_text(&path).unwrap(), "new");
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        std::fs::write(&target, "untouched").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write(&link, b"new", 0o600, None, Durability::Visible).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "untouched");
        assert!(link.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn only_small_regular_text_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![b'x'; MOUNTED_LIMIT as usize]).unwrap();
        assert!(read_text(&path).is_ok());
        std::fs::write(&path, vec![b'x'; MOUNTED_LIMIT as usize + 1]).unwrap();
        assert!(matches!(read_text(&path), Err(FileError::TooLarge { .. })));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(read_text(&path), Err(FileError::NotText { .. })));
        assert!(matches!(read_text(directory.path()), Err(FileError::NotAFile { .. })));
        assert!(matches!(
            read_text(Path::new("/dev/zero")),
            Err(FileError::NotAFile { .. })
        ));
        assert!(matches!(
            read_text(&directory.path().join("none")),
            Err(FileError::Io { .. })
        ));
    }

    #[test]
    fn removing_a_missing_file_succeeds_and_a_failed_removal_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready");
        remove(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        std::fs::create_dir(&path).unwrap();
        let error = remove(&path).unwrap_err().to_string();
        assert!(error.starts_with("cannot remove "), "{error}");
    }

    #[test]
    fn owners_are_two_numbers() {
        assert_eq!("100:101".parse(), Ok(Owner { uid: 100, gid: 101 }));
        for text in ["", "100", "frr:frr", "100:", ":101", "1:2:3", "4294967295:0", "-1:0"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }
}
