//! Selects the patches in `images/<name>/patches/` that a project ref needs, and names them for labels and records.
//!
//! The build applies them (`build/apply-patches`) before it compiles bytecode. A patch's header lists the releases that
//! need it (`docs/patches.md`). [`applied`](crate::image::applied) reads the record of applied patches in an image.

mod head;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pep440_rs::Version;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::source;
use crate::config::BuildFile;
use crate::config::file::ConfigError;

pub use head::{Head, HeadError, split};

/// The label with an image's patches.
pub const LABEL: &str = "org.openstack.obgp-build.patches";

/// Maximum size: people review each patch.
pub const MAX_BYTES: u64 = 256 << 10;
pub const MAX_PATCHES: usize = 100;

/// Hexadecimal digits of a patch's SHA-256 in [`LABEL`].
const SHORT: usize = 12;

/// A patch of the project's source.
#[derive(Clone, Debug, Serialize)]
pub struct Patch {
    /// `NNNN-name`: the file's name without `.patch`.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// The first line of its description.
    pub summary: String,
    /// The files it changes or adds, relative to the source.
    pub files: Vec<String>,
    #[serde(skip)]
    pub head: Head,
}

#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    #[error("reading patches in {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "reading patches in {path}: {what}\nhelp: a patch is named NNNN-name.patch, with a unique number and \
         a name of lower-case letters, digits and hyphens",
        path = path.display()
    )]
    Name { path: PathBuf, what: String },
    #[error("reading the patch {path}: {source}\nhelp: docs/patches.md describes the format", path = path.display())]
    Head { path: PathBuf, source: HeadError },
    #[error("{0}")]
    Config(#[from] ConfigError),
}

/// The project's package: the only directory whose files patches may change.
pub fn package(project: &str) -> String {
    project.replace('-', "_")
}

/// The patches of `reference`, in the order of application.
pub fn needed(file: &BuildFile, reference: &str) -> Result<Vec<Patch>, PatchError> {
    let directory = file.root.join("images").join(&file.image.name).join("patches");
    let mut patches = load(&directory, &package(&file.project.name))?;
    let version = version_of(file, reference)?;
    patches.retain(|patch| patch.head.applies_to.contains(&version));
    Ok(patches)
}

/// The patches that an image of `reference` must have. `None` if build.toml does not know the ref.
pub fn expected(file: &BuildFile, reference: &str) -> Result<Option<Vec<Patch>>, PatchError> {
    match needed(file, reference) {
        Err(PatchError::Config(_)) => Ok(None),
        needed => needed.map(Some),
    }
}

/// All patches of a directory, by name. Only files of `package` may be changed.
pub fn load(directory: &Path, package: &str) -> Result<Vec<Patch>, PatchError> {
    let failed = |source| PatchError::Read {
        path: directory.to_path_buf(),
        source,
    };
    let misnamed = |what| PatchError::Name {
        path: directory.to_path_buf(),
        what,
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // git does not track empty directories, and the build mounts this one.
        if name == ".gitkeep" {
            continue;
        }
        if !entry.file_type().map_err(failed)?.is_file() || !well_named(&name) {
            return Err(misnamed(format!("{name:?} is not a patch name, or not a regular file")));
        }
        names.push(name);
    }
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0][..4] == pair[1][..4]) {
        return Err(misnamed(format!("{} and {} have the same number", pair[0], pair[1])));
    }
    if names.len() > MAX_PATCHES {
        return Err(misnamed(format!("{} patches, more than {MAX_PATCHES}", names.len())));
    }
    names.iter().map(|name| Patch::read(directory, name, package)).collect()
}

/// `0001-keep-tables.patch`. Names appear unquoted in a label, a Dockerfile and shell words.
fn well_named(name: &str) -> bool {
    let Some((number, rest)) = name.strip_suffix(".patch").and_then(|stem| stem.split_once('-')) else {
        return false;
    };
    number.len() == 4
        && number.bytes().all(|b| b.is_ascii_digit())
        && !rest.is_empty()
        && name.len() <= 100
        && (rest.bytes()).all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl Patch {
    fn read(directory: &Path, name: &str, package: &str) -> Result<Self, PatchError> {
        let path = directory.join(name);
        let mut bytes = Vec::new();
        fs::File::open(&path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|source| PatchError::Read {
                path: path.clone(),
                source,
            })?;
        let stem = name.trim_end_matches(".patch");
        Self::parse(stem, &bytes, package).map_err(|source| PatchError::Head { path, source })
    }

    /// Parses the patch `name` (without `.patch`). Only files of `package` may be changed.
    pub fn parse(name: &str, bytes: &[u8], package: &str) -> Result<Self, HeadError> {
        let (head, diff) = Head::parse(bytes)?;
        let files = split(diff, package)?;
        Ok(Patch {
            name: name.to_string(),
            sha256: hex::encode(Sha256::digest(bytes)),
            summary: head.summary().to_string(),
            files: files.into_iter().map(|(path, _)| path.to_string()).collect(),
            head,
        })
    }
}

/// The version that a patch's `Applies-To` is compared with.
///
/// A git ref has no version. It counts as later than all releases of its series, whose pattern in build.toml (`7.*`)
/// contains the series' number. Without such a pattern (`master`, a change, a commit) it counts as later than every
/// release.
fn version_of(file: &BuildFile, reference: &str) -> Result<Version, ConfigError> {
    /// Higher than the last component of any version.
    const LATEST: u64 = 99_999;
    if source::is_version(reference)
        && let Ok(version) = Version::from_str(reference)
    {
        return Ok(version);
    }
    let series = source::series(file, reference)?;
    let mut release = series
        .refs
        .iter()
        .find_map(|pattern| Version::from_str(pattern.strip_suffix(".*")?).ok())
        .map(|version| version.release().to_vec())
        .unwrap_or_default();
    release.push(LATEST);
    Ok(Version::new(release))
}

/// The value of [`LABEL`]: names, each with the start of the patch's SHA-256. `None` without patches.
pub fn label<'a>(patches: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let named: Vec<String> = patches
        .into_iter()
        .map(|(name, sha256)| format!("{name}@{}", sha256.get(..SHORT).unwrap_or(sha256)))
        .collect();
    (!named.is_empty()).then(|| named.join(","))
}

