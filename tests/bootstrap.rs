//! Bootstraps a base from the real archive: reproducible, without traces of the host, and cached.
//!
//! Needs mmdebstrap, Debian's archive, and root or user namespaces.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;

use obgp_build::base::BaseError;
use obgp_build::base::bootstrap::{BootstrapRequest, bootstrap};
use obgp_build::base::cache::BaseArchive;
use obgp_build::config::BuildFile;
use obgp_build::oci::{Architecture, Platform};
use obgp_build::progress::Silent;
use tokio_util::sync::CancellationToken;

fn file() -> BuildFile {
    BuildFile::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("build.toml")).unwrap()
}

async fn make(
    file: &BuildFile,
    cache: &Path,
    refresh: bool,
    cancel: &CancellationToken,
) -> Result<BaseArchive, BaseError> {
    let platform = Platform(Architecture::host().expect("images are built on amd64 and arm64"));
    let distro_name = "debian_bookworm";
    let request = BootstrapRequest {
        distro_name,
        distro: &file.distros[distro_name],
        platform,
        cache,
        refresh,
    };
    bootstrap(&request, &Silent, cancel).await
}

#[tokio::test]
async fn bootstrapping_twice_gives_the_same_base() {
    let file = file();
    let cancel = CancellationToken::new();
    let one = tempfile::tempdir().unwrap();
    let two = tempfile::tempdir().unwrap();
    let first = make(&file, one.path(), false, &cancel)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    let second = make(&file, two.path(), false, &cancel)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    if first.snapshot != second.snapshot {
        eprintln!(
            "the archive changed between the two runs ({} and {}): not compared",
            first.snapshot, second.snapshot
        );
    } else {
        assert_eq!(
            first.digest,
            second.digest,
            "{} and {} differ",
            first.path.display(),
            second.path.display()
        );
        assert_eq!(
            std::fs::read(&first.path).unwrap(),
            std::fs::read(&second.path).unwrap()
        );
    }

    let began = Instant::now();
    let again = make(&file, one.path(), false, &cancel).await.unwrap();
    assert_eq!(again.digest, first.digest);
    assert!(began.elapsed().as_secs() < 15, "the cache is used");

    let paths = rootfs_paths(&first);
    for present in [
        "./usr/bin/apt-get",
        "./etc/apt/sources.list",
        "./usr/sbin/useradd",
        "./usr/share/doc/apt/copyright",
    ] {
        assert!(paths.contains(present), "{present} is missing");
    }
    let left: Vec<_> = paths
        .iter()
        .filter(|path| {
            [
                "./etc/resolv.conf",
                "./etc/hostname",
                "./etc/passwd-",
                "./dev/null",
                "./usr/bin/perl5.36",
            ]
            .contains(&path.as_str())
                || [".deb", "_Packages", "changelog.gz", ".mo"]
                    .iter()
                    .any(|end| path.ends_with(end))
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(first.packages > 50 && first.size < 150_000_000, "{first:?}");
}

/// Returns the paths in the only layer.
fn rootfs_paths(base: &BaseArchive) -> BTreeSet<String> {
    let mut archive = File::open(&base.path).unwrap();
    let layer = format!("blobs/{}", base.diff_id.replace(':', "/"));
    let position = tar::Archive::new(&archive)
        .entries_with_seek()
        .unwrap()
        .map(Result::unwrap)
        .find(|entry| entry.path().unwrap().to_str() == Some(&layer))
        .expect("the archive contains the layer")
        .raw_file_position();
    archive.seek(SeekFrom::Start(position)).unwrap();
    let mut paths = BTreeSet::new();
    for entry in tar::Archive::new(archive.take(base.size)).entries().unwrap() {
        paths.insert(entry.unwrap().path().unwrap().display().to_string());
    }
    paths
}

#[tokio::test]
async fn an_unreachable_archive_has_an_error_of_its_own() {
    let mut file = file();
    // Nothing listens on port 9, so the connection is refused at once.
    file.distros.get_mut("debian_bookworm").unwrap().mirror = Some("http://127.0.0.1:9/debian".into());
    let cache = tempfile::tempdir().unwrap();
    let error = make(&file, cache.path(), false, &CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, BaseError::Unreachable { url, .. } if url.starts_with("http://127.0.0.1:9/")),
        "{error}"
    );
}

#[tokio::test]
async fn a_cancelled_bootstrap_leaves_no_files() {
    let file = file();
    let cache = tempfile::tempdir().unwrap();
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_secs(8)).await;
        stop.cancel();
    });
    let error = make(&file, cache.path(), false, &cancel).await.unwrap_err();
    assert!(matches!(error, BaseError::Cancelled), "{error}");
    let left: Vec<_> = std::fs::read_dir(cache.path().join("bases/debian_bookworm-amd64"))
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
