//! Malicious archives: each gives a clear and early error, and nothing outside the layout is written.

use std::io::{self, Read};

use proptest::prelude::*;
use serde_json::json;
use tar::{EntryType, Header};

use super::support::*;
use crate::layout::*;
use crate::progress::Silent;

fn message(result: Result<(tempfile::TempDir, Ingested), IngestError>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

/// The error for one hostile layer, without the layer's name.
fn refusal(items: &[Item]) -> String {
    let text = message(ingest_layer(&[dir("d/"), symlink("d/loop", "loop")], items));
    match text.split_once("layer.tar of the engine's export: ") {
        Some((_, reason)) => reason.to_string(),
        None => text,
    }
}

#[test]
fn paths_that_lead_elsewhere() {
    let long_name = "n".repeat(300);
    let deep = "d/".repeat(3000);
    for (item, reason) in [
        (
            file("../etc/passwd", "x"),
            r#""../etc/passwd": refused: its path leads out of the root with "..""#,
        ),
        (
            file("a/../../b", "x"),
            r#""a/../../b": refused: its path leads out of the root with "..""#,
        ),
        (
            file("a\nb", "x"),
            r#""a\nb": refused: its name holds control characters"#,
        ),
        (
            file(".wh...", "x"),
            r#"".wh...": refused: a whiteout that names no file"#,
        ),
        (
            file("a/.wh.b/c", "x"),
            r#""a/.wh.b/c": refused: it is below a whiteout"#,
        ),
        (
            hard_link("a", "../../etc/shadow"),
            r#""../../etc/shadow": refused: its path leads out of the root with "..""#,
        ),
        (
            hard_link("a", "/../etc/shadow"),
            r#""../etc/shadow": refused: its path leads out of the root with "..""#,
        ),
        (
            hard_link("a", "missing"),
            r#"layer 2 of the image: "a" is a hard link to "missing", which does not exist"#,
        ),
        (
            hard_link("a", "a"),
            r#"layer 2 of the image: "a" is a hard link to "a", which does not exist"#,
        ),
        (
            hard_link("a", "d"),
            r#"layer 2 of the image: "a" is a hard link to "d", which is a directory"#,
        ),
        (
            symlink("a", ""),
            r#""a": refused: its link target is empty, too long or holds control characters"#,
        ),
        (symlink("./", "x"), r#""./": refused: the root is not a directory"#),
        (
            file("d/loop/x", ""),
            r#"layer 2 of the image: "d/loop/x" cannot be created: its parent "d/loop" is not a directory"#,
        ),
    ] {
        assert_eq!(refusal(&[item]), reason);
    }
    assert!(refusal(&[file(&long_name, "")]).contains("longer than 255 bytes"));
    assert!(refusal(&[file(&deep, "")]).ends_with("refused: a path longer than 4095 bytes"));
    let nul = ("path".to_string(), b"a\0b".to_vec());
    let reason = refusal(&[Item {
        pax: vec![nul],
        ..file("a", "")
    }]);
    assert!(reason.ends_with(r#""a\0b" contains a NUL byte"#), "{reason}");
    let binary = ("path".to_string(), b"a\xff".to_vec());
    assert!(
        refusal(&[Item {
            pax: vec![binary],
            ..file("a", "")
        }])
        .ends_with("is not UTF-8")
    );
}

#[test]
fn members_nobody_makes() {
    assert!(refusal(&[item("s", EntryType::GNUSparse)]).contains("sparse members are not supported"));
    let sparse = ("GNU.sparse.major".to_string(), b"1".to_vec());
    assert!(
        refusal(&[Item {
            pax: vec![sparse],
            ..file("a", "")
        }])
        .contains("sparse members are not supported")
    );
    assert!(refusal(&[item("s", EntryType::new(b'M'))]).contains("unknown member type 'M'"));
    let huge_id = ("uid".to_string(), b"4294967296".to_vec());
    let reason = refusal(&[Item {
        pax: vec![huge_id],
        ..file("a", "")
    }]);
    assert_eq!(reason, r#""a": its owner 4294967296 does not fit 32 bits"#);
}

#[test]
fn deep_paths_within_the_limit_are_fine() {
    let deep = format!("{}file", "d/".repeat(2000));
    assert_eq!(refusal_of_image(&[file(&deep, "x")]), None);
}

fn refusal_of_image(items: &[Item]) -> Option<String> {
    ingest_layer(&[dir("d/")], items).err().map(|e| e.to_string())
}

fn with_size(kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path("liar").unwrap();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// Endless zeros after some bytes; counts the bytes read.
struct Endless {
    start: io::Cursor<Vec<u8>>,
    taken: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut n = self.start.read(buffer)?;
        if n == 0 {
            buffer.fill(b'x');
            n = buffer.len();
        }
        self.taken += n as u64;
        Ok(n)
    }
}

/// Reads an endless export with this start; returns the error and the number of bytes read.
fn endless(start: Vec<u8>) -> (String, u64) {
    let mut export = Endless {
        start: io::Cursor::new(start),
        taken: 0,
    };
    let platform = "linux/amd64".parse().unwrap();
    let error = read_export(&mut export, platform, &ReadOptions::default(), &Silent).unwrap_err();
    (error.to_string(), export.taken)
}

#[test]
fn sizes_that_lie_are_found_out_before_anything_is_read() {
    const MUCH: u64 = 1 << 40;
    for kind in [
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::GNULongName,
        EntryType::GNULongLink,
    ] {
        let (error, taken) = endless(with_size(kind, MUCH));
        assert!(error.contains("exceeds the limit of 1048576"), "{error}");
        assert!(taken <= 1 << 20);
    }
    let (error, taken) = endless(with_size(EntryType::Regular, MUCH));
    assert!(
        error.contains("\"liar\" of 1099511627776 bytes exceeds the limit"),
        "{error}"
    );
    assert!(taken <= 1 << 20);
    // In a layer.
    let mut layer = Header::new_gnu();
    layer.set_path("id/layer.tar").unwrap();
    layer.set_size(1 << 30);
    layer.set_mode(0);
    layer.set_uid(0);
    layer.set_gid(0);
    layer.set_mtime(0);
    layer.set_cksum();
    let start = [layer.as_bytes().to_vec(), with_size(EntryType::XHeader, MUCH)].concat();
    let (error, taken) = endless(start);
    assert!(
        error.starts_with("reading layer id/layer.tar of the engine's export: PAX header of"),
        "{error}"
    );
    assert!(taken <= 1 << 20);
}

#[test]
fn what_ends_early_is_told() {
    let layers = [tar(&[file("a", vec![1; 5000])])];
    let export = legacy_export(&layers, &config(&layers, true));
    let mut seen = std::collections::BTreeSet::new();
    let whole = ingest_new(&export, &options(&[])).unwrap().1;
    for length in (0..export.len()).step_by(509) {
        let error = match ingest_new(&export[..length], &options(&[])) {
            // Nothing of the image is missing.
            Ok((_, image)) => {
                assert_eq!(image.manifest, whole.manifest);
                continue;
            }
            Err(error) => error.to_string(),
        };
        seen.insert(
            error
                .split('"')
                .next()
                .unwrap()
                .split(" after ")
                .next()
                .unwrap()
                .to_string(),
        );
    }
    assert!(
        seen.iter().any(|e| e.contains("the stream ends in the middle of")),
        "{seen:?}"
    );
    // Cut between two members, an archive is valid but lacks its last documents, as in Go.
    let ended = |e: &String| {
        e.contains("ends in the middle") || e.contains("has no manifest.json") || e.contains("missing or too large")
    };
    assert!(seen.iter().all(ended), "{seen:?}");
}

#[test]
fn a_decompression_bomb_ends_at_the_limit() {
    let bomb = [file("zeros", vec![0; 64 << 20])];
    let layers = [tar(&bomb)];
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    for pack in [&gzip as &dyn Fn(&[u8]) -> Vec<u8>, &zstd] {
        let mut options = options(&[]);
        options.read.limits.layer_bytes = 1 << 20;
        let error = message(ingest_new(
            &oci_export(&layers, &config(&layers, false), pack),
            &options,
        ));
        assert!(
            error.ends_with(r#""zeros" of 67108864 bytes exceeds the limit of 1048576"#),
            "{error}"
        );
    }
    // Many layers that are each within bounds.
    let layers: Vec<Vec<u8>> = (0..8)
        .map(|i| tar(&[file(&format!("f{i}"), vec![i; 400_000])]))
        .collect();
    let mut options = options(&[]);
    options.read.limits.image_bytes = 2 << 20;
    let error = message(ingest_new(
        &oci_export(&layers, &config(&layers, false), &gzip),
        &options,
    ));
    assert!(error.contains("exceeds the limit of"), "{error}");
}

#[test]
fn a_bomb_of_trailing_bytes_ends_at_the_limit() {
    let mut layer = tar(&[file("a", "a")]);
    layer.resize(8 << 20, 0);
    let layers = [layer];
    let mut options = options(&[]);
    options.read.limits.layer_bytes = 1 << 20;
    let error = message(ingest_new(
        &oci_export(&layers, &config(&layers, false), &gzip),
        &options,
    ));
    assert!(
        error.ends_with("the layer exceeds the limit of 1048576 bytes"),
        "{error}"
    );
}

#[test]
fn too_many_members_or_names() {
    let items: Vec<Item> = (0..200).map(|i| dir(&format!("d{i}/"))).collect();
    let layers = [tar(&items)];
    let export = legacy_export(&layers, &config(&layers, true));
    let mut few = options(&[]);
    few.read.limits.entries = 100;
    assert!(message(ingest_new(&export, &few)).ends_with("more than 100 members"));
    let mut short = options(&[]);
    short.read.limits.path_bytes = 300;
    assert!(message(ingest_new(&export, &short)).ends_with("more than 300 bytes of names and extended attributes"));
}

#[test]
fn wrong_digests() {
    let layers = [tar(&[file("a", "1")])];
    let good = config(&layers, true);
    let other = [tar(&[file("a", "2")])];
    let error = message(ingest_new(&legacy_export(&other, &good), &options(&[])));
    assert!(
        error.starts_with("layer 1 of the image has the diff ID sha256:"),
        "{error}"
    );
    // A flipped bit in a compressed layer, in an export with names that are digests.
    let mut export = oci_export(&layers, &good, &|l| l.to_vec());
    let at = export.windows(512).position(|w| w == &layers[0][512..1024]).unwrap();
    export[at] ^= 1;
    let error = message(ingest_new(&export, &options(&[])));
    assert!(error.contains("it was damaged on the way"), "{error}");
    // In the layout.
    let (dir, image) = ingest_new(&legacy_export(&layers, &good), &options(&[])).unwrap();
    let path = dir.path().join("blobs/sha256").join(image.layers[0].digest.digest());
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[4] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let read = |dir: &std::path::Path| {
        let opened = LayoutImage::open(&dir.display().to_string().parse().unwrap()).unwrap();
        opened
            .read_tree(&opened.platforms[0].1, &ReadOptions::default())
            .unwrap_err()
            .to_string()
    };
    assert!(read(dir.path()).contains("its content has the digest sha256:"));
    std::fs::write(&path, &bytes[..last]).unwrap();
    assert!(read(dir.path()).contains("its descriptor has"));
}

#[test]
fn json_bombs() {
    let layers = [tar(&[file("a", "1")])];
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let export = tar(&[file("manifest.json", nested)]);
    assert!(
        message(ingest_new(&export, &options(&[])))
            .contains("manifest.json in the engine's export is not a valid JSON")
    );
    let mut large = config(&layers, true);
    large["author"] = json!("x".repeat(5 << 20));
    let error = message(ingest_new(&legacy_export(&layers, &large), &options(&[])));
    assert!(error.contains("missing or too large"), "{error}");
}

#[test]
fn index_loops_and_empty_exports() {
    let index = json!({"manifests": [{"digest": format!("sha256:{}", "0".repeat(64))}]}).to_string();
    assert!(message(ingest_new(&tar(&[file("index.json", index)]), &options(&[]))).contains("only no image at all"));
    assert_eq!(
        message(ingest_new(&tar(&[]), &options(&[]))),
        "the engine's export has no manifest.json or index.json\nhelp: check that it is an image export"
    );
    assert!(message(ingest_new(b"{\"message\":\"No such image\"}", &options(&[]))).contains("ends in the middle of"));
}

#[test]
fn a_hostile_layer_leaves_the_layout_valid_and_the_rest_alone() {
    let outer = tempfile::tempdir().unwrap();
    let inside = outer.path().join("layout");
    let layout = Layout::open_or_create(&inside).unwrap();
    let layers = [tar(&[file("ok", vec![1; 300_000]), file("../../outside", "x")])];
    let export = legacy_export(&layers, &config(&layers, true));
    ingest(&layout, &*export, &options(&[]), &Silent).unwrap_err();
    drop(layout);
    let names = |dir: &std::path::Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(outer.path()), ["layout"]);
    assert_eq!(names(&inside), ["blobs", "index.json", "oci-layout"]);
    assert!(names(&inside.join("blobs/sha256")).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The check of `fuzz/fuzz_targets/tar_ingest.rs`, for almost valid archives.
    #[test]
    fn a_damaged_layer_is_refused_or_has_a_stable_form(seed: u64) {
        let mut r = Random(seed);
        let base = tar(&[dir("a/"), file("a/b", "b"), dir("a/c/"), file("a/c/d", ""), symlink("l", "a")]);
        let long = "n".repeat(120);
        let mut layer = tar(&[
            dir("a/"),
            file("a/.wh.b", ""),
            Item { gnu: true, ..file(&long, "long") },
            file("l/new", "new"),
            hard_link("z", "a/c/d"),
            Item { pax: vec![("mtime".into(), b"1.5".to_vec())], ..file("pax", "pax") },
            file("a/c/.wh..wh..opq", ""),
            hard_link("b", "pax"),
        ]);
        for _ in 0..=r.below(6) {
            let block = r.below(layer.len() / 512) * 512;
            // Mutates names, numbers, types and links.
            let at = block + [r.below(100), 100 + r.below(57), 156, 157 + r.below(100), r.below(512)][r.below(5)];
            let bytes = [0, b'/', b'.', b'0', b'5', b'1', b'7', b'L', b'x', b'a', 0x80, 0xff];
            layer[at] = bytes[r.below(bytes.len())];
        }
        set_check_sums(&mut layer);
        let layers = [base, layer];
        let taken = ingest_new(&legacy_export(&layers, &config(&layers, true)), &options(&[&layers[0]]));
        let Ok((place, first)) = taken else { return Ok(()) };
        let opened = LayoutImage::open(&place.path().display().to_string().parse().unwrap()).unwrap();
        let read = opened.read_tree(&opened.platforms[0].1, &options(&[]).read).unwrap();
        for (x, y) in read.tree.iter().zip(first.tree.iter()) {
            prop_assert_eq!(x, y);
        }
        prop_assert_eq!(read.tree.len(), first.tree.len());
        let written: Vec<Vec<u8>> = first.layers.iter().map(|l| layer_bytes(place.path(), l)).collect();
        let (_again, again) =
            ingest_new(&legacy_export(&written, &config(&written, true)), &options(&[&written[0]])).unwrap();
        prop_assert_eq!(again.layers, first.layers);
    }
}

/// Sets a valid checksum in every header.
fn set_check_sums(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = archive.get_mut(at..at + 512) {
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        if block.iter().any(|b| *b != 0) {
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        let data = header.entry_size().unwrap_or(0).min(1 << 20).next_multiple_of(512);
        at += 512 + data as usize;
    }
}
