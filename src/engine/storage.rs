//! Reads an image from the storage of an engine on this machine, as the archive that the engine would export.
//!
//! Before a classic store sends the first byte of an export, it has read every file, over FUSE with some drivers, and
//! written everything to disk twice. If its layers are directories that this process may read (which requires root),
//! they are read directly. The storage format is not a stable interface: as for every export, the archive's reader
//! checks configuration and layers against their digests. If they differ or are missing, [`Engine::read_image`] uses
//! the engine's export.
//!
//! - `image/DRIVER/imagedb/content/sha256/ID`: the configuration.
//! - `image/DRIVER/layerdb/sha256/CHAIN-ID/cache-id`: where a layer's files are, `DRIVER/CACHE-ID/diff`.
//! - `image/DRIVER/layerdb/sha256/CHAIN-ID/tar-split.json.gz`: the layer's tar without file contents, and the
//!   positions of the contents (<https://github.com/vbatts/tar-split>).

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use oci_spec::image::{Digest, DigestAlgorithm};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};
use tokio::runtime::Handle;

use super::tar_split::{self, Layer};
use super::{Engine, EngineImage};
use crate::util::bridge;

/// Drivers that store a layer's changes as a directory.
const DRIVERS: [&str; 2] = ["overlay2", "fuse-overlayfs"];
/// Upper limit of a configuration, in bytes.
const CONFIG: u64 = 4 << 20;
const BLOCK: u64 = 512;

/// Where an image's archive came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadFrom {
    EngineStorage,
    EngineExport,
}

impl fmt::Display for ReadFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EngineStorage => "read from the engine's storage",
            Self::EngineExport => "exported by the engine",
        })
    }
}

/// An image archive, for a thread that may block.
pub type Archive = Box<dyn Read + Send>;

impl Engine {
    /// Passes the image's archive to `read`, which may block: from the engine's storage if `storage` allows it and it is
    /// accessible, or by an export if it is not or `read` fails. Returns where the archive came from. Needs a runtime, as in
    /// `spawn_blocking`.
    pub fn read_image<T, E: std::error::Error>(
        &self,
        image: &EngineImage,
        storage: bool,
        mut read: impl FnMut(Archive) -> Result<T, E>,
    ) -> Result<(T, ReadFrom), E> {
        let stored = match storage {
            true => self.stored(image),
            false => Err(io::Error::other("turned off")),
        };
        match stored {
            Ok(archive) => match read(archive) {
                Ok(done) => return Ok((done, ReadFrom::EngineStorage)),
                Err(error) => tracing::debug!(%error, image.id, "the engine's storage has other content than expected"),
            },
            Err(error) => tracing::debug!(%error, image.id, "the engine's storage is not accessible"),
        }
        let done = read(Box::new(bridge::reader(&Handle::current(), self.export(&image.id))))?;
        Ok((done, ReadFrom::EngineExport))
    }

    /// The image's archive from the storage.
    pub fn stored(&self, image: &EngineImage) -> io::Result<Archive> {
        let storage = self.storage().ok_or(io::ErrorKind::Unsupported)?;
        storage.archive(image)
    }

    /// `None` for a remote engine, or another storage driver.
    pub fn storage(&self) -> Option<Storage> {
        let info = self.info();
        let driver = DRIVERS.into_iter().find(|driver| *driver == info.storage_driver)?;
        let root = Path::new(&info.data_root);
        self.endpoint().is_local().then(|| Storage {
            documents: root.join("image").join(driver),
            files: root.join(driver),
        })
    }
}

/// The storage of a classic store with one of [`DRIVERS`].
pub struct Storage {
    /// Image and layer metadata, by driver.
    documents: PathBuf,
    /// Layer files, by driver.
    files: PathBuf,
}

impl Storage {
    /// Whether this process may read the storage.
    pub fn is_readable(&self) -> bool {
        fs::read_dir(self.documents.join("layerdb")).is_ok() && fs::read_dir(&self.files).is_ok()
    }

    /// In the layout of engines before 25.
    fn archive(&self, image: &EngineImage) -> io::Result<Archive> {
        let id = hex_of(&image.id)?;
        let mut config = Vec::new();
        File::open(self.documents.join("imagedb/content/sha256").join(&id))?
            .take(CONFIG)
            .read_to_end(&mut config)?;
        let mut archive: Archive = Box::new(io::empty());
        let mut names = Vec::new();
        let mut chain_id: Option<String> = None;
        for (i, diff_id) in image.diff_ids.iter().enumerate() {
            let chain = match chain_id {
                None => hex_of(diff_id)?,
                Some(below) => hex::encode(Sha256::digest(format!("sha256:{below} {diff_id}"))),
            };
            let (layer, size) = self.layer(&chain)?;
            let name = format!("{i}/layer.tar");
            archive = with_member(archive, &name, layer, size)?;
            names.push(name);
            chain_id = Some(chain);
        }
        let config_name = format!("{id}.json");
        let manifest = serde_json::to_vec(&json!([{"Config": config_name, "Layers": names}]))?;
        for (name, document) in [(&*config_name, config), ("manifest.json", manifest)] {
            let size = document.len() as u64;
            archive = with_member(archive, name, Cursor::new(document), size)?;
        }
        Ok(Box::new(archive.chain(io::repeat(0).take(2 * BLOCK))))
    }

