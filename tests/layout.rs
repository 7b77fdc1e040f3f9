//! Tests the layout stage with real engines: their exports give the same image, and other tools read it.

mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use obgp_build::engine::EngineImage;
use obgp_build::layout::tree::NodeKind;
use obgp_build::layout::{
    Compression, IngestOptions, Ingested, Layout, LayoutImage, ReadOptions, ingest, read_export, write_index,
};
use obgp_build::oci::{Architecture, Platform};
use obgp_build::progress::Silent;
use obgp_build::util::bridge;
use sha2::{Digest, Sha256};
use support::{Lab, Which, busybox_layer, host_platform, image_archive, on};
use tokio::runtime::Handle;

const EPOCH: i64 = 1_700_000_000;

/// Changes that graph drivers encode in different ways: copied up, replaced, removed and linked files. No step removes
/// and recreates a directory: the fuse-overlayfs driver of 20.10 then loses the opaque marker, and exports the old
/// content.
const DOCKERFILE: &str = "
COPY tree /tree
RUN touch /tree/kept && chmod 0640 /tree/mode && rm /tree/gone
RUN rm /tree/dir/old && echo new > /tree/dir/new && echo same > /tree/dir/same
RUN ln /tree/kept /tree/linked && ln -s kept /tree/symbolic && ln -sf nowhere /bin/grep && mkdir -m 0700 -p /a/b/c
RUN rm -r /tree/whole && touch /tmp/file && rm /tmp/file
RUN true
LABEL org.example.key=value
ENV KEY=value
USER 1000
";

const FILES: [(&str, &str); 7] = [
    ("tree/kept", "kept"),
    ("tree/mode", "mode"),
    ("tree/gone", "gone"),
    ("tree/dir/same", "same\n"),
    ("tree/dir/old", "old"),
    ("tree/whole/file", "file"),
    ("tree/whole/deeper/file", "file"),
];

fn options(base: &[u8]) -> IngestOptions<'static> {
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(base)));
    IngestOptions {
        platform: host_platform(),
        base_diff_ids: vec![diff_id.parse().unwrap()],
        source_date_epoch: EPOCH,
        compression: Compression::Gzip,
        labels: BTreeMap::new(),
        expected_size: None,
        read: ReadOptions {
            keep: &|_, size| size < 100,
            ..ReadOptions::default()
        },
    }
}

/// Builds the image on this engine and ingests it into a new layout.
async fn built(lab: &Lab, base: &[u8], layout: &Path) -> Ingested {
    let image = solved(lab, base).await;
    ingested(lab, &image, base, layout).await
}

/// Builds the image and returns its name on this engine.
async fn solved(lab: &Lab, base: &[u8]) -> String {
    let name = format!("obgp-test/layout-base-{}:1", std::process::id());
    lab.will_remove(&name);
    let archive = image_archive(&name, host_platform(), base);
    let chunks: Vec<std::io::Result<Bytes>> = archive.chunks(1 << 16).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    lab.engine.load(futures_util::stream::iter(chunks)).await.unwrap();
    let mut request = lab.request(&format!("FROM {name}{DOCKERFILE}"), &FILES);
    request.no_cache = true;
    lab.solve(&request).await.unwrap();
    request.image_name
}

