//! Finds secrets in every byte that is pulled with an image: also in files that a later layer hides.

use super::support::*;
use crate::layout::tree::NodeKind;
use crate::layout::*;

const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n-----END PRIVATE KEY-----\n";

fn hidden(image: &Ingested) -> Vec<(&str, usize, bool)> {
    image
        .tree
        .hidden()
        .iter()
        .map(|file| (file.path.as_str(), file.layer, file.secret.is_some()))
        .collect()
}

#[test]
fn a_key_that_a_later_layer_removes_or_replaces_is_known_with_its_layer() {
    let base = [dir("d/"), file("d/key", KEY), file("d/plain", "x"), file("kept", KEY)];
    for layer in [
        vec![file("d/.wh.key", "")],
        vec![file("d/key", "another")],
        vec![file(".wh.d", "")],
        vec![dir("d/"), file("d/.wh..wh..opq", ""), file("d/plain", "x")],
        vec![symlink("d/key", "plain")],
        vec![dir("d/key/")],
        vec![file("d", "a file in place of the directory")],
    ] {
        let (dir, image) = ingest_layer(&base, &layer).unwrap();
        assert!(
            hidden(&image).contains(&("d/key", 0, true)),
            "{layer:?}: {:?}",
            hidden(&image)
        );
        let NodeKind::File(kept) = &image.tree.get("kept").unwrap().kind else {
            panic!("not a file")
        };
        assert_eq!(kept.secret, Some(Secret::PrivateKey));
        // The written image reads back the same.
        let opened = LayoutImage::open(&dir.path().display().to_string().parse().unwrap()).unwrap();
        let read = opened
            .read_tree(&opened.platforms[0].1, &ReadOptions::default())
            .unwrap();
        assert_eq!(read.tree.hidden(), image.tree.hidden());
    }
}

#[test]
fn a_file_that_is_unchanged_in_a_later_layer_is_not_hidden() {
    let base = [dir("d/"), file("d/key", KEY)];
    let (_dir, image) = ingest_layer(&base, &[file("d/key", KEY), file("d/new", "x")]).unwrap();
    assert_eq!(hidden(&image), []);
}

#[test]
fn a_key_that_its_own_layer_replaces_is_known() {
    let base = [
        file("key", KEY),
        file("key", "another"),
        file("link", KEY),
        symlink("link", "key"),
    ];
    let (_dir, image) = ingest_layer(&base, &[file("new", "x")]).unwrap();
    assert_eq!(hidden(&image), [("key", 0, true), ("link", 0, true)]);
}

#[test]
fn a_key_in_data_that_no_runtime_unpacks_is_refused() {
    for item in [
        file(".wh.x", KEY),
        file(".wh..wh.plnk/1.2", KEY),
        file(".wh..wh..opq", KEY),
    ] {
        let error = ingest_layer(&[file("x", "x")], &[item]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("a private key in data that no runtime unpacks"),
            "{error}"
        );
    }
}

#[test]
fn a_key_after_the_end_of_a_layers_archive_is_refused() {
    let base = tar(&[file("x", "x")]);
    let layer = [tar(&[file("y", "y")]), vec![0; 8192], KEY.into()].concat();
    let layers = [base, layer];
    let export = legacy_export(&layers, &config(&layers, true));
    let error = ingest_new(&export, &options(&[&layers[0]])).unwrap_err();
    assert!(error.to_string().contains("a private key after its end"), "{error}");
}
