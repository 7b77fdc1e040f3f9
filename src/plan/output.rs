//! The output directory of a build: where it is, and whether a build can write it. Checked before any work starts.

use std::path::{Path, PathBuf};

use crate::config::file::ConfigError;
use crate::util::files::{check_writable, free_bytes, mib};

/// The layout takes about this many bytes for each platform of an image: the compressed layers.
const BYTES_PER_TARGET: u64 = 128 << 20;

/// The given directory, else `dist` next to build.toml (in `root`). Relative to the current directory if that is in `root`.
pub fn directory(given: Option<&Path>, root: &Path) -> PathBuf {
    if let Some(given) = given {
        return given.to_path_buf();
    }
    let here = std::env::current_dir().unwrap_or_default();
    match here.strip_prefix(root) {
        Ok(below) => below.components().map(|_| "..").chain(["dist"]).collect(),
        Err(_) => root.join("dist"),
    }
}

/// The image layout of an output directory: `dist/oci`.
pub fn layout(output: &Path) -> PathBuf {
    output.join("oci")
}

/// Rejects a directory that cannot be written, and a file system without space for `targets` images of one platform.
pub fn check(output: &Path, targets: usize) -> Result<(), ConfigError> {
    let refused = |reason: String| {
        ConfigError::Invalid(format!(
            "writing to {}: {reason}\nhelp: choose another directory with --output DIR",
            output.display()
        ))
    };
    check_writable(output).map_err(|e| refused(e.to_string()))?;
    // An unchanged image takes no further space.
    let needed = (BYTES_PER_TARGET * targets as u64).saturating_sub(layers_in(output));
    match free_bytes(output) {
        Some(free) if free < needed => Err(refused(format!(
            "{} free, and {targets} images of one platform need about {}",
            mib(free),
            mib(needed)
        ))),
        _ => Ok(()),
    }
}

/// Rejects a file that cannot be created; `flag` names it.
pub fn check_file(flag: &str, file: &Path) -> Result<(), ConfigError> {
    let refused = |reason: String| ConfigError::Invalid(format!("{flag} {}: {reason}", file.display()));
    if file.is_dir() {
        return Err(refused("it is a directory".into()));
    }
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(refused(format!("{} is not a directory", parent.display())));
    }
    check_writable(parent).map_err(|e| refused(e.to_string()))
}

/// The bytes of the blobs in the output directory.
fn layers_in(output: &Path) -> u64 {
    let blobs = std::fs::read_dir(layout(output).join("blobs/sha256"));
    let sizes = blobs
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|blob| blob.metadata().ok());
    sizes.map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_next_to_build_toml() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(directory(None, &here), Path::new("dist"));
        assert_eq!(directory(None, here.parent().unwrap()), Path::new("../dist"));
        assert_eq!(directory(None, Path::new("/elsewhere")), Path::new("/elsewhere/dist"));
        assert_eq!(directory(Some(Path::new("x")), &here), Path::new("x"));
    }

    #[test]
    fn what_cannot_be_written_is_refused_with_its_flag() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        check(&dir.path().join("new/dist"), 0).unwrap();
        assert!(!dir.path().join("new").exists());
        for (output, reason) in [(file.join("dist"), "not a directory"), ("/proc/obgp".into(), "")] {
            let error = check(&output, 0).unwrap_err().to_string();
            assert!(
                error.to_lowercase().contains(reason) && error.contains("--output"),
                "{error}"
            );
        }
        let error = check(dir.path(), 1 << 30).unwrap_err().to_string();
        assert!(error.contains("MiB free"), "{error}");
        check_file("--f", &file).unwrap();
        for bad in [dir.path().to_path_buf(), "/nope/x".into(), file.join("x")] {
            let error = check_file("--f", &bad).unwrap_err().to_string();
            assert!(error.starts_with("--f /"), "{error}");
        }
    }
}
