//! Reads the archive of `GET /images/NAME/get`: an image's layers and documents, in one of two formats.
//!
//! - Engines before 25: `ID/layer.tar` per layer, in the order of meaningless IDs, then `HEX.json` (the configuration)
//!   and `manifest.json`. Repeated layers are symbolic links.
//! - Later engines: an OCI layout (`blobs/sha256/HEX`, `index.json`) and `manifest.json`. Layers are plain tar in the
//!   classic store. In the containerd store they have the compression of the registry or BuildKit (gzip, zstd), and
//!   there may be attestations and several platforms.
//!
//! In both formats the configuration arrives last, so layers are identified by their diff IDs, which the configuration
//! lists in order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::layer::{self, KeptBytes, ParsedLayer, ReadOptions, Sink};
use super::limits::Limits;
use super::members::{BLOCK, Members, TarError};
use super::store::StoreError;
use crate::oci::Platform;
use crate::progress::Progress;

/// Upper limit of all documents in an export together: manifests, indexes, configurations. Later ones are dropped.
const DOCUMENTS: u64 = 16 << 20;
/// The largest window of a zstd frame, as a power of two: 64 MiB.
const ZSTD_WINDOW_LOG: u32 = 26;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("reading the engine's export: {0}")]
    Archive(#[source] TarError),
    #[error("reading layer {name} of the engine's export: {source}")]
    Layer { name: String, source: TarError },
    #[error("{name} in the engine's export has the digest sha256:{found}: it was damaged on the way\nhelp: try again")]
    WrongDigest { name: String, found: String },
    #[error("{name} in the engine's export is not a valid JSON document: {source}")]
    Json { name: String, source: serde_json::Error },
    #[error("the engine's export has no {0}\nhelp: check that it is an image export")]
    Missing(String),
    #[error("the engine's export has no image for {wanted}, only {found}")]
    NoSuchPlatform { wanted: Platform, found: String },
    #[error("the engine's export has {count} images for {wanted}\nhelp: export one name at a time")]
    Ambiguous { wanted: Platform, count: usize },
    #[error(
        "layer {number} of the image has the diff ID {diff_id}, and no layer in the engine's export has that digest: {hint}"
    )]
    NoSuchLayer {
        number: usize,
        diff_id: String,
        hint: &'static str,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Processes layers as they arrive.
pub trait Layers {
    type Sink: Sink;
    type Layer;
    fn open(&self) -> Result<Self::Sink, StoreError>;
    fn close(&self, sink: Self::Sink, layer: ParsedLayer) -> io::Result<Self::Layer>;
}

/// One image in an export.
pub struct Export<L> {
    /// The engine's configuration, unchanged.
    pub config: Vec<u8>,
    /// By diff ID; may include layers of other platforms.
    pub layers: HashMap<[u8; 32], L>,
    /// In order, base first.
    pub diff_ids: Vec<[u8; 32]>,
}

/// Reads a whole export and selects the image for `platform`.
pub fn read<F: Layers>(
    export: impl Read,
    platform: Platform,
    options: &ReadOptions<'_>,
    expected_size: Option<u64>,
    factory: &F,
    progress: &dyn Progress,
) -> Result<Export<F::Layer>, ExportError> {
    let metered = Metered {
        inner: export,
        passed: 0,
        reported: 0,
        limit: options.limits.image_bytes,
        expected: expected_size,
        progress,
    };
    let outer_limits = Limits {
        layer_bytes: options.limits.image_bytes,
        ..options.limits
    };
    let mut reader = Reader {
        members: Members::new(BufReader::with_capacity(256 << 10, metered), outer_limits),
        options: *options,
        kept: KeptBytes::default(),
        factory,
        layers: HashMap::new(),
        documents: Documents::default(),
    };
    while let Some(member) = reader.members.next().map_err(ExportError::Archive)? {
        if matches!(member.kind, EntryType::Regular | EntryType::Continuous) {
            let name = member.path.trim_start_matches("./").to_string();
            reader.file(name, member.size)?;
        }
    }
    let Reader {
        members,
        layers,
        documents,
        ..
    } = reader;
    members.finish(&mut io::sink()).map_err(ExportError::Archive)?;
    let config = documents.choose(platform)?;
    let diff_ids = diff_ids(&config, &layers)?;
    Ok(Export {
        config,
        layers,
        diff_ids,
    })
}

struct Reader<'a, R, F: Layers> {
    members: Members<R>,
    options: ReadOptions<'a>,
    kept: KeptBytes,
    factory: &'a F,
    layers: HashMap<[u8; 32], F::Layer>,
    documents: Documents,
}

