//! Reproduces lock files byte for byte from their recorded inputs. Needs PyPI and python3 with pip.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use obgp_build::config::BuildFile;
use obgp_build::plan::host_env::Host;
use obgp_build::plan::lock::{self, LockRequest};
use obgp_build::plan::source::Source;
use obgp_build::progress::Silent;
use tokio_util::sync::CancellationToken;

/// Git ref, the release with the same dependencies, and interpreters.
const LOCKS: &[(&str, &str, &[&str])] = &[
    ("7.0.0", "7.0.0", &["3.11", "3.12", "3.13"]),
    ("6.0.0", "6.0.0", &["3.10", "3.11", "3.12", "3.13"]),
    ("stable/2026.2", "7.0.0", &["3.11", "3.12", "3.13"]),
    ("stable/2026.1", "6.0.0", &["3.10", "3.11", "3.12", "3.13"]),
];

fn file() -> BuildFile {
    BuildFile::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("build.toml")).unwrap()
}

async fn make(
    file: &BuildFile,
    reference: &str,
    release: &str,
    python: &str,
    exclude_newer: Timestamp,
) -> lock::LockFile {
    let source = Source::PyPI {
        version: release.into(),
    };
    let request = LockRequest {
        file,
        reference,
        source: &source,
        python,
        exclude_newer,
    };
    lock::lock(&request, &Host::from_env(), &Silent, &CancellationToken::new())
        .await
        .unwrap_or_else(|e| panic!("{reference}: {e}"))
}

/// Checks the locks of a release and of a series. `OBGP_BLESS=1 cargo test --test lock` rewrites all locks as of today.
#[tokio::test]
async fn a_lock_is_reproducible() {
    let committed = file();
    if std::env::var_os("OBGP_BLESS").is_some() {
        let midnight = Timestamp::from_second(Timestamp::now().as_second() / 86400 * 86400).unwrap();
        for (reference, release, pythons) in LOCKS {
            for python in *pythons {
                make(&committed, reference, release, python, midnight).await;
            }
        }
    }
    let copy = tempfile::tempdir().unwrap();
    let mut file = committed.clone();
    file.root = copy.path().to_path_buf();
    for directory in ["locks", "constraints"] {
        let path = Path::new("images/ovn-bgp-agent").join(directory);
        fs::create_dir_all(copy.path().join(&path)).unwrap();
        for entry in fs::read_dir(committed.root.join(&path)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), copy.path().join(&path).join(entry.file_name())).unwrap();
        }
    }
    for (reference, release, python) in [("7.0.0", "7.0.0", "3.11"), ("stable/2026.1", "6.0.0", "3.10")] {
        // Both runs are now, because PyPI changes even before `exclude_newer`: files are added late, or yanked.
        let committed = lock::find(&committed, reference, python).unwrap();
        let moment = committed.exclude_newer.unwrap();
        let first = make(&file, reference, release, python, moment).await;
        let text = fs::read_to_string(&first.path).unwrap();
        fs::remove_file(&first.path).unwrap();
        let second = make(&file, reference, release, python, moment).await;
        assert_eq!(fs::read_to_string(&second.path).unwrap(), text, "{reference}");
        assert_eq!(first.digest, second.digest);
        for lock in [&committed, &second] {
            assert_eq!(lock.exclude_newer, Some(moment));
            assert_eq!(lock.pins.contains_key("ovn-bgp-agent"), reference == release);
        }
    }
}

#[tokio::test]
async fn an_unresolvable_requirement_shows_the_resolvers_message() {
    let file = file();
    let source = Source::PyPI {
        version: "7.0.0".into(),
    };
    let long_ago = "2020-01-01T00:00:00Z".parse().unwrap();
    let request = LockRequest {
        file: &file,
        reference: "7.0.0",
        source: &source,
        python: "3.11",
        exclude_newer: long_ago,
    };
    let before = lock::find(&file, "7.0.0", "3.11").unwrap().digest;
    let error = lock::lock(&request, &Host::from_env(), &Silent, &CancellationToken::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("ovn-bgp-agent==7.0.0"), "{error}");
    assert_eq!(lock::find(&file, "7.0.0", "3.11").unwrap().digest, before);
}
