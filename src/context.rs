//! The files a Dockerfile of ours mounts and copies -> the build context, the same bytes for the same files.
//!
//! The paths are those of the repository, so one Dockerfile serves both this context and plain `docker build .`, where
//! `.dockerignore` keeps everything else out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::buildkit::context::Context;
use crate::config::BuildFile;

/// Where [`build`] puts the Dockerfile.
pub const DOCKERFILE: &str = "Dockerfile";

/// What of `images/<name>/` the build steps read.
const DIRECTORIES: &[&str] = &["build", "locks", "sudoers"];

/// The tar that a solve of `dockerfile` needs. A file is executable in it if its owner may execute it, and nothing
/// else of its mode counts: neither a umask nor a checkout's owner changes the bytes.
pub fn build(file: &BuildFile, dockerfile: &str) -> Result<Bytes, ContextError> {
    let mut context = Context::new();
    context.add(DOCKERFILE, 0o644, dockerfile.to_string());
    for directory in DIRECTORIES {
        add_below(
            &mut context,
            &file.root,
            &Path::new("images").join(&file.image.name).join(directory),
        )?;
    }
    context.to_tar().map_err(|source| ContextError {
        path: file.root.clone(),
        source,
    })
}

fn add_below(context: &mut Context, root: &Path, directory: &Path) -> Result<(), ContextError> {
    use std::os::unix::fs::PermissionsExt;

    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ContextError { path, source }
    };
    let full = root.join(directory);
    for entry in fs::read_dir(&full).map_err(at(&full))? {
        let entry = entry.map_err(at(&full))?;
        let path = directory.join(entry.file_name());
        let full = root.join(&path);
        let kind = entry.file_type().map_err(at(&full))?;
        if kind.is_dir() {
            add_below(context, root, &path)?;
            continue;
        }
        if !kind.is_file() {
            return Err(at(&full)(io::Error::other("neither a file nor a directory")));
        }
        let name = path
            .to_str()
            .ok_or_else(|| at(&full)(io::Error::other("its name is not UTF-8")))?;
        let executable = entry.metadata().map_err(at(&full))?.permissions().mode() & 0o100 != 0;
        let content = fs::read(&full).map_err(at(&full))?;
        context.add(name, if executable { 0o755 } else { 0o644 }, content);
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("cannot put {path} into the build context: {source}", path = path.display())]
pub struct ContextError {
    path: PathBuf,
    source: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_the_dockerfile_mounts_and_no_more() {
        let file = BuildFile::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("build.toml")).unwrap();
        let tar = build(&file, "FROM scratch\n").unwrap();
        assert_eq!(tar, build(&file, "FROM scratch\n").unwrap());
        let modes: std::collections::BTreeMap<String, u32> = tar::Archive::new(tar.as_ref())
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (
                    entry.path().unwrap().display().to_string(),
                    entry.header().mode().unwrap(),
                )
            })
            .collect();
        assert_eq!(modes["Dockerfile"], 0o644);
        assert_eq!(modes["images/ovn-bgp-agent/build/packages"], 0o755);
        assert_eq!(modes["images/ovn-bgp-agent/sudoers/regex"], 0o644);
        assert!(
            !modes
                .keys()
                .any(|path| path.contains("README") || path.contains("constraints"))
        );
    }
}
