//! Applies layers, and writes canonical layers, as the OCI image specification and runtimes do.

use tar::EntryType;

use super::support::*;
use crate::layout::tree::NodeKind;
use crate::layout::*;

/// The members of the canonical form of `layer` on `base`.
fn canonical(base: &[Item], layer: &[Item]) -> Vec<String> {
    let (dir, image) = ingest_layer(base, layer).unwrap();
    image
        .layers
        .get(1)
        .map_or_else(Vec::new, |l| listing(&layer_bytes(dir.path(), l)))
}

fn paths(image: &Ingested) -> Vec<&str> {
    image
        .tree
        .iter()
        .map(|(path, _)| path)
        .filter(|path| !path.is_empty())
        .collect()
}

fn base() -> Vec<Item> {
    vec![
        dir("d/"),
        file("d/a", "a"),
        file("d/b", "b"),
        dir("d/sub/"),
        file("d/sub/c", "c"),
        dir("other/"),
        file("other/x", "x"),
        symlink("lib", "d"),
    ]
}

#[test]
fn a_whiteout_hides_a_file_and_a_directory() {
    let layer = [dir("d/"), file("d/.wh.a", ""), file("d/.wh.sub", "")];
    assert_eq!(canonical(&base(), &layer), ["d/", "d/.wh.a", "d/.wh.sub"]);
    let (_dir, image) = ingest_layer(&base(), &layer).unwrap();
    assert_eq!(paths(&image), ["d", "d/b", "lib", "other", "other/x"]);
}

#[test]
fn an_opaque_directory_hides_only_what_is_below_wherever_its_marker_stands() {
    let new = file("d/new", "n");
    let marker = file("d/.wh..wh..opq", "");
    for layer in [
        [dir("d/"), marker.clone(), new.clone()],
        [dir("d/"), new.clone(), marker.clone()],
    ] {
        assert_eq!(
            canonical(&base(), &layer),
            ["d/", "d/.wh.a", "d/.wh.b", "d/.wh.sub", "d/new"]
        );
        let (_dir, image) = ingest_layer(&base(), &layer).unwrap();
        assert_eq!(paths(&image), ["d", "d/new", "lib", "other", "other/x"]);
    }
}

#[test]
fn whiteouts_of_nothing_and_aufs_files_are_left_out() {
    let layer = [
        file(".wh.nothing", ""),
        file("d/.wh.nothing", ""),
        dir(".wh..wh.plnk/"),
        file(".wh..wh.plnk/1.2", "x"),
    ];
    assert_eq!(canonical(&base(), &layer), Vec::<String>::new());
}

#[test]
fn a_file_takes_the_place_of_a_directory_and_the_other_way_round() {
    assert_eq!(canonical(&base(), &[file("d", "now a file")]), ["d"]);
    let layer = [dir("other/"), dir("other/x/"), file("other/x/y", "y")];
    assert_eq!(canonical(&base(), &layer), ["other/", "other/x/", "other/x/y"]);
}

#[test]
fn what_is_written_below_a_symbolic_link_lands_in_its_target() {
    let layer = [file("lib/new", "n")];
    assert_eq!(canonical(&base(), &layer), ["d/", "d/new"]);
    let (_dir, image) = ingest_layer(&base(), &layer).unwrap();
    assert_eq!(image.tree.content("d/new"), Some(&b"n"[..]));
}

#[test]
fn an_opaque_directory_in_the_place_of_a_link_leaves_the_links_target_alone() {
    let layer = [dir("lib/"), file("lib/.wh..wh..opq", ""), file("lib/x", "x")];
    assert_eq!(canonical(&base(), &layer), ["lib/", "lib/x"]);
}

#[test]
fn the_first_path_of_an_inode_carries_its_data() {
    let layer = [file("z", "data"), hard_link("m", "z"), hard_link("a", "m")];
    assert_eq!(canonical(&base(), &layer), ["a", "m -> a", "z -> a"]);
    let (_dir, image) = ingest_layer(&base(), &layer).unwrap();
    let link = |path: &str| match &image.tree.get(path).unwrap().kind {
        NodeKind::File(file) => file.hard_link_to.clone(),
        _ => panic!("a file"),
    };
    assert_eq!((link("a"), link("z").as_deref()), (None, Some("a")));
    assert_eq!(image.tree.content("z"), Some(&b"data"[..]));
}

#[test]
fn a_hard_link_to_a_file_below_is_a_file_of_its_own() {
    let large = vec![7; 100_000];
    let mut base = base();
    base.push(file("large", &large));
    // On overlayfs, the lower file was copied up without changes.
    let layer = [file("large", &large), hard_link("also", "large")];
    assert_eq!(canonical(&base, &layer), ["also"]);
    assert_eq!(canonical(&base, &[hard_link("also", "large")]), ["also"]);
    let (_dir, image) = ingest_layer(&base, &layer).unwrap();
    assert_eq!(image.tree.content("also"), Some(&large[..]));
}

#[test]
fn a_copied_up_file_stays_out_and_a_touched_directory_too() {
    let layer = [
        Item {
            mtime: EPOCH + 5,
            ..dir("d/")
        },
        file("d/a", "a"),
        dir("other/"),
    ];
    assert_eq!(canonical(&base(), &layer), Vec::<String>::new());
}

