//! The verdicts that an output directory remembers, so that no image is judged twice by the same rules.
//!
//! It is a cache: a file that is missing or damaged costs a judgement. Only verdicts that passed are kept, each under a key of
//! everything that decides it: program, contract, build.toml, what the image is compared with, platform and digest.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{Passed, Verdict};
use crate::image::{Image, state};
use crate::oci::Platform;
use crate::util::hash;

/// Changes with the shape of [`Verdicts`].
const FORMAT: &str = "obgp-build verdicts 1\n";

/// The latest are kept: those of a few images on two platforms each.
const MAX_VERDICTS: usize = 64;

/// A damaged file is not read beyond this.
const MAX_BYTES: u64 = 256 << 20;

/// By the [key](hash::key) of what decides the verdict, the latest first.
type Verdicts = Vec<([u8; 32], Passed)>;

/// The verdicts of one output directory.
pub struct Memory {
    dir: PathBuf,
    /// Held while the file is read and written again: targets are judged side by side.
    writing: Mutex<()>,
}

impl Memory {
    pub fn new(output: &Path) -> Self {
        Self {
            dir: state::directory(output),
            writing: Mutex::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("verdicts")
    }

    /// `None` if the file is damaged.
    fn read(&self) -> Option<Verdicts> {
        let small = fs::metadata(self.path()).ok()?.len() <= MAX_BYTES;
        let bytes = small.then(|| fs::read(self.path()).ok())??;
        let (sum, bytes) = bytes.strip_prefix(FORMAT.as_bytes())?.split_first_chunk()?;
        let whole = *sum == <[u8; 32]>::from(Sha256::digest(bytes));
        whole.then(|| postcard::from_bytes(bytes).ok())?
    }

    fn recall(&self, key: &[u8; 32]) -> Option<Passed> {
        let found = self.read()?.into_iter().find(|(k, _)| k == key)?;
        Some(found.1)
    }

    /// Writes only where a build keeps its state: other files next to a layout are ignored.
    fn remember(&self, verdicts: Verdicts) -> std::io::Result<()> {
        if !self.dir.is_dir() {
            return Ok(());
        }
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = verdicts;
        let earlier = self.read().unwrap_or_default();
        kept.extend(earlier);
        kept.truncate(MAX_VERDICTS);
        let bytes = postcard::to_stdvec(&kept).map_err(std::io::Error::other)?;
        let mut file = NamedTempFile::new_in(&self.dir)?;
        file.write_all(FORMAT.as_bytes())?;
        file.write_all(&Sha256::digest(&bytes))?;
        file.write_all(&bytes)?;
        file.persist(self.path()).map_err(|e| e.error)?;
        Ok(())
    }
}

/// The remembered verdicts of one judge. Without terms, nothing is recalled and nothing remembered.
pub struct Known<'a> {
    memory: &'a Memory,
    terms: Option<[u8; 32]>,
}

impl<'a> Known<'a> {
    /// `terms` is the hash of everything besides the image that decides a verdict.
    pub fn new(memory: &'a Memory, terms: anyhow::Result<[u8; 32]>) -> Self {
        let terms = terms.inspect_err(|error| tracing::debug!(%error, "cannot determine what decides the verdict"));
        Self {
            memory,
            terms: terms.ok(),
        }
    }

    fn key(&self, platform: Platform, digest: &str) -> Option<[u8; 32]> {
        let terms = self.terms?;
        Some(hash::key(&[
            &terms[..],
            platform.to_string().as_bytes(),
            digest.as_bytes(),
        ]))
    }

    /// The verdict on this image, by its digest: the image is not read.
    pub fn recall(&self, image: &Image) -> Option<Verdict> {
        let (platform, digest) = (image.platform(), image.digest()?);
        let passed = self.memory.recall(&self.key(platform, digest)?)?;
        passed.of(platform, digest.to_string())
    }

    /// All verdicts, or none.
    pub fn recall_all(&self, images: &[Image]) -> Option<Vec<Verdict>> {
        images.iter().map(|image| self.recall(image)).collect()
    }

    pub fn remember(&self, verdicts: &[Verdict]) {
        let passed = verdicts.iter().filter_map(|verdict| {
            let key = self.key(verdict.platform(), verdict.digest()?)?;
            Some((key, Passed::new(verdict)?))
        });
        let passed: Verdicts = passed.collect();
        if passed.is_empty() {
            return;
        }
        if let Err(error) = self.memory.remember(passed) {
            tracing::debug!(%error, "cannot remember the verdicts");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::hash::key;

    fn passed(of: &str) -> Passed {
        let rules: Vec<(&str, (usize, &str))> = vec![("rule", (3, of))];
        postcard::from_bytes(&postcard::to_stdvec(&rules).unwrap()).unwrap()
    }

    #[test]
    fn a_verdict_comes_back_under_its_key_and_the_latest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        // Where nothing was built, nothing is left behind.
        memory.remember(vec![(key(&["a"]), passed("files"))]).unwrap();
        assert!(!memory.dir.exists());
        fs::create_dir(&memory.dir).unwrap();
        memory.remember(vec![(key(&["a"]), passed("files"))]).unwrap();
        assert_eq!(memory.recall(&key(&["a"])), Some(passed("files")));
        assert_eq!(memory.recall(&key(&["b"])), None);
        for i in 0..MAX_VERDICTS {
            let verdicts = vec![(key(&[i.to_string()]), passed("others"))];
            memory.remember(verdicts).unwrap();
        }
        assert_eq!(memory.recall(&key(&["a"])), None);
        assert_eq!(memory.recall(&key(&["0"])), Some(passed("others")));
    }

    #[test]
    fn verdicts_of_which_any_bit_is_wrong_are_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        fs::create_dir(&memory.dir).unwrap();
        memory.remember(vec![(key(&["a"]), passed("files"))]).unwrap();
        let whole = fs::read(memory.path()).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for damaged in [&changed[..], &whole[..at]] {
                fs::write(memory.path(), damaged).unwrap();
                assert_eq!(memory.recall(&key(&["a"])), None, "byte {at}");
            }
        }
    }
}
