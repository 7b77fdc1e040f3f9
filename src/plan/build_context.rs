//! Packs the files that a Dockerfile mounts and copies into a reproducible build context (tar).
//!
//! The paths are those of the repository, so the same Dockerfile works with plain `docker build .`, where
//! `.dockerignore` excludes everything else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::runtime_binary::Prebuilt;
use crate::buildkit::context::Context;
use crate::config::BuildFile;
use crate::oci::Platform;

/// The path of the Dockerfile in the context.
pub const DOCKERFILE: &str = "Dockerfile";

/// The parts of `images/<name>/` that the build steps read.
const IMAGE: &[&str] = &["build", "locks", "patches", "sudoers"];

/// The sources of obgp-runtime.
const SOURCES: &[&str] = &["Cargo.toml", "Cargo.lock", "runtime"];

/// Directories of `runtime/` that are not part of the program.
const NOT_SOURCES: &[&str] = &["runtime/benches", "runtime/fuzz", "runtime/target", "runtime/tests"];

/// The obgp-runtime in the context.
#[derive(Clone, Debug, Default)]
pub struct Runtime<'a> {
    /// Whether a platform compiles it.
    pub sources: bool,
    /// Compiled programs.
    pub prebuilt: Vec<(Platform, &'a Prebuilt)>,
}

/// Builds the tar for a solve of `dockerfile`. Of a file's mode, only the owner's execute bit counts: neither a umask
/// nor a checkout's owner changes the bytes.
pub fn build(file: &BuildFile, dockerfile: &str, runtime: &Runtime) -> Result<Bytes, ContextError> {
    let mut context = Context::new();
    context.add(DOCKERFILE, 0o644, dockerfile.to_string());
    for name in IMAGE {
        add(
            &mut context,
            &file.root,
            &Path::new("images").join(&file.image.name).join(name),
        )?;
    }
    if runtime.sources {
        add_sources(&mut context, &file.root)?;
    }
    for (platform, prebuilt) in &runtime.prebuilt {
        let path = format!("prebuilt/{}/obgp-runtime", platform.architecture().name());
        context.add(path, 0o755, prebuilt.content.clone());
    }
    to_tar(&context, &file.root)
}

/// A context with only the sources of obgp-runtime.
pub fn sources(root: &Path) -> Result<Bytes, ContextError> {
    let mut context = Context::new();
    add_sources(&mut context, root)?;
    to_tar(&context, root)
}

fn add_sources(context: &mut Context, root: &Path) -> Result<(), ContextError> {
    SOURCES.iter().try_for_each(|path| add(context, root, Path::new(path)))
}

fn to_tar(context: &Context, root: &Path) -> Result<Bytes, ContextError> {
    context.to_tar().map_err(|source| ContextError {
        path: root.to_path_buf(),
        source,
    })
}

/// Adds a file, or all files below a directory.
fn add(context: &mut Context, root: &Path, path: &Path) -> Result<(), ContextError> {
    use std::os::unix::fs::PermissionsExt;

    let full = root.join(path);
    let failed = |source| ContextError {
        path: full.clone(),
        source,
    };
    let metadata = fs::symlink_metadata(&full).map_err(failed)?;
    if metadata.is_dir() {
        if NOT_SOURCES.iter().any(|other| path == Path::new(other)) {
            return Ok(());
        }
        for entry in fs::read_dir(&full).map_err(failed)? {
            add(context, root, &path.join(entry.map_err(failed)?.file_name()))?;
        }
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(failed(io::Error::other("neither a file nor a directory")));
    }
    let name = path
        .to_str()
        .ok_or_else(|| failed(io::Error::other("its name is not UTF-8")))?;
    let executable = metadata.permissions().mode() & 0o100 != 0;
    let content = fs::read(&full).map_err(failed)?;
    context.add(name, if executable { 0o755 } else { 0o644 }, content);
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("adding {path} to the build context: {source}", path = path.display())]
pub struct ContextError {
    path: PathBuf,
    source: io::Error,
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn file() -> BuildFile {
        BuildFile::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("build.toml")).unwrap()
    }

    fn modes(tar: &[u8]) -> BTreeMap<String, u32> {
        tar::Archive::new(tar)
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (
                    entry.path().unwrap().display().to_string(),
                    entry.header().mode().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn it_holds_what_the_dockerfile_mounts_and_no_more() {
        let runtime = Runtime {
            sources: true,
            prebuilt: Vec::new(),
        };
        let tar = build(&file(), "FROM scratch\n", &runtime).unwrap();
        assert_eq!(tar, build(&file(), "FROM scratch\n", &runtime).unwrap());
        let modes = modes(&tar);
        assert_eq!(modes["Dockerfile"], 0o644);
        assert_eq!(modes["images/ovn-bgp-agent/build/packages"], 0o755);
        assert_eq!(modes["images/ovn-bgp-agent/sudoers"], 0o644);
        assert_eq!(modes["runtime/src/main.rs"], 0o644);
        assert!(modes.contains_key("Cargo.lock"));
        for other in [
            "README",
            "constraints",
            "runtime/tests/",
            "runtime/target/",
            "prebuilt/",
        ] {
            assert!(!modes.keys().any(|path| path.contains(other)), "{other}");
        }
    }

    #[test]
    fn a_program_that_is_there_takes_the_place_of_the_sources() {
        let prebuilt = Prebuilt {
            path: "x".into(),
            digest: String::new(),
            bytes: 1,
            content: "x".into(),
        };
        let runtime = Runtime {
            sources: false,
            prebuilt: vec![("linux/arm64".parse().unwrap(), &prebuilt)],
        };
        let modes = modes(&build(&file(), "FROM scratch\n", &runtime).unwrap());
        assert_eq!(modes["prebuilt/arm64/obgp-runtime"], 0o755);
        assert!(!modes.contains_key("Cargo.toml") && !modes.keys().any(|path| path.starts_with("runtime/")));
    }

    /// Plain `docker build .` must send the same files.
    #[test]
    fn dockerignore_lets_through_what_the_context_holds() {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".dockerignore")).unwrap();
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        let image = IMAGE.iter().map(|name| format!("!images/ovn-bgp-agent/{name}"));
        let sources = SOURCES.iter().map(|name| format!("!{name}"));
        let others = NOT_SOURCES.iter().map(|name| name.to_string());
        let mut expected: Vec<String> = image.chain(sources).chain(others).collect();
        expected.extend(["*".to_string(), "!prebuilt".to_string()]);
        assert_eq!(
            lines.iter().copied().collect::<BTreeSet<_>>(),
            expected.iter().map(String::as_str).collect()
        );
        // Later lines take precedence.
        assert_eq!(lines[0], "*");
        let at = |line: &str| lines.iter().position(|l| *l == line);
        assert!(NOT_SOURCES.iter().all(|other| at(other) > at("!runtime")));
    }
}
