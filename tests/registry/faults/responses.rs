//! Errors and damaged data that a registry returns.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use obgp_build::registry::{Access, RemoteImage, RemoteRoot, Repository};
use oci_spec::image::Descriptor;

use super::{Lab, read};
use crate::MIB;
use crate::support::faults::{Fault, LoggedRequest};

/// docker-registry rewrites its link files of blobs and tags in place. If it is killed meanwhile, or its disk is full,
/// the files stay empty, and it responds with 500 for these blobs and tags.
#[tokio::test(flavor = "multi_thread")]
async fn content_that_the_registry_lost_is_sent_again() {
    let mut lab = Lab::with("[[registries]]\nhost = \"127.0.0.1:*\"\nimmutable = [\"team/agent:7.*\"]").await;
    let index = lab.project.make("t", 16, MIB).digest().to_string();
    lab.push("t", "t").await.unwrap();
    lab.push("t", "7.0").await.unwrap();
    let emptied = lab.empty_links();
    assert!(emptied >= 10, "{emptied}: layers, configurations, manifests, tags");
    lab.registry.kill();
    lab.registry.restart();
    lab.push("t", "t").await.unwrap();
    assert_eq!(lab.complete("t").await, Some(index));
    // An immutable tag of unknown digest is not overwritten.
    let error = lab.push("t", "7.0").await.unwrap_err().to_string();
    assert!(error.contains("500") && error.contains("manifest 7.0"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_waits_as_long_as_retry_after_says() {
    let lab = Lab::new().await;
    lab.project.make("t", 5, MIB);
    let wait = |seconds: &str| Fault::Respond(429, vec![("Retry-After", seconds.to_string())]);
    lab.proxy.fail(1, |request| request.is("HEAD", "/blobs/"), wait("2"));
    let started = Instant::now();
    lab.push("t", "t").await.unwrap();
    assert!(
        started.elapsed() >= Duration::from_secs(2),
        "it did not wait: {:?}",
        started.elapsed()
    );
    lab.project.make("u", 6, MIB);
    lab.proxy.fail(1, LoggedRequest::is_upload, wait("1"));
    let started = Instant::now();
    lab.push("u", "u").await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(lab.complete("t").await.is_some() && lab.complete("u").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn server_errors_of_every_request_are_retried() {
    let lab = Lab::new().await;
    let index = lab.project.make("t", 7, MIB);
    // The first request of each kind fails. Upload sessions have different names and count as one path.
    let mut seen = HashSet::new();
    lab.proxy.set_rule(move |request| {
        let path = request.path.split("/uploads/").next().unwrap().to_string();
        let first = seen.insert((request.method.clone(), path));
        first.then(|| Fault::Respond([500, 502, 503][seen.len() % 3], Vec::new()))
    });
    lab.push("t", "t").await.unwrap();
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_server_error_is_reported_and_keeps_the_tag() {
    let lab = Lab::new().await;
    let index = lab.project.make("t", 7, MIB);
    lab.push("t", "t").await.unwrap();
    lab.project.make("t", 8, MIB);
    lab.proxy.set_rule(|request| {
        request
            .is("PUT", "/manifests/")
            .then(|| Fault::Respond(503, Vec::new()))
    });
    let error = lab.push("t", "t").await.unwrap_err().to_string();
    assert!(
        error.contains("503") && error.contains("putting the manifest"),
        "{error}"
    );
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
}

/// Pushes an image, and returns its repository behind the proxy and its largest layer.
async fn pushed_layer(lab: &Lab) -> (Repository, Descriptor) {
    lab.project.make("t", 11, 4 * MIB);
    lab.push("t", "t").await.unwrap();
    let name = lab.destination(&lab.proxy.host(), "t").repository;
    let repository = lab.registries().repository(&name, Access::Pull).unwrap();
    let image = RemoteImage::open(RemoteRoot::open(&repository, "t").await.unwrap())
        .await
        .unwrap();
    let largest = image.blobs().unwrap().into_iter().max_by_key(|b| b.size()).unwrap();
    (repository, largest)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_download_resumes() {
    let lab = Lab::new().await;
    let (repository, largest) = pushed_layer(&lab).await;
    lab.proxy.fail(
        3,
        |request| request.is("GET", "/blobs/sha256"),
        Fault::CutResponse(1 << 20),
    );
    lab.proxy.take_requests();
    assert_eq!(read(&repository, &largest).await.unwrap(), largest.size());
    let received: u64 = lab
        .proxy
        .take_requests()
        .iter()
        .map(|request| request.received.load(Ordering::Relaxed))
        .sum();
    // Starting over three times would receive 3 MiB more. Some bytes were already on their way when the response was
    // cut.
    assert!(
        received < largest.size() + (2 << 20),
        "{received} bytes were received for {}",
        largest.size()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_download_is_rejected() {
    let lab = Lab::new().await;
    let (repository, largest) = pushed_layer(&lab).await;
    lab.proxy
        .fail(1, |request| request.is("GET", "/blobs/sha256"), Fault::CorruptResponse);
    let error = read(&repository, &largest).await.unwrap_err().to_string();
    assert!(error.contains("was changed"), "{error}");
}
