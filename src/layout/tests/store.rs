//! The layout on disk: tags, locks, kept and removed blobs.

use std::path::Path;

use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Value, json};

use super::support::*;
use crate::layout::*;

fn image(layout: &Layout, content: &str) -> Descriptor {
    let layers = [tar(&[file("base", "b")]), tar(&[file("a", content)])];
    let export = legacy_export(&layers, &config(&layers, true));
    let image = ingest(layout, &*export, &options(&[&layers[0]]), &crate::progress::Silent).unwrap();
    write_index(layout, &[image.manifest], &Default::default()).unwrap()
}

fn blobs(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("blobs/sha256")).unwrap().count()
}

#[test]
fn a_tag_is_replaced_and_what_only_it_needed_goes() {
    let dir = tempfile::tempdir().unwrap();
    let tag = |tag: &str, content: &str| {
        let layout = Layout::open_or_create(dir.path()).unwrap();
        let index = image(&layout, content);
        layout.set_tag(tag, &index).unwrap();
        index
    };
    tag("one", "1");
    // Two layers, configuration, manifest, index.
    assert_eq!(blobs(dir.path()), 5);
    let other = tag("two", "2");
    assert_eq!(blobs(dir.path()), 9, "the base layer is shared");
    let third = tag("one", "3");
    assert_eq!(blobs(dir.path()), 9, "what was the first one's alone is gone");
    tag("one", "2");
    assert_eq!(blobs(dir.path()), 5);
    let layout = Layout::open(dir.path()).unwrap();
    assert_eq!(layout.resolve(Some("one")).unwrap().digest(), other.digest());
    assert!(!layout.has(&third));
    assert_eq!(layout.index().unwrap().manifests().len(), 2);
}

#[test]
fn blobs_of_work_in_progress_are_not_collected() {
    let dir = tempfile::tempdir().unwrap();
    let first = Layout::open_or_create(dir.path()).unwrap();
    let one = image(&first, "1");
    first.set_tag("t", &one).unwrap();
    drop(first);
    let layout = Layout::open_or_create(dir.path()).unwrap();
    // Another target builds the same image, not tagged yet.
    let again = image(&layout, "1");
    let new = image(&layout, "2");
    layout.set_tag("t", &new).unwrap();
    layout.set_tag("u", &again).unwrap();
    drop(layout);
    let opened = LayoutImage::open(&format!("{}:u", dir.path().display()).parse().unwrap()).unwrap();
    opened
        .read_tree(&opened.platforms[0].1, &ReadOptions::default())
        .unwrap();
}

#[test]
fn an_image_that_is_met_again_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(dir.path()).unwrap();
    let index = image(&layout, "1");
    layout.set_tag("t", &index).unwrap();
    drop(layout);
    let layout = Layout::open_or_create(dir.path()).unwrap();
    let manifest = layout
        .read_json::<oci_spec::image::ImageIndex>(&index)
        .unwrap()
        .manifests()[0]
        .clone();
    assert!(layout.holds(&manifest));
    layout.set_tag("t", &image(&layout, "2")).unwrap();
    assert!(layout.holds(&manifest));
    std::fs::remove_file(layout.blob_path(manifest.digest()).unwrap()).unwrap();
    assert!(!layout.holds(&manifest));
}

#[test]
fn entries_of_other_programs_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(dir.path()).unwrap();
    let index = image(&layout, "1");
    drop(layout);
    let theirs = json!({
        "mediaType": "application/vnd.other+json", "size": 3, "digest": format!("sha256:{}", "a".repeat(64)),
        "unknown": {"z": 1}, "annotations": {"org.opencontainers.image.ref.name": "theirs"},
    });
    let path = dir.path().join("index.json");
    std::fs::write(
        &path,
        json!({"schemaVersion": 2, "manifests": [theirs], "more": true}).to_string(),
    )
    .unwrap();
    let layout = Layout::open_or_create(dir.path()).unwrap();
    layout.set_tag("t", &index).unwrap();
    layout.set_tag("t", &index).unwrap();
    let written: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(written["manifests"].as_array().unwrap().len(), 2);
    assert_eq!((&written["manifests"][0], &written["more"]), (&theirs, &json!(true)));
    assert!(layout.resolve(Some("t")).is_ok());
    let error = layout.resolve(Some("nope")).unwrap_err().to_string();
    assert!(error.ends_with("has no tag \"nope\"; it has: theirs, t"), "{error}");
    let error = layout.resolve(None).unwrap_err().to_string();
    assert!(error.contains("contains theirs, t\nhelp: name one as oci:"), "{error}");
}

