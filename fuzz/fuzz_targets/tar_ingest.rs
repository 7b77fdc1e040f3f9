//! Ingests arbitrary bytes as a layer and as an engine's export: they are rejected, or the layout gives the ingested
//! tree and is canonical: ingesting it again changes nothing.
#![no_main]

use std::collections::BTreeMap;
use std::io::Read;

use libfuzzer_sys::fuzz_target;
use obgp_build::layout::{
    Compression, Hashes, IngestOptions, Ingested, Layout, LayoutImage, Limits, ReadOptions, ingest, read_export, write_index,
};
use obgp_build::progress::Silent;
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

const READ: ReadOptions<'static> = ReadOptions {
    keep: &|_, size| size < 100,
    hash: &|_| Hashes {
        md5: true,
        sha256: true,
    },
    limits: Limits {
        layer_bytes: 1 << 20,
        image_bytes: 4 << 20,
        entries: 2000,
        path_bytes: 1 << 18,
        extension_bytes: 1 << 16,
        json_bytes: 1 << 16,
        kept_file_bytes: 1 << 10,
        kept_total_bytes: 1 << 12,
    },
};

fuzz_target!(|bytes: &[u8]| {
    let platform = "linux/amd64".parse().expect("a platform");
    let _ = read_export(bytes, platform, &READ, &Silent);

    let layer = with_check_sums(bytes);
    let dir = tempfile::tempdir().expect("a directory");
    let layout = Layout::open_or_create(dir.path().join("layout")).expect("a new layout");
    let layers = [base(), layer];
    let Ok(first) = take(&layout, &layers) else {
        assert!(layout.index().expect("an index").manifests().is_empty());
        return;
    };
    let index = write_index(&layout, std::slice::from_ref(&first.manifest), &BTreeMap::new()).expect("an index");
    layout.set_tag("t", &index).expect("a tag");
    let written: Vec<Vec<u8>> = first
        .layers
        .iter()
        .map(|layer| unpacked(dir.path(), layer.digest.digest()))
        .collect();
    let again = take(&layout, &written).expect("what was written is well-formed");
    assert_eq!(first.layers, again.layers, "the canonical form is stable");
    drop(layout);
    let reference = dir
        .path()
        .join("layout")
        .display()
        .to_string()
        .parse()
        .expect("a reference");
    let image = LayoutImage::open(&reference).expect("a valid layout");
    let read = image.read_tree(&image.platforms[0].1, &READ).expect("a readable image");
    assert!(
        read.tree.iter().eq(first.tree.iter()),
        "the reader sees what ingest saw"
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("a list").count(),
        1,
        "nothing was written beside the layout"
    );
});

fn take(layout: &Layout, layers: &[Vec<u8>]) -> Result<Ingested, obgp_build::layout::IngestError> {
    let export = export(layers);
    let options = IngestOptions {
        platform: "linux/amd64".parse().expect("a platform"),
        base_diff_ids: vec![digest(&layers[0]).parse().expect("a digest")],
        source_date_epoch: 1_700_000_000,
        compression: Compression::Gzip,
        labels: BTreeMap::new(),
        expected_size: None,
        read: READ,
    };
    ingest(layout, &*export, &options, &Silent)
}

/// A base layer whose files the fuzzed layer can remove, link and replace.
fn base() -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (name, kind, data) in [
        ("a/", b'5', ""),
        ("a/b", b'0', "data"),
        ("a/c/", b'5', ""),
        ("a/c/d", b'0', ""),
        ("l", b'2', ""),
    ] {
        let mut header = Header::new_ustar();
        header.set_path(name).expect("a short name");
        header.set_entry_type(tar::EntryType::new(kind));
        if kind == b'2' {
            header.set_link_name("a").expect("a short name");
        }
        append(&mut archive, header, data.as_bytes());
    }
    archive.into_inner().expect("memory")
}

fn append(archive: &mut Builder<Vec<u8>>, mut header: Header, data: &[u8]) {
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_600_000_000);
    header.set_size(data.len() as u64);
    header.set_cksum();
    archive.append(&header, data).expect("memory");
}

fn export(layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", digest(layer))).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    let name = format!("{}.json", &digest(config.as_bytes())["sha256:".len()..]);
    let manifest = format!(r#"[{{"Config":"{name}","Layers":[]}}]"#);
    let mut archive = Builder::new(Vec::new());
    let mut file = |name: &str, data: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_path(name).expect("a short name");
        append(&mut archive, header, data);
    };
    for (i, layer) in layers.iter().enumerate() {
        file(&format!("{i}/layer.tar"), layer);
    }
    file(&name, config.as_bytes());
    file("manifest.json", manifest.as_bytes());
    archive.into_inner().expect("memory")
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Corrects the checksum of every header, which a fuzzer cannot guess.
fn with_check_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(block) = bytes.get_mut(at..at + 512) {
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        if block.iter().any(|b| *b != 0) {
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        let size = header.entry_size().unwrap_or(0);
        let Some(next) = size.checked_next_multiple_of(512).and_then(|n| usize::try_from(n).ok()) else {
            break;
        };
        at = at.saturating_add(512).saturating_add(next);
    }
    bytes
}

fn unpacked(dir: &std::path::Path, digest: &str) -> Vec<u8> {
    let blob = std::fs::File::open(dir.join("layout/blobs/sha256").join(digest)).expect("the layer's blob");
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(blob)
        .read_to_end(&mut bytes)
        .expect("gzip");
    bytes
}
