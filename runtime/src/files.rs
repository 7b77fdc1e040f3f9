//! Files that others depend on: read up to a limit, written whole or not at all.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Gid, Uid};

/// A ConfigMap or a Secret cannot be larger.
const MOUNTED_LIMIT: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}: cannot {doing} it: {source}", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path} is larger than {limit} bytes, which nothing mounted from a ConfigMap or a Secret is", path = path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{path} is not UTF-8 text", path = path.display())]
    NotText { path: PathBuf },
    #[error("{path} is not a regular file", path = path.display())]
    NotAFile { path: PathBuf },
}

/// The text of a mounted file.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let failed = |source| FileError::Io {
        doing: "read",
        path: path.into(),
        source,
    };
    // Opened without waiting: a FIFO would never end.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(|error| failed(error.into()))?;
    let file = File::from(file);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(FileError::NotAFile { path: path.into() });
    }
    let mut content = Vec::new();
    file.take(MOUNTED_LIMIT + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MOUNTED_LIMIT {
        return Err(FileError::TooLarge {
            path: path.into(),
            limit: MOUNTED_LIMIT,
        });
    }
    String::from_utf8(content).map_err(|_| FileError::NotText { path: path.into() })
}

/// Who a file is to belong to, as `UID:GID`.
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
            // -1 would mean "as it is" to the kernel.
            (owner.uid != u32::MAX && owner.gid != u32::MAX).then_some(owner)
        };
        parse().ok_or("UID:GID is expected, in numbers, as in 100:101")
    }
}

/// When a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Other processes see it. A power failure may take it away, which does not matter where each start writes it anew.
    Seen,
    /// It is on the disk, which takes milliseconds.
    Stored,
}

/// Writes `content` to `path` through a temporary file beside it, so that a reader sees the old file or the whole new one.
/// Only root can give files away: for others `owner` is left as it is.
pub fn write(path: &Path, content: &[u8], mode: u32, owner: Option<Owner>, until: Until) -> Result<(), FileError> {
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
    // After the owner, for changing that one takes bits away; and whatever the umask is.
    handle
        .set_permissions(Permissions::from_mode(mode))
        .map_err(failed("set the mode of"))?;
    if until == Until::Stored {
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
    fn mode_and_owner_are_what_was_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let owner = Owner { uid: 100, gid: 101 };
        write(&path, b"new", 0o640, Some(owner), Until::Stored).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        if rustix::process::geteuid().is_root() {
            assert_eq!((metadata.uid(), metadata.gid()), (100, 101));
        }
        assert_eq!(read_text(&path).unwrap(), "new");
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing temporary is left"
        );
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        std::fs::write(&target, "untouched").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write(&link, b"new", 0o600, None, Until::Seen).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "untouched");
        assert!(link.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn what_is_no_small_text_file_is_refused() {
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
    fn owners_are_two_numbers() {
        assert_eq!("100:101".parse(), Ok(Owner { uid: 100, gid: 101 }));
        for text in ["", "100", "frr:frr", "100:", ":101", "1:2:3", "4294967295:0", "-1:0"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }
}
