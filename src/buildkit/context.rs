//! Packs files in memory into a reproducible tar for the build context.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

/// Files by path. All belong to root with time 0, so that the tar is independent of time and user.
#[derive(Clone, Debug, Default)]
pub struct Context {
    files: BTreeMap<String, (u32, Bytes)>,
}

impl Context {
    pub fn new() -> Self {
        Self::default()
    }

    /// `path` is relative to the context's root; `mode` is its permission bits.
    pub fn add(&mut self, path: impl Into<String>, mode: u32, content: impl Into<Bytes>) -> &mut Self {
        self.files.insert(path.into(), (mode, content.into()));
        self
    }

    /// Fails for a path that tar cannot represent, such as an absolute path or one with `..`.
    pub fn to_tar(&self) -> io::Result<Bytes> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut directories = std::collections::BTreeSet::new();
        for (path, (mode, content)) in &self.files {
            for (at, _) in path.match_indices('/') {
                if directories.insert(&path[..at]) {
                    let mut header = plain_header(tar::EntryType::Directory, 0o755, 0);
                    tar.append_data(&mut header, format!("{}/", &path[..at]), io::empty())?;
                }
            }
            let mut header = plain_header(tar::EntryType::Regular, *mode, content.len() as u64);
            tar.append_data(&mut header, path, content.as_ref())?;
        }
        Ok(tar.into_inner()?.into())
    }
}

fn plain_header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_adding_does_not_show() {
        let mut one = Context::new();
        one.add("a/b/c", 0o644, "1").add("Dockerfile", 0o644, "FROM scratch");
        let mut two = Context::new();
        two.add("Dockerfile", 0o644, "FROM scratch").add("a/b/c", 0o644, "1");
        let tar = one.to_tar().unwrap();
        assert_eq!(tar, two.to_tar().unwrap());
        let names: Vec<_> = tar::Archive::new(tar.as_ref())
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["Dockerfile", "a/", "a/b/", "a/b/c"]);
    }

    #[test]
    fn a_path_out_of_the_context_is_refused() {
        assert!(Context::new().add("../x", 0o644, "").to_tar().is_err());
    }
}