impl<R: Read, F: Layers> Reader<'_, R, F> {
    fn file(&mut self, name: String, size: u64) -> Result<(), ExportError> {
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            let hex = hex.to_string();
            return self.blob(name, &hex, size);
        }
        if name.ends_with("/layer.tar") {
            self.layer(&name, &[], Packing::None)?;
            return Ok(());
        }
        let stem = name.strip_suffix(".json").unwrap_or_default();
        if stem.contains('/') || stem.is_empty() {
            return Ok(());
        }
        let digest = is_sha256(stem).then(|| stem.to_string());
        self.document(name, digest.as_deref(), size, Vec::new())
    }

    /// The type of a blob shows only in its first bytes.
    fn blob(&mut self, name: String, hex: &str, size: u64) -> Result<(), ExportError> {
        let mut first = vec![0; BLOCK];
        let n = self.members.read_data(&mut first).map_err(ExportError::Archive)?;
        first.truncate(n);
        let is_tar = n == BLOCK && first[257..262] == *b"ustar";
        let packing = match &*first {
            [0x1f, 0x8b, ..] if !is_tar => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] if !is_tar => Packing::Zstd,
            [b'{', ..] if !is_tar => return self.document(name, Some(hex), size, first),
            _ => Packing::None,
        };
        let (blob_digest, diff_id) = self.layer(&name, &first, packing)?;
        check_digest(&name, hex, &blob_digest.unwrap_or(diff_id))
    }

    fn document(&mut self, name: String, hex: Option<&str>, size: u64, mut first: Vec<u8>) -> Result<(), ExportError> {
        let small = size <= self.options.limits.json_bytes && self.documents.bytes + size <= DOCUMENTS;
        if !small {
            // In-toto attestations can be this long; a missing manifest or configuration is reported later.
            return Ok(());
        }
        let at = first.len();
        first.resize(size as usize, 0);
        self.members.read_data(&mut first[at..]).map_err(ExportError::Archive)?;
        if let Some(hex) = hex {
            check_digest(&name, hex, &Sha256::digest(&first).into())?;
        }
        self.documents.bytes += size;
        self.documents.by_name.insert(name, first);
        Ok(())
    }

    /// Reads a layer; returns the digest of its compressed bytes, if compressed, and its diff ID.
    fn layer(
        &mut self,
        name: &str,
        first: &[u8],
        packing: Packing,
    ) -> Result<(Option<[u8; 32]>, [u8; 32]), ExportError> {
        let mut sink = self.factory.open()?;
        let stream = Cursor::new(first).chain(&mut self.members);
        let (layer, blob_digest) =
            read_packed(stream, packing, &mut sink, &self.options, &self.kept).map_err(|source| {
                ExportError::Layer {
                    name: name.to_string(),
                    source,
                }
            })?;
        self.options.limits = layer.limits_left;
        let diff_id = layer.diff_id;
        let layer = self.factory.close(sink, layer).map_err(|e| ExportError::Layer {
            name: name.to_string(),
            source: e.into(),
        })?;
        self.layers.insert(diff_id, layer);
        Ok((blob_digest, diff_id))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    None,
    Gzip,
    Zstd,
}

/// Reads a layer with any compression to its end; the digest is of the compressed bytes, if compressed.
pub fn read_packed(
    stream: impl Read,
    packing: Packing,
    sink: &mut impl Sink,
    options: &ReadOptions<'_>,
    kept: &KeptBytes,
) -> Result<(ParsedLayer, Option<[u8; 32]>), TarError> {
    const BUFFER: usize = 128 << 10;
    let mut packed = Hashed {
        inner: stream,
        sha: Sha256::new(),
    };
    let layer = match packing {
        Packing::None => return Ok((layer::parse(packed.inner, sink, options, kept)?, None)),
        Packing::Gzip => {
            let decoder = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, &mut packed));
            layer::parse(BufReader::with_capacity(BUFFER, decoder), sink, options, kept)?
        }
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(&mut packed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            layer::parse(BufReader::with_capacity(BUFFER, decoder), sink, options, kept)?
        }
    };
    io::copy(&mut packed, &mut io::sink())?;
    Ok((layer, Some(packed.sha.finalize().into())))
}

struct Hashed<R> {
    inner: R,
    sha: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.sha.update(&buffer[..n]);
        Ok(n)
    }
}

#[derive(Default)]
struct Documents {
    by_name: BTreeMap<String, Vec<u8>>,
    bytes: u64,
}

/// The fields of manifests, indexes and configurations that identify images. Docker's media types are treated like
/// OCI's.
/// like OCI's here.
#[derive(Deserialize)]
struct AnyDescriptor {
    digest: String,
    platform: Option<Os>,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct AnyManifest {
    manifests: Option<Vec<AnyDescriptor>>,
    config: Option<AnyDescriptor>,
}

#[derive(Deserialize)]
struct Os {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Deserialize)]
struct SavedImage {
    #[serde(rename = "Config")]
    config: String,
}

