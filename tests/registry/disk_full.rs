//! Tests full disks, simulated with tmpfs: old data stays intact, the error is reported, and the same command succeeds
//! once there is space. Needs root to mount.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::MIB;
use super::support::distribution::Distribution;
use super::support::tool::Tool;
use obgp_build::layout::{Compression, IngestError, IngestOptions, Layout, ReadOptions, ingest};
use obgp_build::oci::sha256_digest;
use obgp_build::progress::Silent;
use oci_spec::image::{Descriptor, Digest};
use sha2::Digest as _;

/// A tmpfs that is unmounted on drop.
struct Disk(PathBuf);

impl Disk {
    /// If the mount fails, prints the reason and returns `None`; panics in CI.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "obgp-test"])
            .arg(at)
            .status()
            .unwrap();
        if status.success() {
            return Some(Self(at.to_path_buf()));
        }
        assert!(
            std::env::var_os("CI").is_none(),
            "cannot mount a tmpfs; this test needs root"
        );
        eprintln!("SKIPPED: cannot mount a tmpfs; this test needs root");
        None
    }

    fn grow(&self, size: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(&self.0)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_a_full_disk_keeps_the_old_image() {
    let mut registry = Distribution::start();
    registry.kill();
    let Some(disk) = Disk::mount(&registry.data(), "4m") else {
        return;
    };
    registry.restart();
    let tool = Tool::new("");
    let to = format!("{}/team/agent:t", registry.host());
    tool.project.make("old", 1, MIB);
    let old = tool.json(&["push", &tool.image("old"), &to]).await;
    tool.project.make("new", 2, 2 * MIB);
    let error = tool.failure(1, &["push", &tool.image("new"), &to]).await;
    assert!(error.contains("500") && error.contains("upload"), "{error}");
    assert_eq!(verified_digest(&tool, &to).await, old["digest"]);
    disk.grow("20m");
    let new = tool.json(&["push", &tool.image("new"), &to]).await;
    assert_ne!(new["digest"], old["digest"]);
    assert_eq!(verified_digest(&tool, &to).await, new["digest"]);
}

/// Verifies every byte of an image and returns its digest.
async fn verified_digest(tool: &Tool, reference: &str) -> serde_json::Value {
    assert_eq!(tool.json(&["verify", reference]).await["passed"], true);
    tool.json(&["inspect", reference]).await["digest"].clone()
}

#[test]
fn a_layout_on_a_full_disk_stays_valid_and_the_next_run_completes() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some(disk) = Disk::mount(&dir.path().join("disk"), "1m") else {
        return;
    };
    let (layer, export) = export();
    let ingest_into = |dir: &Path| -> Result<Descriptor, IngestError> {
        let layout = Layout::open_or_create(dir)?;
        let options = IngestOptions {
            platform: "linux/amd64".parse().unwrap(),
            base_diff_ids: vec![digest(&layer)],
            source_date_epoch: 1_700_000_000,
            compression: Compression::Gzip,
            labels: BTreeMap::new(),
            expected_size: None,
            read: ReadOptions::default(),
        };
        let image = ingest(&layout, &export[..], &options, &Silent)?;
        layout.set_tag("t", &image.manifest)?;
        Ok(image.manifest)
    };
    let expected = ingest_into(&dir.path().join("elsewhere")).unwrap();
    let on_disk = disk.0.join("oci");
    let error = ingest_into(&on_disk).unwrap_err();
    assert!(error.to_string().contains("No space left on device"), "{error}");
    let layout = Layout::open(&on_disk).unwrap();
    assert!(layout.index().unwrap().manifests().is_empty());
    // No partial blob takes space from the next run.
    let left = std::fs::read_dir(on_disk.join("blobs/sha256")).unwrap().count();
    assert_eq!(left, 0);
    // The next writer needs the lock of the layout.
    drop(layout);
    disk.grow("20m");
    assert_eq!(ingest_into(&on_disk).unwrap(), expected);
}

/// An engine's export of an image with one incompressible layer.
fn export() -> (Vec<u8>, Vec<u8>) {
    let layer = super::support::published::filler_layer(7, 4 * MIB);
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer).to_string()]},
        "history": [{"created_by": "test"}],
    });
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": ["test:t"], "Layers": ["layer/layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "config.json", config.to_string().as_bytes());
    append(&mut archive, "layer/layer.tar", &layer);
    append(&mut archive, "manifest.json", manifest.to_string().as_bytes());
    (layer, archive.into_inner().unwrap())
}

fn digest(bytes: &[u8]) -> Digest {
    sha256_digest(&sha2::Sha256::digest(bytes).into())
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).unwrap();
}
