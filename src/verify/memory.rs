//! The verdicts that an output directory remembers, so that no image is judged twice by the same rules.
//!
//! It is a cache: a file that is missing or damaged costs a judgement. Only verdicts that passed are kept, each under a key of
//! everything that decides it: program, contract, build.toml, what the image is compared with, platform and digest.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Passed, Verdict};
use crate::image::{Image, state};
use crate::oci::Platform;
use crate::util::hash;
use crate::util::record::Format;

/// The head is [`Verdicts`]; there is no body. The line changes with the shape of a verdict.
const FORMAT: Format = Format {
    line: "obgp-build verdicts 2\n",
    max_head: 64 << 20,
};

/// The latest are kept: those of a few images on two platforms each.
const MAX_VERDICTS: usize = 64;

/// By the [key](hash::key) of what decides the verdict, the latest first.
type Verdicts = Vec<([u8; 32], Passed)>;

/// The verdicts of one output directory.
pub struct Memory {
    dir: PathBuf,
    /// The file's content, once it was read or written.
    verdicts: Mutex<Option<Verdicts>>,
}

impl Memory {
    pub fn new(output: &Path) -> Self {
        Self {
            dir: state::directory(output),
            verdicts: Mutex::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("verdicts")
    }

    fn read(&self) -> Verdicts {
        FORMAT
            .open(&self.path())
            .map_or_else(Vec::new, |(verdicts, _)| verdicts)
    }

    fn recall(&self, key: &[u8; 32]) -> Option<Passed> {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let verdicts = verdicts.get_or_insert_with(|| self.read());
        verdicts
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, passed)| passed.clone())
    }

    /// Writes only where a build keeps its state: other files next to a layout are ignored.
    fn remember(&self, mut verdicts: Verdicts) -> std::io::Result<()> {
        if !self.dir.is_dir() {
            return Ok(());
        }
        let mut known = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        // Another process may have written since.
        verdicts.extend(self.read());
        verdicts.truncate(MAX_VERDICTS);
        FORMAT.write(&self.path(), &verdicts, &())?;
        *known = Some(verdicts);
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
    use std::fs;

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
        // Without an earlier build nothing is written.
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
    fn a_damaged_file_costs_a_judgement_only() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        fs::create_dir(&memory.dir).unwrap();
        fs::write(memory.path(), "damaged").unwrap();
        assert_eq!(memory.recall(&key(&["a"])), None);
        memory.remember(vec![(key(&["a"]), passed("files"))]).unwrap();
        assert_eq!(Memory::new(dir.path()).recall(&key(&["a"])), Some(passed("files")));
    }
}