/// Ingests an image of this engine into a new layout.
async fn ingested(lab: &Lab, image: &str, base: &[u8], layout: &Path) -> Ingested {
    let export = bridge::reader(&Handle::current(), lab.engine.export(image));
    let (options, dir) = (options(base), layout.to_path_buf());
    let task = tokio::task::spawn_blocking(move || {
        let layout = Layout::open_or_create(dir).unwrap();
        let image = ingest(&layout, export, &options, &Silent).unwrap();
        let index = write_index(&layout, std::slice::from_ref(&image.manifest), &BTreeMap::new()).unwrap();
        layout.set_tag("t", &index).unwrap();
        image
    });
    task.await.unwrap()
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("this test needs {program} (apt-get install {program}): {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_engines_give_the_same_digest() {
    let base = busybox_layer();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let images = std::sync::Mutex::new(Vec::new());
    for (which, dir) in [Which::Machine, Which::Modern].into_iter().zip(&dirs) {
        let (base, images) = (&base, &images);
        on(which, async move |lab: Arc<Lab>| {
            let image = built(&lab, base, dir.path()).await;
            images.lock().unwrap().push((lab.engine.info().version.clone(), image));
        })
        .await;
    }
    let images = images.into_inner().unwrap();
    let (_, first) = &images[0];
    for (version, image) in &images {
        for (i, (a, b)) in first.layers.iter().zip(&image.layers).enumerate() {
            assert_eq!(
                a,
                b,
                "layer {i} on engine {version}; trees differ in {:?}",
                differences(first, image)
            );
        }
        assert_eq!(first.config, image.config, "on engine {version}");
        assert_eq!(first.manifest, image.manifest, "on engine {version}");
    }
}

fn differences<'a>(a: &'a Ingested, b: &'a Ingested) -> Vec<&'a str> {
    let differ = |(path, node)| (b.tree.get(path) != Some(node)).then_some(path);
    let missing = b
        .tree
        .iter()
        .map(|(path, _)| path)
        .filter(|path| a.tree.get(path).is_none());
    a.tree.iter().filter_map(differ).chain(missing).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layout_matches_the_dockerfile_and_other_tools_read_it() {
    on(Which::Machine, async |lab: Arc<Lab>| {
        let base = busybox_layer();
        let dir = tempfile::tempdir().unwrap();
        let image = built(&lab, &base, dir.path()).await;
        let tree = &image.tree;
        for gone in ["tree/gone", "tree/dir/old", "tree/whole", "tmp/file"] {
            assert!(tree.get(gone).is_none(), "{gone}");
        }
        assert_eq!(tree.content("tree/dir/new"), Some(&b"new\n"[..]));
        assert_eq!(tree.content("tree/dir/same"), Some(&b"same\n"[..]));
        assert_eq!(tree.content("tree/linked"), Some(&b"kept"[..]));
        assert_eq!(tree.get("tree/mode").unwrap().mode, 0o640);
        assert_eq!(tree.get("tmp").unwrap().mode, 0o1777);
        assert_eq!(tree.get("bin/grep").unwrap().kind, NodeKind::Symlink("nowhere".into()));
        assert!(
            tree.iter()
                .all(|(path, node)| node.layer == 0 || node.mtime <= EPOCH || panic!("{path}"))
        );
        assert_eq!(
            image.layers[0].diff_id.digest(),
            hex::encode(Sha256::digest(&base)),
            "the base keeps its bytes"
        );

        // The layout reader gives the same tree.
        let place = dir.path().display().to_string();
        let opened = LayoutImage::open(&format!("{place}:t").parse().unwrap()).unwrap();
        let options = options(&base);
        let read = opened.read_tree(&opened.platforms[0].1, &options.read).unwrap();
        assert!(read.tree.iter().eq(tree.iter()));
        drop(opened);

        // skopeo reads every blob and copies the image to the engine, which runs it.
        let inspected: serde_json::Value =
            serde_json::from_str(&run("skopeo", &["inspect", &format!("oci:{place}:t")])).unwrap();
        assert_eq!(inspected["Labels"]["org.example.key"], "value");
        assert_eq!(inspected["Created"], "2023-11-14T22:13:20Z");
        let copy = tempfile::tempdir().unwrap();
        run(
            "skopeo",
            &[
                "copy",
                "-q",
                &format!("oci:{place}:t"),
                &format!("dir:{}", copy.path().display()),
            ],
        );
        let name = lab.image_name();
        run(
            "skopeo",
            &[
                "copy",
                "-q",
                &format!("oci:{place}:t"),
                &format!("docker-daemon:{name}"),
            ],
        );
        let shell = "cat /tree/dir/new /tree/linked; id -u; ls /tree; echo $KEY";
        let stdout = run("docker", &["run", "--rm", "--network=none", &name, "sh", "-c", shell]);
        assert_eq!(stdout, "new\nkept1000\ndir\nkept\nlinked\nmode\nsymbolic\nvalue\n");

        // The engine exports the same image again.
        let again = tempfile::tempdir().unwrap();
        let reingested = ingested(&lab, &name, &base, again.path()).await;
        assert_eq!(reingested.layers, image.layers);
        let export = bridge::reader(&Handle::current(), lab.engine.export(&name));
        let read = move || read_export(export, host_platform(), &options.read, &Silent).unwrap();
        let (config, tree) = tokio::task::spawn_blocking(read).await.unwrap();
        assert_eq!(config.config(), image.config.config());
        assert!(tree.iter().eq(image.tree.iter()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engines_storage_and_its_export_give_the_same_image() {
    on(Which::Machine, async |lab: Arc<Lab>| {
        if !lab.engine.storage().is_some_and(|storage| storage.is_readable()) {
            const WHY: &str = "this user cannot read the storage of the host's engine";
            assert!(std::env::var_os("CI").is_none(), "{WHY}");
            return eprintln!("SKIPPED: {WHY}");
        }
        let base = busybox_layer();
        let dir = tempfile::tempdir().unwrap();
        let name = solved(&lab, &base).await;
        let exported = ingested(&lab, &name, &base, dir.path()).await;
        let image = lab.engine.inspect_image(&name).await.unwrap().unwrap();
        let incomplete = EngineImage {
            diff_ids: image.diff_ids.iter().rev().cloned().collect(),
            ..image.clone()
        };
        assert!(lab.engine.stored(&image).is_ok() && lab.engine.stored(&incomplete).is_err());

        // For each image: how many archives the ingest rejects, and how many it reads in total.
        for (image, rejected, expected) in [(image.clone(), 0, 1), (image, 1, 2), (incomplete, 0, 1)] {
            let (engine, options) = (lab.engine.clone(), options(&base));
            let dir = tempfile::tempdir().unwrap();
            let task = tokio::task::spawn_blocking(move || {
                let layout = Layout::open_or_create(dir.path()).unwrap();
                let mut archives = 0;
                let image = engine.read_image(&image, true, |mut archive| {
                    archives += 1;
                    if archives <= rejected {
                        // Like a damaged archive.
                        std::io::copy(&mut archive.by_ref().take(10_000), &mut std::io::sink()).unwrap();
                    }
                    ingest(&layout, archive, &options, &Silent)
                });
                (image.unwrap().0, archives)
            });
            let (stored, archives) = task.await.unwrap();
            assert_eq!(archives, expected);
            assert_eq!(stored.manifest, exported.manifest);
            assert!(stored.tree.iter().eq(exported.tree.iter()));
        }
    })
    .await;
}

/// A member of a tar with its name and link target as they are. The writer of the `tar` crate would change them.
fn member(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, link: &str, content: &str) {
    let mut header = tar::Header::new_gnu();
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(if kind == tar::EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append(&header, content.as_bytes()).unwrap();
}

/// The engine's `docker load` and `docker export` decide what a layer with absolute names contains. A name that begins with
/// `/../`, and one that stands in the layer twice, are not among them: engine 20.10 loads them, and cannot save them.
/// A link target that begins with `/../` is refused here.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_absolute_names_has_the_files_that_the_engine_gives_it() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    on(Which::Machine, async |lab| {
        let mut tar = tar::Builder::new(Vec::new());
        for (kind, name, link, content) in [
            (Directory, "/d", "", ""),
            (Directory, "bin/", "", ""),
            (Regular, "/d/absolute", "", "absolute"),
            (Regular, "./d/dotted", "", "dotted"),
            (Regular, "//d//slashes", "", "slashes"),
            (Regular, "d/x/../cleaned", "", "cleaned"),
            (Regular, "/new/parent/file", "", "in a new directory"),
            (Link, "/d/hard-absolute", "/d/absolute", ""),
            (Link, "d/hard-relative", "d/dotted", ""),
            (Link, "d/hard-dotted", "./d/dotted", ""),
            (Symlink, "/d/soft-absolute", "/d/absolute", ""),
            (Symlink, "d/soft-relative", "../d/dotted", ""),
            (Symlink, "/d/soft-outside", "/../../etc/passwd", ""),
        ] {
            member(&mut tar, kind, name, link, content);
        }
        let layer = tar.into_inner().unwrap();
        let name = lab.image_name();
        let archive = image_archive(&name, host_platform(), &layer);
        let chunks = archive
            .chunks(1 << 16)
            .map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c)));
        let chunks: Vec<_> = chunks.collect();
        lab.engine.load(futures_util::stream::iter(chunks)).await.unwrap();
        // The engine exports a layer byte by byte as it was loaded.
        let export = bridge::reader(&Handle::current(), lab.engine.export(&name));
        let read = tokio::task::spawn_blocking(move || {
            let options = ReadOptions {
                keep: &|_, size| size < 100,
                ..ReadOptions::default()
            };
            read_export(export, host_platform(), &options, &Silent).unwrap()
        });
        let (_, tree) = read.await.unwrap();
        let ours: BTreeMap<String, String> = tree
            .iter()
            .filter(|(path, _)| path.starts_with("d/") || path.starts_with("new/"))
            .filter_map(|(path, node)| match &node.kind {
                NodeKind::File(file) => {
                    Some((path.to_string(), String::from_utf8_lossy(file.content.as_ref()?).into()))
                }
                NodeKind::Symlink(target) => Some((path.to_string(), format!("-> {target}"))),
                _ => None,
            })
            .collect();
        assert_eq!(ours, given_by_the_engine(&name), "ours is left");
        assert_eq!(ours.len(), 11, "{ours:?}");
    })
    .await;
}

/// The files and links below `d` and `new` of a container of this image, with content and target.
fn given_by_the_engine(image: &str) -> BTreeMap<String, String> {
    let id = run("docker", &["create", image]);
    let exported = Command::new("docker").args(["export", id.trim()]).output().unwrap();
    run("docker", &["rm", id.trim()]);
    assert!(
        exported.status.success(),
        "{}",
        String::from_utf8_lossy(&exported.stderr)
    );
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for entry in tar::Archive::new(&exported.stdout[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let link = entry.link_name().unwrap().map(|link| link.display().to_string());
        let shown = match (entry.header().entry_type(), link) {
            (tar::EntryType::Symlink, Some(target)) => format!("-> {target}"),
            // The export begins with the first name of a file.
            (tar::EntryType::Link, Some(target)) => found[&target].clone(),
            (tar::EntryType::Regular, _) => {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap_or_default();
                text
            }
            _ => continue,
        };
        if path.starts_with("d/") || path.starts_with("new/") {
            found.insert(path, shown);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_report_where_an_engines_image_was_read_and_a_platform_that_a_tag_loses() {
    on(Which::Machine, async |lab| {
        let image = format!("docker:{}", lab.shell_image().await);
        let mut tool = support::tool::Tool::new("");
        tool.environment
            .extend(std::env::var("DOCKER_HOST").map(|host| ("DOCKER_HOST".to_string(), host)));
        let json = async |arguments: &[&str]| -> serde_json::Value {
            let output = tool.output(&[arguments, &["--json"]].concat()).await;
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
        };
        let known = ["engine-storage", "engine-export"];
        let verified = json(&["verify", &image, "--distro", "debian_bookworm"]).await;
        assert!(
            known.contains(&verified["read_from"].as_str().unwrap_or_default()),
            "{verified:#}"
        );
        let exported = json(&["verify", &image, "--distro", "debian_bookworm", "--no-engine-storage"]).await;
        assert_eq!(exported["read_from"], "engine-export");
        let diff = json(&["diff", &image, &image, "--no-engine-storage"]).await;
        let both = serde_json::json!({"old": "engine-export", "new": "engine-export"});
        assert_eq!(diff["read_from"], both);
        let text = tool.output(&["diff", &image, &image, "--no-engine-storage"]).await;
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.contains(&format!("{image}: exported by the engine")), "{text}");
        let sbom = tool.output(&["sbom", &image, "--no-engine-storage"]).await;
        let sbom = support::tool::stderr(&sbom);
        assert!(sbom.contains(&format!("{image}: exported by the engine")), "{sbom}");
        // A layout is not an engine.
        tool.project.make("t", 1, 1024);
        let layout = json(&["verify", "oci:dist/oci:t"]).await;
        assert_eq!(layout["read_from"], serde_json::Value::Null);
        let ingested = tool
            .output(&["ingest", &image, "--tag", "t", "--distro", "debian_bookworm"])
            .await;
        let warned = support::tool::stderr(&ingested);
        let other = Architecture::ALL
            .map(Platform)
            .into_iter()
            .find(|platform| *platform != host_platform())
            .unwrap();
        assert!(
            warned.contains("warning: t in ") && warned.contains(&format!("has {other}, which")),
            "{warned}"
        );
        let missing = tool.failure(2, &["verify", "docker:obgp-test/missing:1"]).await;
        assert!(missing.contains("the engine has no image"), "{missing}");
    })
    .await;
}
