//! Archives as engines write them, and malicious ones.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::super::*;
use crate::progress::Silent;

pub const EPOCH: i64 = 1_700_000_000;

/// A member, written as one engine or the other would.
#[derive(Clone, Debug)]
pub struct Item {
    pub path: String,
    pub kind: EntryType,
    pub link: String,
    pub data: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: i64,
    pub device: (u32, u32),
    pub pax: Vec<(String, Vec<u8>)>,
    pub gnu: bool,
    pub owner: String,
}

pub fn item(path: &str, kind: EntryType) -> Item {
    Item {
        path: path.into(),
        kind,
        link: String::new(),
        data: Vec::new(),
        mode: if kind == EntryType::Directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: 1_600_000_000,
        device: (0, 0),
        pax: Vec::new(),
        gnu: false,
        owner: String::new(),
    }
}

pub fn file(path: &str, data: impl AsRef<[u8]>) -> Item {
    Item {
        data: data.as_ref().to_vec(),
        ..item(path, EntryType::Regular)
    }
}

pub fn dir(path: &str) -> Item {
    item(path, EntryType::Directory)
}

pub fn symlink(path: &str, target: &str) -> Item {
    Item {
        link: target.into(),
        ..item(path, EntryType::Symlink)
    }
}

pub fn hard_link(path: &str, target: &str) -> Item {
    Item {
        link: target.into(),
        ..item(path, EntryType::Link)
    }
}

pub fn tar(items: &[Item]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for item in items {
        append(&mut archive, item);
    }
    archive.into_inner().unwrap()
}

fn append(archive: &mut Builder<Vec<u8>>, item: &Item) {
    let mut header = if item.gnu {
        Header::new_gnu()
    } else {
        Header::new_ustar()
    };
    header.set_entry_type(item.kind);
    header.set_mode(item.mode);
    header.set_uid(item.uid);
    header.set_gid(item.gid);
    header.set_mtime(item.mtime as u64);
    header.set_size(item.data.len() as u64);
    header.set_username(&item.owner).unwrap();
    header.set_groupname(&item.owner).unwrap();
    if matches!(item.kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(item.device.0).unwrap();
        header.set_device_minor(item.device.1).unwrap();
    }
    let mut pax = item.pax.clone();
    if item.gnu {
        for (kind, text) in [
            (EntryType::GNULongName, &item.path),
            (EntryType::GNULongLink, &item.link),
        ] {
            if text.len() > 100 {
                let mut long = Header::new_gnu();
                long.set_entry_type(kind);
                long.set_size(text.len() as u64 + 1);
                long.set_cksum();
                archive
                    .append(&long, [text.as_bytes(), b"\0"].concat().as_slice())
                    .unwrap();
            }
        }
    } else {
        for (key, text) in [("path", &item.path), ("linkpath", &item.link)] {
            if text.len() > 100 || !text.is_ascii() {
                pax.push((key.into(), text.clone().into()));
            }
        }
    }
    if !pax.is_empty() {
        archive
            .append_pax_extensions(pax.iter().map(|(k, v)| (k.as_str(), v.as_slice())))
            .unwrap();
    }
    // Unmodified, to allow hostile names.
    let name = &item.path.as_bytes()[..item.path.len().min(100)];
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    let link = &item.link.as_bytes()[..item.link.len().min(100)];
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    archive.append(&header, item.data.as_slice()).unwrap();
}

pub fn sha(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// An engine's configuration of an image, with the differences between engines.
pub fn config(layers: &[Vec<u8>], old_engine: bool) -> Value {
    let history = |i: usize| match old_engine {
        _ if i == 0 => json!({"created": "2026-01-01T01:01:01Z", "comment": "Imported from -"}),
        true => {
            json!({"created": "2026-01-02T03:04:05.678Z", "created_by": format!("RUN |1 A=b /bin/sh -c step {i} # buildkit"), "comment": "buildkit.dockerfile.v0"})
        }
        false => {
            json!({"created": "2026-07-07T07:07:07Z", "created_by": format!("RUN /bin/sh -c step {i}"), "comment": "buildkit.dockerfile.v0"})
        }
    };
    let mut config = json!({
        "architecture": "amd64", "os": "linux",
        "created": "2026-01-02T03:04:05.678Z",
        "config": {"User": "1000", "Env": ["PATH=/bin"], "Labels": {"b": "2", "a": "1"}, "OnBuild": null},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| format!("sha256:{}", sha(l))).collect::<Vec<_>>()},
        "history": (0..layers.len()).map(history).collect::<Vec<_>>(),
    });
    if old_engine {
        config["container"] = json!("0123");
        config["docker_version"] = json!("20.10.24");
        config["config"]["Hostname"] = json!("");
        config["config"]["WorkingDir"] = json!("");
        config["config"]["ArgsEscaped"] = json!(true);
    } else {
        config["moby.buildkit.buildinfo.v1"] = json!("abc");
        config["config"]["WorkingDir"] = json!("/");
    }
    config
}

