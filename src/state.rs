//! What an output directory remembers of the last build of each target, so that nothing is exported and read twice, and
//! of the verdicts on what was pushed, so that nothing is judged twice.
//!
//! It is a cache: lost, damaged or of another version, it costs an export or a judgement. The layout is the truth.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::layout::tree::Tree;
use crate::verify::Passed;

/// Changes with the shape of [`Entry`], and with what [`verify::keeps`](crate::verify::keeps) has trees keep.
const FORMAT: &str = concat!("obgp-build state ", env!("CARGO_PKG_VERSION"), " 6\n");

/// Changes with the shape of [`Verdicts`].
const VERDICTS: &str = "obgp-build verdicts 1\n";

/// The latest are kept: those of a few images on two platforms each.
const MAX_VERDICTS: usize = 64;

/// By [`key`], the latest first.
type Verdicts = Vec<([u8; 32], Passed)>;

/// Neither a tree of the largest image allowed nor a damaged file takes more.
const MAX_BYTES: u64 = 256 << 20;

/// The manifest's descriptor is kept as JSON: its type leaves empty fields out, which only a self-describing format can read.
#[derive(Serialize)]
struct Entry<'a> {
    key: &'a [u8; 32],
    manifest: Vec<u8>,
    uncompressed_bytes: u64,
    built: (i64, i64),
    tree: &'a Tree,
}

/// `Entry` as it is read.
#[derive(Deserialize)]
struct OwnedEntry {
    key: [u8; 32],
    manifest: Vec<u8>,
    uncompressed_bytes: u64,
    built: (i64, i64),
    tree: Tree,
}

/// An image that the layout may hold already.
pub struct Remembered {
    pub manifest: oci_spec::image::Descriptor,
    pub uncompressed_bytes: u64,
    /// When its build began and ended, in seconds since 1970.
    pub built: (i64, i64),
    pub tree: Tree,
}

/// What decides something, hashed. Of an ingested image, that is the engine's image and everything the ingest is told.
pub fn key(parts: &[impl AsRef<[u8]>]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts.iter().map(AsRef::as_ref) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let small = fs::metadata(path).ok()?.len() <= MAX_BYTES;
    small.then(|| fs::read(path).ok())?
}

fn decode(bytes: &[u8]) -> Option<([u8; 32], Remembered)> {
    let entry: OwnedEntry = postcard::from_bytes(bytes).ok()?;
    let remembered = Remembered {
        manifest: serde_json::from_slice(&entry.manifest).ok()?,
        uncompressed_bytes: entry.uncompressed_bytes,
        built: entry.built,
        tree: entry.tree,
    };
    Some((entry.key, remembered))
}

/// The memory of one output directory.
pub struct State {
    dir: PathBuf,
}

impl State {
    pub fn new(output: &Path) -> Self {
        State {
            dir: output.join(".obgp-build"),
        }
    }

    fn path(&self, target: &str) -> PathBuf {
        self.dir.join(format!("{}.state", target.replace(['/', ' '], "-")))
    }

    fn verdicts_path(&self) -> PathBuf {
        self.dir.join("verdicts")
    }

    /// The verdicts that are remembered, none of a file that is damaged.
    fn verdicts(&self) -> Option<Verdicts> {
        let bytes = read(&self.verdicts_path())?;
        let (sum, bytes) = bytes.strip_prefix(VERDICTS.as_bytes())?.split_first_chunk()?;
        let whole = *sum == <[u8; 32]>::from(Sha256::digest(bytes));
        whole.then(|| postcard::from_bytes(bytes).ok())?
    }

    /// The verdict under exactly this key, which says what was judged and by what.
    pub fn recall_verdict(&self, key: &[u8; 32]) -> Option<Passed> {
        let found = self.verdicts()?.into_iter().find(|(k, _)| k == key)?;
        Some(found.1)
    }

    /// Only where a build keeps its state: what else lies beside a layout is none of ours.
    pub fn remember_verdicts(&self, verdicts: Verdicts) -> std::io::Result<()> {
        if !self.dir.is_dir() {
            return Ok(());
        }
        let mut kept = verdicts;
        let earlier = self.verdicts().unwrap_or_default();
        kept.extend(earlier);
        kept.truncate(MAX_VERDICTS);
        let bytes = postcard::to_stdvec(&kept).map_err(std::io::Error::other)?;
        let mut file = NamedTempFile::new_in(&self.dir)?;
        file.write_all(VERDICTS.as_bytes())?;
        file.write_all(&Sha256::digest(&bytes))?;
        file.write_all(&bytes)?;
        file.persist(self.verdicts_path()).map_err(|e| e.error)?;
        Ok(())
    }

    /// What was remembered of `target` under exactly this key.
    pub fn recall(&self, target: &str, key: &[u8; 32]) -> Option<Remembered> {
        let bytes = read(&self.path(target))?;
        let (found, remembered) = decode(bytes.strip_prefix(FORMAT.as_bytes())?)?;
        (found == *key).then_some(remembered)
    }