/// [`label`] for patches to apply.
pub fn label_of(patches: &[Patch]) -> Option<String> {
    label(patches.iter().map(|p| (p.name.as_str(), p.sha256.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> BuildFile {
        BuildFile::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("build.toml")).unwrap()
    }

    const PATCH: &str = "Description: Do this\n Because.\nAuthor: a\nForwarded: no\nApplies-To: >=6,<7\n\
        Drop-When: never\nLast-Update: 2026-01-02\n\n--- a/pkg/x.py\n+++ b/pkg/x.py\n@@ -1 +1 @@\n-a\n+b\n";

    fn directory(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(directory.path().join(name), PATCH).unwrap();
        }
        directory
    }

    #[test]
    fn a_git_ref_is_later_than_the_releases_of_its_series() {
        let file = file();
        let of = |reference| version_of(&file, reference).unwrap().to_string();
        assert_eq!(of("7.0.0"), "7.0.0");
        assert_eq!(of("7.0.0rc1"), "7.0.0rc1");
        assert_eq!(of("stable/2026.1"), "6.99999");
        assert_eq!(of("stable/2026.2"), "7.99999");
        for latest in [
            "master",
            "refs/changes/12/3412/1",
            "0123456789abcdef0123456789abcdef01234567",
        ] {
            assert_eq!(of(latest), "99999", "{latest}");
        }
        assert!(version_of(&file, "nonsense").is_err());
    }

    #[test]
    fn the_project_s_own_patches_are_sound_and_chosen_by_version() {
        let file = file();
        for (reference, needed) in [("4.0.0", false), ("6.0.0", true), ("7.0.0", true), ("master", true)] {
            // No series of build.toml matches 4.0.0; its version alone decides.
            let found = super::needed(&file, reference).unwrap();
            let first = found.iter().any(|p| p.name == "0001-keep-empty-routing-tables");
            assert_eq!(first, needed, "{reference}");
        }
    }

    #[test]
    fn patches_come_in_order_with_their_hashes() {
        let directory = directory(&["0002-b.patch", "0001-a.patch", ".gitkeep"]);
        let patches = load(directory.path(), "pkg").unwrap();
        let names: Vec<&str> = patches.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["0001-a", "0002-b"]);
        assert_eq!(patches[0].sha256, hex::encode(Sha256::digest(PATCH)));
        assert_eq!(patches[0].files, ["pkg/x.py"]);
        assert_eq!(patches[0].summary, "Do this");
        let short = &patches[0].sha256[..12];
        assert_eq!(label_of(&patches), Some(format!("0001-a@{short},0002-b@{short}")));
        assert_eq!(label_of(&[]), None);
    }

    #[test]
    fn names_that_cannot_be_ordered_or_quoted_are_refused() {
        for (names, problem) in [
            (&["a.patch"][..], "not a patch name"),
            (&["0001-a b.patch"], "not a patch name"),
            (&["0001-$a.patch"], "not a patch name"),
            (&["0001-a.diff"], "not a patch name"),
            (&["README.md"], "not a patch name"),
            (&["0001-a.patch", "0001-b.patch"], "the same number"),
        ] {
            let directory = directory(names);
            let error = load(directory.path(), "pkg").unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("help: "), "{error}");
        }
        let link = directory(&[]);
        std::os::unix::fs::symlink("/etc/passwd", link.path().join("0001-a.patch")).unwrap();
        assert!(load(link.path(), "pkg").is_err());
    }

    #[test]
    fn without_a_directory_there_are_no_patches() {
        assert!(load(Path::new("/nonexistent/patches"), "pkg").unwrap().is_empty());
    }

    #[test]
    fn a_patch_beyond_the_limit_is_refused() {
        let directory = directory(&[]);
        let long = PATCH.replace("Because.", &"x".repeat(MAX_BYTES as usize));
        fs::write(directory.path().join("0001-a.patch"), long).unwrap();
        let error = load(directory.path(), "pkg").unwrap_err().to_string();
        assert!(error.contains("larger than"), "{error}");
    }
}