#[test]
fn one_writer_or_many_readers() {
    let dir = tempfile::tempdir().unwrap();
    drop(Layout::open_or_create(dir.path()).unwrap());
    let reader = Layout::open(dir.path()).unwrap();
    let second = Layout::open(dir.path()).unwrap();
    let error = Layout::open_or_create(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(matches!(
        reader.write_blob(MediaType::EmptyJSON, b"{}"),
        Err(StoreError::ReadOnly)
    ));
    drop((reader, second));
    Layout::open_or_create(dir.path()).unwrap();
}

#[test]
fn a_directory_with_other_things_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    assert!(matches!(
        Layout::open_or_create(dir.path()),
        Err(StoreError::Occupied(_))
    ));
    let error = Layout::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("is not an OCI image layout"), "{error}");
}

#[test]
fn a_wrong_version_or_a_strange_digest_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Layout::open_or_create(dir.path()).unwrap());
    std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"9.0.0"}"#).unwrap();
    let error = Layout::open(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("its version is 9.0.0, supported is 1.0.0"), "{error}");
    std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let layout = Layout::open(dir.path()).unwrap();
    let digest = "other:..-..-etc-passwd".parse::<oci_spec::image::Digest>();
    if let Ok(digest) = digest {
        assert!(matches!(layout.blob_path(&digest), Err(StoreError::NotSha256(_))));
    }
    for name in ["", "/", "x/../../y"] {
        assert!(format!("sha256:{name}").parse::<oci_spec::image::Digest>().is_err());
    }
}

#[test]
fn references() {
    for (text, dir, tag) in [
        ("out", "out", None),
        ("out:7.0.0-debian_bookworm", "out", Some("7.0.0-debian_bookworm")),
        ("/a:b/out", "/a:b/out", None),
        ("/a:b/out:t", "/a:b/out", Some("t")),
    ] {
        let reference: LayoutReference = text.parse().unwrap();
        assert_eq!((reference.dir.to_str().unwrap(), reference.tag.as_deref()), (dir, tag));
    }
}

#[test]
fn a_tag_in_an_existing_layout_may_be_a_whole_image_name() {
    let base = tempfile::tempdir().unwrap();
    for dir in ["out", "a:b"] {
        let dir = base.path().join(dir);
        Layout::open_or_create(&dir).unwrap();
        for tag in ["t", "docker.io/a/b:tag", "docker.io/a/b", "[::1]:5000/a:tag"] {
            let reference: LayoutReference = format!("{}:{tag}", dir.display()).parse().unwrap();
            assert_eq!((reference.dir, reference.tag.as_deref()), (dir.clone(), Some(tag)));
        }
        let reference: LayoutReference = format!("{}:docker.io/a/b:tag", dir.display()).parse().unwrap();
        assert_eq!(reference.image_tag().as_deref(), Some("tag"));
        let whole: LayoutReference = dir.to_str().unwrap().parse().unwrap();
        assert_eq!((whole.dir, whole.tag), (dir, None));
    }
}

#[test]
fn a_blob_of_the_wrong_length_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(dir.path()).unwrap();
    let blob = layout.write_blob(MediaType::ImageLayer, b"content").unwrap();
    let path = layout.blob_path(blob.digest()).unwrap();
    std::fs::write(&path, "cont").unwrap();
    assert!(!layout.has(&blob));
    layout.write_blob(MediaType::ImageLayer, b"content").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
}