    /// What was remembered of the image with this manifest, whatever target it was built as.
    pub fn recall_manifest(&self, digest: &str) -> Option<Remembered> {
        let files = fs::read_dir(&self.dir).ok()?.flatten().map(|entry| entry.path());
        files.filter_map(|path| read(&path)).find_map(|bytes| {
            let bytes = bytes.strip_prefix(FORMAT.as_bytes())?;
            // The fields before the tree, which is large.
            let ((_, manifest), _): (([u8; 32], Vec<u8>), _) = postcard::take_from_bytes(bytes).ok()?;
            let manifest: oci_spec::image::Descriptor = serde_json::from_slice(&manifest).ok()?;
            (manifest.digest().to_string() == digest).then_some(())?;
            decode(bytes)?.1.into()
        })
    }

    /// Takes the place of what was remembered of `target`.
    pub fn remember(&self, target: &str, key: [u8; 32], image: &Remembered) -> std::io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let entry = Entry {
            key: &key,
            manifest: serde_json::to_vec(&image.manifest)?,
            uncompressed_bytes: image.uncompressed_bytes,
            built: image.built,
            tree: &image.tree,
        };
        let mut file = NamedTempFile::new_in(&self.dir)?;
        file.write_all(FORMAT.as_bytes())?;
        let file = postcard::to_io(&entry, file).map_err(std::io::Error::other)?;
        file.persist(self.path(target)).map_err(|e| e.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tree::{File, Node, NodeKind};

    fn remembered() -> Remembered {
        let mut tree = Tree::default();
        let file = File {
            size: 3,
            head: b"abc".as_slice().into(),
            content: Some(b"abc".as_slice().into()),
            ..File::default()
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
        Remembered {
            manifest,
            uncompressed_bytes: 7,
            built: (1, 2),
            tree,
        }
    }

    #[test]
    fn a_tree_comes_back_under_its_key_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path());
        state
            .remember("a linux/amd64", key(&["x", "y"]), &remembered())
            .unwrap();
        let back = state.recall("a linux/amd64", &key(&["x", "y"])).unwrap();
        assert_eq!(back.tree.content("etc/x"), Some(b"abc".as_slice()));
        assert_eq!(back.manifest, remembered().manifest);
        assert!(state.recall("a linux/amd64", &key(&["xy", ""])).is_none());
        assert!(state.recall("a linux/arm64", &key(&["x", "y"])).is_none());
        let digest = remembered().manifest.digest().to_string();
        assert_eq!(
            state.recall_manifest(&digest).unwrap().tree.content("etc/x"),
            Some(b"abc".as_slice())
        );
        assert!(state.recall_manifest(&digest.replace('0', "1")).is_none());
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path());
        let k = key(&["x"]);
        state.remember("t", k, &remembered()).unwrap();
        let path = state.path("t");
        let whole = fs::read(&path).unwrap();
        for length in [0, 10, FORMAT.len(), whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(state.recall("t", &k).is_none(), "{length} bytes");
        }
    }

    fn passed(of: &str) -> Passed {
        let rules: Vec<(&str, (usize, &str))> = vec![("rule", (3, of))];
        postcard::from_bytes(&postcard::to_stdvec(&rules).unwrap()).unwrap()
    }

    #[test]
    fn a_verdict_comes_back_under_its_key_and_the_latest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path());
        // Where nothing was built, nothing is left behind.
        state.remember_verdicts(vec![(key(&["a"]), passed("files"))]).unwrap();
        assert!(!state.dir.exists());
        fs::create_dir(&state.dir).unwrap();
        state.remember_verdicts(vec![(key(&["a"]), passed("files"))]).unwrap();
        assert_eq!(state.recall_verdict(&key(&["a"])), Some(passed("files")));
        assert_eq!(state.recall_verdict(&key(&["b"])), None);
        for i in 0..MAX_VERDICTS {
            let verdicts = vec![(key(&[i.to_string()]), passed("others"))];
            state.remember_verdicts(verdicts).unwrap();
        }
        assert_eq!(state.recall_verdict(&key(&["a"])), None);
        assert_eq!(state.recall_verdict(&key(&["0"])), Some(passed("others")));
    }

    #[test]
    fn verdicts_of_which_any_bit_is_wrong_are_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path());
        fs::create_dir(&state.dir).unwrap();
        state.remember_verdicts(vec![(key(&["a"]), passed("files"))]).unwrap();
        let whole = fs::read(state.verdicts_path()).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for damaged in [&changed[..], &whole[..at]] {
                fs::write(state.verdicts_path(), damaged).unwrap();
                assert_eq!(state.recall_verdict(&key(&["a"])), None, "byte {at}");
            }
        }
    }
}