#[test]
fn a_change_of_mode_owner_time_or_capability_is_a_change() {
    let a = || file("d/a", "a");
    let capability = (
        "SCHILY.xattr.security.capability".to_string(),
        b"\x01\x00\x00\x02\n=\n".to_vec(),
    );
    for changed in [
        Item { mode: 0o4755, ..a() },
        Item { uid: 42494, ..a() },
        Item {
            gid: 3_000_000,
            pax: vec![("gid".into(), b"3000000".to_vec())],
            ..a()
        },
        Item {
            mtime: 1_600_000_001,
            ..a()
        },
        Item {
            pax: vec![capability],
            ..a()
        },
    ] {
        let (dir, image) = ingest_layer(&base(), std::slice::from_ref(&changed)).unwrap();
        let node = image.tree.get("d/a").unwrap();
        assert_eq!(
            (node.layer, node.mode, u64::from(node.uid)),
            (1, changed.mode, changed.uid)
        );
        assert_eq!(
            node.xattrs.len(),
            usize::from(changed.pax.iter().any(|(k, _)| k.contains("xattr")))
        );
        assert_eq!(listing(&layer_bytes(dir.path(), &image.layers[1])), ["d/", "d/a"]);
        // The written image reads back the same.
        let opened = LayoutImage::open(&dir.path().display().to_string().parse().unwrap()).unwrap();
        let read = opened
            .read_tree(&opened.platforms[0].1, &ReadOptions::default())
            .unwrap();
        assert_eq!(read.tree.get("d/a").unwrap().xattrs, node.xattrs);
        assert_eq!(read.tree.get("d/a").unwrap().gid, node.gid);
    }
}

#[test]
fn long_and_foreign_names_survive() {
    let long = format!("d/{}/{}", "l".repeat(200), "m".repeat(200));
    let foreign = "d/Főtanúsítvány.crt";
    for gnu in [true, false] {
        let layer = [
            Item {
                gnu,
                ..file(&long, "1")
            },
            Item {
                gnu,
                ..file(foreign, "2")
            },
            Item {
                gnu,
                ..symlink("d/link", &long)
            },
            Item {
                gnu,
                ..hard_link("d/zlink", &long)
            },
        ];
        let (dir, image) = ingest_layer(&base(), &layer).unwrap();
        assert_eq!(image.tree.content(&long), Some(&b"1"[..]));
        assert_eq!(image.tree.content("d/zlink"), Some(&b"1"[..]));
        let parent = format!("d/{}/", "l".repeat(200));
        let expected = [
            "d/".to_string(),
            foreign.to_string(),
            format!("d/link -> {long}"),
            parent,
            long.clone(),
            format!("d/zlink -> {long}"),
        ];
        assert_eq!(listing(&layer_bytes(dir.path(), &image.layers[1])), expected);
    }
}

#[test]
fn devices_are_recorded_and_nothing_is_made_of_them() {
    let device = Item {
        device: (1, 3),
        ..item("dev/null", EntryType::Char)
    };
    let (_dir, image) = ingest_layer(&base(), &[device]).unwrap();
    assert_eq!(
        image.tree.get("dev/null").unwrap().kind,
        NodeKind::CharDevice { major: 1, minor: 3 }
    );
}

#[test]
fn numbers_left_out_are_zero() {
    let mut layer = tar(&[file("a", "")]);
    // mode, uid, gid, and mtime.
    layer[100..124].fill(0);
    layer[136..148].fill(0);
    layer[148..156].fill(b' ');
    let sum: u32 = layer[..512].iter().map(|b| u32::from(*b)).sum();
    layer[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let layers = [layer];
    let (_dir, image) = ingest_new(&legacy_export(&layers, &config(&layers, true)), &options(&[])).unwrap();
    let node = image.tree.get("a").unwrap();
    assert_eq!((node.mode, node.uid, node.gid, node.mtime), (0, 0, 0, 0));
}

#[test]
fn later_entries_replace_earlier_ones() {
    let layer = [file("a", "1"), hard_link("b", "a"), file("a", "2")];
    let (_dir, image) = ingest_layer(&base(), &layer).unwrap();
    assert_eq!(
        (image.tree.content("a"), image.tree.content("b")),
        (Some(&b"2"[..]), Some(&b"1"[..]))
    );
}

/// Docker cleans names and joins link targets to the image's root.
#[test]
fn absolute_names_and_link_targets_begin_at_the_root_as_in_docker() {
    let relative = [
        dir("d/"),
        file("d/.wh.a", ""),
        file("d/new", "n"),
        hard_link("d/again", "d/new"),
        symlink("d/to", "/other/x"),
        file("other/.wh..wh..opq", ""),
        file("other/y", "y"),
    ];
    let absolute = [
        dir("/d/"),
        file("/d/.wh.a", ""),
        file("//d/./new", "n"),
        hard_link("/d/again", "/d/../d//new"),
        symlink("/d/gone/../to", "/other/x"),
        file("/other/.wh..wh..opq", ""),
        file("/../other/y", "y"),
    ];
    assert_eq!(canonical(&base(), &absolute), canonical(&base(), &relative));
    let (_dir, image) = ingest_layer(&base(), &absolute).unwrap();
    assert_eq!(
        paths(&image),
        [
            "d", "d/again", "d/b", "d/new", "d/sub", "d/sub/c", "d/to", "lib", "other", "other/y"
        ]
    );
}

#[test]
fn absolute_names_follow_links_of_the_image_and_stay_inside_the_root() {
    let base = [dir("etc/"), symlink("up", "../../.."), symlink("abs", "/etc")];
    let layer = [
        file("/up/etc/x", "x"),
        file("/abs/y", "y"),
        hard_link("/abs/z", "/up/abs/y"),
    ];
    let (_dir, image) = ingest_layer(&base, &layer).unwrap();
    assert_eq!(paths(&image), ["abs", "etc", "etc/x", "etc/y", "etc/z", "up"]);
}
