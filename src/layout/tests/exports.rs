//! Both export formats give the same image, and the reader returns the tree that ingest saw.

use super::support::*;
use crate::layout::tree::NodeKind;
use crate::layout::*;
use crate::progress::Silent;

fn three_layers() -> Vec<Vec<u8>> {
    let large: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    vec![
        tar(&[
            dir("./"),
            dir("./etc/"),
            file("./etc/passwd", "root:x:0:0\n"),
            file("./lib/big", &large),
        ]),
        tar(&[
            dir("etc/"),
            file("etc/motd", "hello"),
            file("usr/small", "s"),
            file("usr/large", &large[..200_000]),
        ]),
        tar(&[dir("etc/"), file("etc/.wh.motd", "")]),
    ]
}

#[test]
fn old_and_new_engines_give_the_same_image() {
    let layers = three_layers();
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let exports = [
        legacy_export(&layers, &config(&layers, true)),
        oci_export(&layers, &config(&layers, false), &|l| l.to_vec()),
        oci_export(&layers, &config(&layers, false), &gzip),
        oci_export(&layers, &config(&layers, false), &zstd),
    ];
    let images: Vec<Ingested> = exports
        .iter()
        .map(|export| ingest_new(export, &options(&[&layers[0]])).unwrap().1)
        .collect();
    for image in &images {
        assert_eq!(image.manifest.digest(), images[0].manifest.digest());
    }
    assert_eq!(
        images[0].layers[0].diff_id.digest(),
        sha(&layers[0]),
        "the base keeps its bytes"
    );
    assert_eq!(images[0].layers.len(), 3);
    let platform = images[0].manifest.platform().as_ref().unwrap();
    assert_eq!(platform.architecture().to_string(), "amd64");
}

#[test]
fn the_configuration_keeps_what_the_author_said_only() {
    let layers = three_layers();
    let mut options = options(&[&layers[0]]);
    options.labels.insert("a".into(), "mine".into());
    let (dir, image) = ingest_new(&legacy_export(&layers, &config(&layers, true)), &options).unwrap();
    let path = dir
        .path()
        .join("blobs/sha256")
        .join(image.image_manifest.config().digest().digest());
    let config = std::fs::read_to_string(path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config.as_object_mut().unwrap().remove("rootfs");
    insta::assert_json_snapshot!(config, @r#"
    {
      "architecture": "amd64",
      "config": {
        "Env": [
          "PATH=/bin"
        ],
        "Labels": {
          "a": "mine",
          "b": "2"
        },
        "User": "1000"
      },
      "created": "2023-11-14T22:13:20Z",
      "history": [
        {
          "comment": "Imported from -",
          "created": "2023-11-14T22:13:20Z"
        },
        {
          "created": "2023-11-14T22:13:20Z",
          "created_by": "RUN /bin/sh -c step 1"
        },
        {
          "created": "2023-11-14T22:13:20Z",
          "created_by": "RUN /bin/sh -c step 2"
        }
      ],
      "os": "linux"
    }
    "#);
}

#[test]
fn the_reader_sees_what_ingest_saw() {
    let layers = three_layers();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut options = options(&[&layers[0]]);
        options.compression = compression;
        let (dir, image) = ingest_new(&legacy_export(&layers, &config(&layers, true)), &options).unwrap();
        let reference = format!("{}:t", dir.path().display()).parse().unwrap();
        let opened = LayoutImage::open(&reference).unwrap();
        let (platform, manifest) = &opened.platforms[0];
        assert_eq!(platform.to_string(), "linux/amd64");
        let read = opened.read_tree(manifest, &options.read).unwrap();
        assert!(read.tree.iter().eq(image.tree.iter()));
        assert_eq!(read.config, image.config);
        assert!(read.tree.get("etc/motd").is_none());
        assert_eq!(read.tree.content("etc/passwd"), Some(&b"root:x:0:0\n"[..]));
    }
}

#[test]
fn an_export_can_be_read_without_writing() {
    let layers = three_layers();
    let export = legacy_export(&layers, &config(&layers, true));
    let (config, tree) = read_export(
        &*export,
        "linux/amd64".parse().unwrap(),
        &ReadOptions::default(),
        &Silent,
    )
    .unwrap();
    assert_eq!(config.rootfs().diff_ids().len(), 3);
    assert!(tree.get("etc/motd").is_none());
    let NodeKind::File(large) = &tree.get("usr/large").unwrap().kind else {
        panic!("a file");
    };
    assert_eq!(
        (large.size, large.head.len(), large.content.is_none()),
        (200_000, 256, true)
    );
}

#[test]
fn layers_that_change_nothing_go_with_their_history() {
    let base = tar(&[dir("etc/"), file("etc/a", "a")]);
    let nothing = tar(&[file("etc/a", "a"), dir("etc/")]);
    let layers = [base.clone(), nothing, tar(&[]), tar(&[file("etc/b", "b")])];
    let export = legacy_export(&layers, &config(&layers, true));
    let (_dir, image) = ingest_new(&export, &options(&[&base])).unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.config.history().as_ref().unwrap().len(), 2);
    assert_eq!(image.tree.get("etc/b").unwrap().layer, 1);
}

#[test]
fn a_layer_that_comes_twice_is_applied_twice() {
    let base = tar(&[file("a", "1")]);
    let other = tar(&[file("a", "2")]);
    let layers = [base.clone(), other, base.clone()];
    let (_dir, image) = ingest_new(&legacy_export(&layers, &config(&layers, true)), &options(&[&base])).unwrap();
    assert_eq!(image.tree.content("a"), Some(&b"1"[..]));
    assert_eq!(image.layers.len(), 3);
}

#[test]
fn the_wrong_platform_is_named() {
    let layers = [tar(&[file("a", "1")])];
    let mut options = options(&[]);
    options.platform = "linux/arm64".parse().unwrap();
    let error = ingest_new(&legacy_export(&layers, &config(&layers, true)), &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the engine's export has no image for linux/arm64, only linux/amd64"
    );
}