#[derive(Deserialize)]
struct Rootfs {
    rootfs: DiffIds,
}

#[derive(Deserialize)]
struct DiffIds {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

impl Documents {
    fn parse<'a, T: Deserialize<'a>>(&'a self, name: &str) -> Result<Option<T>, ExportError> {
        let Some(bytes) = self.by_name.get(name) else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice(bytes).map_err(|source| ExportError::Json {
            name: name.to_string(),
            source,
        })?;
        Ok(Some(parsed))
    }

    /// The configuration of the only image for `platform`.
    fn choose(mut self, platform: Platform) -> Result<Vec<u8>, ExportError> {
        let mut configs = BTreeSet::new();
        if self.by_name.contains_key("index.json") {
            self.configs_below("index.json", &mut configs, 0)?;
        } else {
            let saved: Option<Vec<SavedImage>> = self.parse("manifest.json")?;
            let saved = saved.ok_or_else(|| ExportError::Missing("manifest.json or index.json".into()))?;
            configs.extend(saved.into_iter().map(|image| image.config));
        }
        let wanted = ("linux", platform.architecture().name());
        let mut chosen = Vec::new();
        let mut others = BTreeSet::new();
        for name in &configs {
            let os: Option<Os> = self.parse(name)?;
            let Some(os) = os else {
                others.insert(format!("a platform whose {name} is missing or too large"));
                continue;
            };
            if (os.os.as_str(), os.architecture.as_str()) == wanted {
                chosen.push(name);
            } else {
                others.insert(format!("{}/{}", os.os, os.architecture));
            }
        }
        match &chosen[..] {
            [name] => Ok(self.by_name.remove(*name).unwrap_or_default()),
            [] => Err(ExportError::NoSuchPlatform {
                wanted: platform,
                found: match others.is_empty() {
                    true => "no image at all".into(),
                    false => Vec::from_iter(others).join(", "),
                },
            }),
            several => Err(ExportError::Ambiguous {
                wanted: platform,
                count: several.len(),
            }),
        }
    }

    /// The names of the configurations that an index or manifest reaches. A store with only some platforms of an index
    /// exports it without the others.
    fn configs_below(&self, name: &str, found: &mut BTreeSet<String>, depth: usize) -> Result<(), ExportError> {
        let Some(document): Option<AnyManifest> = self.parse(name)? else {
            return Ok(());
        };
        if let Some(config) = document.config
            && let Some(name) = blob_name(&config.digest)
        {
            found.insert(name);
        }
        for child in document.manifests.unwrap_or_default() {
            let is_attestation = child.platform.as_ref().is_some_and(|p| p.os == "unknown")
                || child
                    .annotations
                    .is_some_and(|a| a.contains_key("vnd.docker.reference.type"));
            if depth < 4
                && !is_attestation
                && let Some(name) = blob_name(&child.digest)
            {
                self.configs_below(&name, found, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn blob_name(digest: &str) -> Option<String> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| is_sha256(hex))?;
    Some(format!("blobs/sha256/{hex}"))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn diff_ids<L>(config: &[u8], layers: &HashMap<[u8; 32], L>) -> Result<Vec<[u8; 32]>, ExportError> {
    let rootfs: Rootfs = serde_json::from_slice(config).map_err(|source| ExportError::Json {
        name: "the image's configuration".into(),
        source,
    })?;
    let listed = rootfs.rootfs.diff_ids.unwrap_or_default();
    let mut diff_ids = Vec::with_capacity(listed.len());
    for (i, text) in listed.iter().enumerate() {
        let known = parse_digest(text).filter(|id| layers.contains_key(id));
        diff_ids.push(known.ok_or_else(|| ExportError::NoSuchLayer {
            number: i + 1,
            diff_id: text.clone(),
            hint: if layers.len() < listed.len() {
                "a layer is missing from the export"
            } else {
                "a layer was damaged on the way; try again"
            },
        })?);
    }
    Ok(diff_ids)
}

pub fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.strip_prefix("sha256:")?, &mut bytes).ok()?;
    Some(bytes)
}

fn check_digest(name: &str, expected: &str, found: &[u8; 32]) -> Result<(), ExportError> {
    let found = hex::encode(found);
    if found == expected {
        return Ok(());
    }
    Err(ExportError::WrongDigest {
        name: name.to_string(),
        found,
    })
}

/// Reports progress, and limits the length of the input.
struct Metered<'a, R> {
    inner: R,
    passed: u64,
    reported: u64,
    limit: u64,
    expected: Option<u64>,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.passed += n as u64;
        if self.passed > self.limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it exceeds the limit of {} bytes", self.limit),
            ));
        }
        if self.passed - self.reported >= 4 << 20 || n == 0 {
            self.reported = self.passed;
            self.progress.bytes(self.passed, self.expected);
        }
        Ok(n)
    }
}
