//! The images that an output directory remembers: the manifest and the files of each target's last build, so that no image is
//! exported or read twice.
//!
//! It is a cache: a file that is missing, damaged or of another version costs an export. The layout is the truth.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::layout::tree::Tree;
use crate::util::record::{self, Format};

/// The body is the [`Tree`]. The line changes with the shape of [`Head`], and with what
/// [`verify::keeps`](crate::verify::keeps) makes trees keep. A head has some hundred bytes.
const FORMAT: Format = Format {
    line: concat!("obgp-build state ", env!("CARGO_PKG_VERSION"), " 10\n"),
    max_head: 64 << 10,
};

/// Read without the tree, this lets an existence check skip decoding it, which takes longer than everything else in a run
/// that has nothing to do.
///
/// The manifest's descriptor is JSON: its type omits empty fields, which only a self-describing format can read.
#[derive(Serialize, Deserialize)]
struct Head {
    key: [u8; 32],
    manifest: Vec<u8>,
    uncompressed_bytes: u64,
    built: (i64, i64),
    files: usize,
}

/// An image that the layout may hold already.
#[derive(Clone)]
pub struct Remembered {
    pub manifest: oci_spec::image::Descriptor,
    pub uncompressed_bytes: u64,
    /// When its build began and ended, in seconds since 1970.
    pub built: (i64, i64),
    /// How many files its tree has.
    pub files: usize,
}

/// The key and the image of a file, and the file, positioned at the tree.
fn open(path: &Path) -> Option<([u8; 32], Remembered, File)> {
    let (head, file): (Head, _) = FORMAT.open(path)?;
    let remembered = Remembered {
        manifest: serde_json::from_slice(&head.manifest).ok()?,
        uncompressed_bytes: head.uncompressed_bytes,
        built: head.built,
        files: head.files,
    };
    Some((head.key, remembered, file))
}

/// Where a build in the output directory `output` keeps its state.
pub fn directory(output: &Path) -> PathBuf {
    output.join(".obgp-build")
}

/// The images of one output directory.
pub struct State {
    dir: PathBuf,
}

impl State {
    pub fn new(output: &Path) -> Self {
        State { dir: directory(output) }
    }

    fn path(&self, target: &str) -> PathBuf {
        self.dir.join(format!("{}.state", target.replace(['/', ' '], "-")))
    }

    /// What is remembered of `target` under exactly this key.
    pub fn recall(&self, target: &str, key: &[u8; 32]) -> Option<Remembered> {
        let (found, remembered, _) = open(&self.path(target))?;
        (found == *key).then_some(remembered)
    }

    /// The files of the image with this manifest, whatever target it was built as.
    pub fn recall_tree(&self, digest: &str) -> Option<(Remembered, Tree)> {
        let files = fs::read_dir(&self.dir).ok()?.flatten().map(|entry| entry.path());
        files.filter_map(|path| open(&path)).find_map(|(_, remembered, file)| {
            let is_it = remembered.manifest.digest().as_ref() == digest;
            is_it
                .then(|| record::body(file))
                .flatten()
                .map(|tree| (remembered, tree))
        })
    }

    /// Takes the place of what was remembered of `target`.
    pub fn remember(&self, target: &str, key: [u8; 32], image: &Remembered, tree: &Tree) -> std::io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let head = Head {
            key,
            manifest: serde_json::to_vec(&image.manifest)?,
            uncompressed_bytes: image.uncompressed_bytes,
            built: image.built,
            files: image.files,
        };
        FORMAT.write(&self.path(target), &head, tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tree::{self, Node, NodeKind};
    use crate::util::hash::key;

    fn image() -> (Remembered, Tree) {
        let mut tree = Tree::default();
        let file = tree::File {
            size: 3,
            head: b"abc".as_slice().into(),
            content: Some(b"abc".as_slice().into()),
            ..tree::File::default()
        };
        tree.insert(
            "etc",
            Node {
                kind: NodeKind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: 1,
                xattrs: Default::default(),
                layer: 0,
            },
        );
        tree.insert(
            "etc/x",
            Node {
                kind: NodeKind::File(file),
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: 1,
                xattrs: Default::default(),
                layer: 1,
            },
        );
        let digest = format!("sha256:{}", "0".repeat(64));
        let manifest = oci_spec::image::Descriptor::new(
            oci_spec::image::MediaType::ImageManifest,
            10,
            digest.parse::<oci_spec::image::Digest>().unwrap(),
        );
        let remembered = Remembered {
            manifest,
            uncompressed_bytes: 7,
            built: (1, 2),
            files: tree.len(),
        };
        (remembered, tree)
    }

    #[test]
    fn an_image_comes_back_under_its_key_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path());
        let (image, tree) = image();
        state
            .remember("a linux/amd64", key(&["x", "y"]), &image, &tree)
            .unwrap();
        let back = state.recall("a linux/amd64", &key(&["x", "y"])).unwrap();
        assert_eq!((back.manifest, back.files), (image.manifest.clone(), 2));
        assert!(state.recall("a linux/amd64", &key(&["xy", ""])).is_none());
        assert!(state.recall("a linux/arm64", &key(&["x", "y"])).is_none());
        let digest = image.manifest.digest().to_string();
        let (_, tree) = state.recall_tree(&digest).unwrap();
        assert_eq!(tree.content("etc/x"), Some(b"abc".as_slice()));
        assert!(state.recall_tree(&digest.replace('0', "1")).is_none());
    }

    #[test]
    fn a_truncated_tree_reads_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path());
        let (image, tree) = image();
        state.remember("t", key(&["x"]), &image, &tree).unwrap();
        let digest = image.manifest.digest().to_string();
        let path = state.path("t");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(state.recall_tree(&digest).is_none());
    }
}
