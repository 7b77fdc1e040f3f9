//! An interrupted run leaves a valid layout, and the next run completes.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::*;
use crate::layout::*;
use crate::progress::Silent;

/// Breaks off after some bytes, like an engine's broken connection.
struct Breaking<R>(R, u64);

impl<R: Read> Read for Breaking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)? as u64;
        self.1 = self
            .1
            .checked_sub(n)
            .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset))?;
        Ok(n as usize)
    }
}

fn layers() -> Vec<Vec<u8>> {
    let mut random = Random(7);
    let noise: Vec<u8> = (0..400_000).map(|_| random.next() as u8).collect();
    vec![
        tar(&[dir("etc/"), file("etc/passwd", "root"), file("noise", &noise)]),
        tar(&[
            dir("usr/"),
            file("usr/noise", &noise[1..]),
            file("usr/text", "text".repeat(50_000)),
        ]),
    ]
}

fn ingest_tagged(dir: &Path, export: impl Read + Send) -> Result<oci_spec::image::Descriptor, IngestError> {
    let layers = layers();
    let layout = Layout::open_or_create(dir)?;
    let image = ingest(&layout, export, &options(&[&layers[0]]), &Silent)?;
    let index = write_index(&layout, std::slice::from_ref(&image.manifest), &Default::default())?;
    layout.set_tag("t", &index)?;
    Ok(index)
}

/// Whether the layout is valid, blobs match their names, and no other files exist.
fn check(dir: &Path, leftovers_allowed: bool) {
    let layout = Layout::open(dir).unwrap();
    layout.index().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = ["blobs", "index.json", "oci-layout"].contains(&name.as_str());
        assert!(known || (leftovers_allowed && name.starts_with(".obgp-")), "{name}");
    }
    for entry in std::fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(
            path.file_name().unwrap().to_str().unwrap(),
            sha(&std::fs::read(&path).unwrap())
        );
    }
}

#[test]
fn a_connection_that_breaks_at_any_point() {
    let layers = layers();
    let export = legacy_export(&layers, &config(&layers, true));
    let dir = tempfile::tempdir().unwrap();
    let whole = ingest_tagged(tempfile::tempdir().unwrap().path(), &*export).unwrap();
    for at in (0..export.len() as u64).step_by(export.len() / 40) {
        let error = ingest_tagged(dir.path(), Breaking(&*export, at)).unwrap_err();
        assert!(error.to_string().contains("connection reset"), "{error}");
        check(dir.path(), false);
        assert!(
            Layout::open(dir.path())
                .unwrap()
                .index()
                .unwrap()
                .manifests()
                .is_empty()
        );
    }
    assert_eq!(ingest_tagged(dir.path(), &*export).unwrap(), whole);
    check(dir.path(), false);
}

/// Returns few bytes at a time, so that a kill hits in the middle.
struct Slow<R>(R);

impl<R: Read> Read for Slow<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::thread::sleep(Duration::from_micros(200));
        let n = buffer.len().min(16 << 10);
        self.0.read(&mut buffer[..n])
    }
}

const VICTIM: &str = "OBGP_TEST_VICTIM_DIRECTORY";

/// A helper: the process that `a_process_killed_at_any_point` kills. Writes one layout after the other, each from
/// scratch.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let layers = layers();
    let export = legacy_export(&layers, &config(&layers, true));
    for i in 0.. {
        ingest_tagged(&Path::new(&dir).join(i.to_string()), Slow(&*export)).unwrap();
    }
}

#[test]
fn a_process_killed_at_any_point() {
    let layers = layers();
    let export = legacy_export(&layers, &config(&layers, true));
    let whole = ingest_tagged(tempfile::tempdir().unwrap().path(), &*export).unwrap();
    for i in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "layout::tests::crash::victim"])
            .env(VICTIM, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !dir.path().join("0/oci-layout").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(i * 7));
        child.kill().unwrap();
        child.wait().unwrap();
        for layout in std::fs::read_dir(dir.path()).unwrap() {
            let layout = layout.unwrap().path();
            if layout.join("oci-layout").exists() {
                check(&layout, true);
            }
            assert_eq!(ingest_tagged(&layout, &*export).unwrap(), whole);
            check(&layout, false);
        }
    }
}