/// The export of engines before 25: layers in the order of meaningless IDs, the manifest last.
pub fn legacy_export(layers: &[Vec<u8>], config: &Value) -> Vec<u8> {
    let config = serde_json::to_vec(config).unwrap();
    let mut files: BTreeMap<String, Item> = BTreeMap::new();
    let mut names = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let id = sha(format!("{i}{}", sha(layer)).as_bytes());
        for (name, data) in [("VERSION", &b"1.0"[..]), ("json", b"{}"), ("layer.tar", layer)] {
            let path = format!("{id}/{name}");
            let same = layers[..i].iter().position(|l| l == layer);
            let entry = match same {
                Some(j) if name == "layer.tar" => symlink(&path, &format!("../{}", names[j])),
                _ => file(&path, data),
            };
            files.insert(path, entry);
        }
        files.insert(format!("{id}/"), dir(&format!("{id}/")));
        names.push(format!("{id}/layer.tar"));
    }
    let name = format!("{}.json", sha(&config));
    files.insert(name.clone(), file(&name, &config));
    let manifest = json!([{"Config": name, "RepoTags": ["x:1"], "Layers": names}]).to_string();
    files.insert("manifest.json".into(), file("manifest.json", manifest));
    files.insert("repositories".into(), file("repositories", "{}"));
    tar(&Vec::from_iter(files.into_values()))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

/// The export of later engines, with an attestation and a platform that is not in the store.
pub fn oci_export(layers: &[Vec<u8>], config: &Value, pack: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut blobs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut blob = |bytes: Vec<u8>| {
        let digest = sha(&bytes);
        let descriptor =
            json!({"digest": format!("sha256:{digest}"), "size": bytes.len(), "mediaType": "application/octet-stream"});
        blobs.insert(digest, bytes);
        descriptor
    };
    let layers: Vec<Value> = layers.iter().map(|l| blob(pack(l))).collect();
    let config = blob(serde_json::to_vec(config).unwrap());
    let manifest = blob(
        json!({"schemaVersion": 2, "config": config, "layers": layers})
            .to_string()
            .into(),
    );
    let statement = blob(br#"{"_type":"https://in-toto.io/Statement/v0.1"}"#.to_vec());
    let attestation = blob(
        json!({"schemaVersion": 2, "config": statement, "layers": [statement]})
            .to_string()
            .into(),
    );
    let mut manifest = manifest;
    manifest["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let mut attestation = attestation;
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let absent = json!({"digest": format!("sha256:{}", "0".repeat(64)), "size": 2, "platform": {"os": "linux", "architecture": "s390x"}});
    let index = blob(
        json!({"schemaVersion": 2, "manifests": [absent, manifest, attestation]})
            .to_string()
            .into(),
    );
    let mut files = vec![dir("blobs/"), dir("blobs/sha256/")];
    files.extend(
        blobs
            .into_iter()
            .map(|(name, bytes)| file(&format!("blobs/sha256/{name}"), bytes)),
    );
    files.push(file(
        "index.json",
        json!({"schemaVersion": 2, "manifests": [index]}).to_string(),
    ));
    files.push(file("manifest.json", "[]"));
    files.push(file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#));
    tar(&files)
}

pub fn options<'a>(base: &[&Vec<u8>]) -> IngestOptions<'a> {
    IngestOptions {
        platform: "linux/amd64".parse().unwrap(),
        base_diff_ids: base
            .iter()
            .map(|l| format!("sha256:{}", sha(l)).parse().unwrap())
            .collect(),
        source_date_epoch: EPOCH,
        compression: Compression::Gzip,
        labels: BTreeMap::new(),
        expected_size: None,
        read: ReadOptions {
            keep: &|_, _| true,
            hash: &|_| Hashes {
                md5: true,
                sha256: true,
            },
            limits: Limits::default(),
        },
    }
}

/// Ingests into a new layout.
pub fn ingest_new(export: &[u8], options: &IngestOptions<'_>) -> Result<(tempfile::TempDir, Ingested), IngestError> {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(dir.path()).unwrap();
    let image = ingest(&layout, export, options, &Silent)?;
    let index = write_index(&layout, std::slice::from_ref(&image.manifest), &BTreeMap::new()).unwrap();
    layout.set_tag("t", &index).unwrap();
    drop(layout);
    Ok((dir, image))
}

/// One image of one layer on a base of one layer.
pub fn ingest_layer(base: &[Item], layer: &[Item]) -> Result<(tempfile::TempDir, Ingested), IngestError> {
    let layers = [tar(base), tar(layer)];
    ingest_new(&legacy_export(&layers, &config(&layers, true)), &options(&[&layers[0]]))
}

/// The uncompressed bytes of a layer in a layout.
pub fn layer_bytes(dir: &std::path::Path, layer: &LayerInfo) -> Vec<u8> {
    let path = dir.join("blobs/sha256").join(layer.digest.digest());
    let mut bytes = Vec::new();
    let mut gz = flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap());
    std::io::Read::read_to_end(&mut gz, &mut bytes).unwrap();
    bytes
}

/// `name type -> link` of every member of a layer, as the `tar` crate reads it.
pub fn listing(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let line = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let entry = entry.unwrap();
        let link = entry
            .link_name_bytes()
            .map(|l| format!(" -> {}", String::from_utf8_lossy(&l)));
        format!(
            "{}{}",
            String::from_utf8_lossy(&entry.path_bytes()),
            link.unwrap_or_default()
        )
    };
    archive.entries().unwrap().map(line).collect()
}

/// The same with all that is in the headers.
pub fn long_listing(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let pax = entry.pax_extensions().unwrap().map_or(0, Iterator::count);
        let h = entry.header();
        let numbers = (
            h.mode().unwrap(),
            h.uid().unwrap(),
            h.gid().unwrap(),
            h.mtime().unwrap(),
            h.size().unwrap(),
        );
        format!("{:?} {numbers:?} {pax}", h.entry_type())
    });
    listing(bytes)
        .into_iter()
        .zip(entries)
        .map(|(name, rest)| format!("{name} {rest}"))
        .collect()
}

/// A small random generator; failing tests print its seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
