//! Reads the blobs of an OCI layout in a tar file, without unpacking it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use oci_spec::image::Digest;

/// An image in an archive such as those of [`crate::base::bootstrap`]: a base that BuildKit reads in the session.
#[derive(Debug)]
pub struct ImageArchive {
    file: File,
    /// Offset and size of each blob, by its digest.
    blobs: HashMap<String, (u64, u64)>,
    manifest: Digest,
}

impl ImageArchive {
    /// `manifest` is the image's. Reads only the archive's headers: readers of blobs check digests.
    pub fn open(path: &Path, manifest: &Digest) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut blobs = HashMap::new();
        for entry in tar::Archive::new(&file).entries_with_seek()? {
            let entry = entry?;
            if let Some(hex) = entry
                .path()?
                .to_str()
                .and_then(|path| path.strip_prefix("blobs/sha256/"))
            {
                blobs.insert(format!("sha256:{hex}"), (entry.raw_file_position(), entry.size()));
            }
        }
        if !blobs.contains_key(manifest.as_ref()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it has no blob {manifest}"),
            ));
        }
        Ok(Self {
            file,
            blobs,
            manifest: manifest.clone(),
        })
    }

    pub fn manifest(&self) -> &Digest {
        &self.manifest
    }

    pub(super) fn size(&self, digest: &str) -> Option<u64> {
        self.blobs.get(digest).map(|(_, size)| *size)
    }

    /// Fills `buffer` from `offset`; the range must be within the blob.
    pub(super) fn read_at(&self, digest: &str, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (start, _) = self.blobs.get(digest).ok_or(io::ErrorKind::NotFound)?;
        self.file.read_exact_at(buffer, start + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_found_in_the_archive() {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let mut tar = tar::Builder::new(tempfile::NamedTempFile::new().unwrap());
        for (path, content) in [
            (format!("blobs/sha256/{one}"), "the manifest"),
            ("index.json".into(), "{}"),
            (format!("blobs/sha256/{two}"), &*"layer".repeat(300)),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        let file = tar.into_inner().unwrap();
        let manifest: Digest = format!("sha256:{one}").parse().unwrap();
        let archive = ImageArchive::open(file.path(), &manifest).unwrap();
        let layer = format!("sha256:{two}");
        assert_eq!(archive.size(&layer), Some(1500));
        assert_eq!(archive.size("sha256:index"), None);
        let mut read = [0; 8];
        archive.read_at(&layer, &mut read, 1003).unwrap();
        assert_eq!(&read, b"erlayerl");

        let other: Digest = format!("sha256:{}", "3".repeat(64)).parse().unwrap();
        let error = ImageArchive::open(file.path(), &other).unwrap_err();
        assert!(error.to_string().contains("has no blob sha256:333"), "{error}");
    }
}