    /// A layer and its size.
    fn layer(&self, chain_id: &str) -> io::Result<(Layer, u64)> {
        let documents = self.documents.join("layerdb/sha256").join(chain_id);
        let mut cache_id = String::new();
        File::open(documents.join("cache-id"))?
            .take(BLOCK)
            .read_to_string(&mut cache_id)?;
        if !cache_id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let tar_split = documents.join("tar-split.json.gz");
        let size = tar_split::size(&tar_split)?;
        Ok((Layer::open(&tar_split, &self.files.join(cache_id).join("diff"))?, size))
    }
}

fn with_member(archive: Archive, name: &str, data: impl Read + Send + 'static, size: u64) -> io::Result<Archive> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_cksum();
    let padded = size.checked_next_multiple_of(BLOCK).ok_or(io::ErrorKind::InvalidData)?;
    let padding = io::repeat(0).take(padded - size);
    Ok(Box::new(
        archive
            .chain(Cursor::new(*header.as_bytes()))
            .chain(data)
            .chain(padding),
    ))
}

/// The reader checks the configuration only if its name contains a digest.
fn hex_of(digest: &str) -> io::Result<String> {
    let digest: Digest = digest.parse().map_err(io::Error::other)?;
    match digest.algorithm() {
        DigestAlgorithm::Sha256 => Ok(digest.digest().to_string()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const LOWER: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const UPPER: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const ID: &str = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";
    /// `printf 'sha256:aaa… sha256:bbb…' | sha256sum`
    const UPPER_CHAIN: &str = "ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c";

    fn storage(root: &Path) -> (Storage, EngineImage) {
        let storage = Storage {
            documents: root.join("image/overlay2"),
            files: root.join("overlay2"),
        };
        let configs = storage.documents.join("imagedb/content/sha256");
        fs::create_dir_all(&configs).unwrap();
        fs::write(configs.join(&ID[7..]), "{}").unwrap();
        add_layer(&storage, &LOWER[7..], "lower0", "lower");
        add_layer(&storage, UPPER_CHAIN, "upper0", "upper");
        let image = EngineImage {
            id: ID.into(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            os: "linux".into(),
            architecture: "amd64".into(),
            diff_ids: vec![LOWER.into(), UPPER.into()],
            size: 0,
            created: None,
            tagged: None,
            labels: Default::default(),
        };
        (storage, image)
    }

    fn add_layer(storage: &Storage, chain_id: &str, cache_id: &str, bytes: &str) {
        let documents = storage.documents.join("layerdb/sha256").join(chain_id);
        fs::create_dir_all(&documents).unwrap();
        fs::create_dir_all(storage.files.join(cache_id).join("diff")).unwrap();
        fs::write(documents.join("cache-id"), cache_id).unwrap();
        let split = File::create(documents.join("tar-split.json.gz")).unwrap();
        let mut split = GzEncoder::new(split, Compression::fast());
        let payload = BASE64_STANDARD.encode(bytes);
        writeln!(split, r#"{{"type":2,"payload":"{payload}","position":0}}"#).unwrap();
        split.finish().unwrap();
    }

    #[test]
    fn an_archive_has_the_layers_by_their_chain_ids_and_the_documents() {
        let root = tempfile::tempdir().unwrap();
        let (storage, image) = storage(root.path());
        assert!(storage.is_readable());
        let mut archive = tar::Archive::new(storage.archive(&image).unwrap());
        let members = archive.entries().unwrap().map(|member| {
            let mut member = member.unwrap();
            let mut data = String::new();
            member.read_to_string(&mut data).unwrap();
            (member.path().unwrap().display().to_string(), data)
        });
        let config = format!("{}.json", &ID[7..]);
        let manifest = format!(r#"[{{"Config":"{config}","Layers":["0/layer.tar","1/layer.tar"]}}]"#);
        let expected = [
            ("0/layer.tar", "lower"),
            ("1/layer.tar", "upper"),
            (&*config, "{}"),
            ("manifest.json", &*manifest),
        ];
        assert!(members.eq(expected.map(|(name, data)| (name.to_string(), data.to_string()))));
    }

    #[test]
    fn what_is_not_there_or_strange_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let (storage, image) = storage(root.path());
        // Without a digest in its name, the reader would not check the configuration.
        let upper_case = ID.replace('c', "C");
        fs::write(
            storage.documents.join("imagedb/content/sha256").join(&upper_case[7..]),
            "{}",
        )
        .unwrap();
        let spoilt: [&dyn Fn(&mut EngineImage); 4] = [
            &|image| image.id = LOWER.into(),
            &|image| image.id = upper_case.clone(),
            &|image| image.diff_ids.reverse(),
            &|image| image.diff_ids[0] = "sha256:".into(),
        ];
        for spoil in spoilt {
            let mut image = image.clone();
            spoil(&mut image);
            assert!(storage.archive(&image).is_err());
        }
        assert!(storage.archive(&image).is_ok());
        let outside = storage
            .documents
            .join("layerdb/sha256")
            .join(UPPER_CHAIN)
            .join("cache-id");
        fs::write(outside, "../overlay2/upper0").unwrap();
        assert!(storage.archive(&image).is_err());
    }
}
