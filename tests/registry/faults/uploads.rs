//! Faults while blobs are uploaded.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use obgp_build::oci::{Artifact, Content, Place};
use obgp_build::progress::Silent;
use obgp_build::publish::publish;
use oci_spec::image::MediaType;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Lab;
use crate::MIB;
use crate::support::faults::{Fault, LoggedRequest, uploaded_bytes};

#[tokio::test(flavor = "multi_thread")]
async fn a_push_survives_a_registry_restart_during_an_upload() {
    let mut lab = Lab::new().await;
    let index = lab.project.make("t", 1, 24 * MIB);
    let (sender, mut killed) = tokio::sync::mpsc::unbounded_channel();
    // The first upload is cut, and the registry is killed at that moment.
    let mut left = 1;
    lab.proxy.set_rule(move |request| {
        if left > 0 && request.is_upload() {
            left -= 1;
            let _ = sender.send(());
            return Some(Fault::Cut(8 << 20));
        }
        None
    });
    let registries = lab.registries();
    let (image, verified) = lab.project.verified("t");
    let to = [lab.destination(&lab.proxy.host(), "t")];
    let cancel = CancellationToken::new();
    let push = publish(image.layout(), &verified, &to, &[], &registries, &Silent, &cancel);
    let restart = async {
        killed.recv().await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        lab.registry.kill();
        tokio::time::sleep(Duration::from_millis(400)).await;
        lab.registry.restart();
    };
    let (published, ()) = tokio::join!(push, restart);
    published.unwrap();
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
}

/// Bundles share their configuration blob, and docker-registry fails if it receives a blob twice in parallel.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_shared_by_artifacts_is_checked_and_sent_once() {
    let lab = Lab::new().await;
    let subject = lab.project.make("t", 17, MIB);
    let empty = Content::new(MediaType::EmptyJSON, b"{}".to_vec());
    let artifact = |kind: &str| Artifact {
        manifest: Content::new(
            MediaType::ImageManifest,
            json!({
                "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(), "artifactType": kind,
                "config": empty.descriptor, "layers": [empty.descriptor], "subject": subject,
            })
            .to_string(),
        ),
        blobs: vec![empty.clone()],
        place: Place::Referrer,
    };
    let artifacts = ["text/a", "text/b", "text/c"].map(artifact);
    let (image, index) = lab.project.verified("t");
    let to = [lab.destination(&lab.proxy.host(), "t")];
    let cancel = CancellationToken::new();
    publish(
        image.layout(),
        &index,
        &to,
        &artifacts,
        &lab.registries(),
        &Silent,
        &cancel,
    )
    .await
    .unwrap();
    let requests = lab.proxy.take_requests();
    let count = |method: &str, part: &str| requests.iter().filter(|request| request.is(method, part)).count();
    assert_eq!(count("HEAD", &format!("/blobs/{}", empty.descriptor.digest())), 1);
    let closing = format!("digest={}", empty.descriptor.digest().to_string().replace(':', "%3A"));
    assert_eq!(count("PUT", &closing), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_dropped_connections() {
    let lab = Lab::new().await;
    let index = lab.project.make("t", 2, 4 * MIB);
    lab.proxy.fail(3, LoggedRequest::is_upload, Fault::Cut(1 << 20));
    lab.push("t", "t").await.unwrap();
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
    assert!(!lab.notes.0.lock().unwrap().is_empty(), "the retry is reported");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_resumes_at_the_offset_that_the_registry_reports() {
    let lab = Lab::new().await;
    // Larger than a chunk, so that the upload has an offset to resume at.
    let index = lab.project.make("t", 3, 40 * MIB);
    // The last chunk of a chunked upload is cut, twice.
    let patched = Mutex::new(HashSet::new());
    let upload = |request: &LoggedRequest| request.path.split('?').next().unwrap_or_default().to_string();
    let last_chunk = move |request: &LoggedRequest| {
        if request.is("PATCH", "/blobs/uploads/") {
            patched.lock().unwrap().insert(upload(request));
        }
        request.is("PUT", "/blobs/uploads/") && patched.lock().unwrap().contains(&upload(request))
    };
    lab.proxy.fail(2, last_chunk, Fault::CutBuffered(4 << 20));
    lab.push("t", "t").await.unwrap();
    let requests = lab.proxy.take_requests();
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
    let status = requests.iter().filter(|request| request.is("GET", "/blobs/uploads/"));
    assert_eq!(status.count(), 2, "each cut upload asks for its offset");
    // Only the bytes of the two cut requests are sent twice, never a first chunk.
    let total = 2 * 40 * MIB as u64;
    let sent = uploaded_bytes(&requests);
    assert!(sent < total + 2 * (6 << 20), "{sent} bytes were sent for {total}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_response_causes_no_second_upload() {
    let lab = Lab::new().await;
    let index = lab.project.make("t", 4, 4 * MIB);
    lab.proxy
        .fail(2, |request| request.is("PUT", "/blobs/uploads/"), Fault::DropResponse);
    lab.push("t", "t").await.unwrap();
    let sent = uploaded_bytes(&lab.proxy.take_requests());
    assert!(sent < 9 * MIB as u64, "{sent} bytes were sent for 8 MiB");
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_corrupted_in_transit_is_sent_again() {
    let lab = Lab::new().await;
    let index = lab.project.make("t", 9, 2 * MIB);
    lab.proxy.fail(2, LoggedRequest::is_upload, Fault::CorruptRequest);
    lab.push("t", "t").await.unwrap();
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_damaged_on_disk_after_verification_is_not_pushed() {
    let lab = Lab::new().await;
    lab.project.make("u", 10, 2 * MIB);
    let (image, verified) = lab.project.verified("u");
    let manifest: oci_spec::image::ImageManifest = image.layout().read_json(&image.platforms[0].1).unwrap();
    let path = image.layout().blob_path(manifest.layers()[1].digest()).unwrap();
    let mut content = std::fs::read(&path).unwrap();
    content[4000] ^= 1;
    std::fs::write(&path, content).unwrap();
    let to = [lab.destination(&lab.proxy.host(), "u")];
    let cancel = CancellationToken::new();
    let error = publish(image.layout(), &verified, &to, &[], &lab.registries(), &Silent, &cancel)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the file is damaged"), "{error}");
    assert_eq!(lab.complete("u").await, None);
}
