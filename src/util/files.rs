//! Atomic file writes, checks of directories and file systems, and program lookup by name.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Writes a file atomically with mode 0644. Its directory must exist.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty());
    let name = path.file_name().unwrap_or(OsStr::new("file"));
    let mut file = tempfile::Builder::new()
        .prefix(name)
        .tempfile_in(directory.unwrap_or(Path::new(".")))?;
    let written = file
        .write_all(content)
        .and_then(|()| file.as_file().set_permissions(Permissions::from_mode(0o644)))
        .and_then(|()| file.as_file().sync_all());
    written.map_err(|e| with_free_bytes(e, path))?;
    file.persist(path)?;
    Ok(())
}

/// Whether files can be created in a directory, or, if it does not exist, in its nearest existing parent. Leaves nothing.
pub fn check_writable(directory: &Path) -> io::Result<()> {
    let existing = existing(directory)?;
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", existing.display()));
    if !existing.is_dir() {
        return Err(named(io::ErrorKind::NotADirectory.into()));
    }
    // A mode does not show a read-only file system, and root ignores modes.
    tempfile::tempfile_in(&existing).map(|_| ()).map_err(named)
}

/// Bytes that this user may still write to the file system of a path.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(existing(path).ok()?).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Adds the free bytes to the error of a full file system, once.
pub fn with_free_bytes(error: io::Error, path: &Path) -> io::Error {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        && !error.to_string().ends_with("bytes free");
    match free_bytes(path).filter(|_| full) {
        Some(free) => io::Error::new(error.kind(), format!("{error}, {free} bytes free")),
        None => error,
    }
}

/// `12.5 MiB`
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The path itself, or its nearest existing parent.
pub fn existing(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let found = path.ancestors().find(|ancestor| ancestor.exists());
    Ok(found.unwrap_or(Path::new("/")).to_path_buf())
}

/// Finds a program in `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    find_program_in(&std::env::var_os("PATH")?, name)
}

/// Finds a program in a list of directories in the format of `PATH`.
pub fn find_program_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}
