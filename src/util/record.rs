//! A file of a cache: a format line, a head with its length and SHA-256, and a body that is read only when needed.
//!
//! A file that is missing, damaged, too large or of another format reads as `None`. Writes are atomic.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

/// A kind of record.
pub struct Format {
    /// The first bytes of the file; they change with the types of head and body.
    pub line: &'static str,
    /// The largest head, in bytes.
    pub max_head: u32,
}

/// The largest body, in bytes.
const MAX_BODY: u64 = 256 << 20;

impl Format {
    /// Reads the head. The file is then positioned at the body, for [`body`].
    pub fn open<H: DeserializeOwned>(&self, path: &Path) -> Option<(H, File)> {
        let mut file = File::open(path).ok()?;
        let mut line = vec![0; self.line.len()];
        let (mut length, mut sum) = ([0; 4], [0; 32]);
        for field in [&mut line[..], &mut length, &mut sum] {
            file.read_exact(field).ok()?;
        }
        let length = u32::from_le_bytes(length);
        if line != self.line.as_bytes() || length > self.max_head {
            return None;
        }
        let mut head = vec![0; length as usize];
        file.read_exact(&mut head).ok()?;
        let whole = sum == <[u8; 32]>::from(Sha256::digest(&head));
        Some((whole.then(|| postcard::from_bytes(&head).ok())??, file))
    }

    /// Replaces the file. Without a body, `body` is `()`.
    pub fn write(&self, path: &Path, head: &impl Serialize, body: &impl Serialize) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let head = postcard::to_stdvec(head).map_err(io::Error::other)?;
        let length = u32::try_from(head.len()).ok().filter(|length| *length <= self.max_head);
        let length = length.ok_or_else(|| io::Error::other("the head of a record is too large"))?;
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(self.line.as_bytes())?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(&Sha256::digest(&head))?;
        file.write_all(&head)?;
        // The body is handed over field by field, down to single bytes.
        let buffered = postcard::to_io(body, BufWriter::new(file)).map_err(io::Error::other)?;
        let file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    }
}

/// Reads the body of a record that [`Format::open`] opened.
pub fn body<B: DeserializeOwned>(mut file: File) -> Option<B> {
    if file.metadata().ok()?.len() > MAX_BODY {
        return None;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    postcard::from_bytes(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FORMAT: Format = Format {
        line: "a record 1\n",
        max_head: 100,
    };

    #[test]
    fn head_and_body_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        FORMAT.write(&path, &("head", 1), &vec![2, 3]).unwrap();
        let (head, file): ((String, i32), File) = FORMAT.open(&path).unwrap();
        assert_eq!((head.0.as_str(), head.1), ("head", 1));
        assert_eq!(body::<Vec<i32>>(file), Some(vec![2, 3]));
    }

    #[test]
    fn a_damaged_or_foreign_head_reads_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        assert!(FORMAT.open::<String>(&path).is_none(), "missing");
        FORMAT.write(&path, &"head", &()).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for damaged in [&changed[..], &whole[..at]] {
                fs::write(&path, damaged).unwrap();
                assert!(FORMAT.open::<String>(&path).is_none(), "byte {at}");
            }
        }
        let mut long = whole.clone();
        long[FORMAT.line.len()..][..4].fill(0xff);
        fs::write(&path, long).unwrap();
        assert!(FORMAT.open::<String>(&path).is_none(), "length");
    }

    #[test]
    fn a_head_over_the_limit_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        assert!(FORMAT.write(&path, &"x".repeat(200), &()).is_err());
        assert!(!path.exists());
    }
}
