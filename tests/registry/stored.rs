//! Promotes, verifies and prunes images in real registries.

use obgp_build::oci::{Artifact, Content, Place};
use obgp_build::progress::Silent;
use obgp_build::publish::{Destination, publish};
use obgp_build::registry::{Access, fallback_tag};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::MIB;
use crate::support::distribution::Distribution;
use crate::support::faults::{FaultyProxy, uploaded_bytes};
use crate::support::tool::Tool;

/// A signature and a referrer, as other parts of the program make them.
fn artifacts(index: &Descriptor, signer: &str) -> Vec<Artifact> {
    let payload = Content::new(
        "application/vnd.dev.cosign.simplesigning.v1+json".into(),
        b"{\"critical\":1}".to_vec(),
    );
    let config = Content::new(MediaType::ImageConfig, b"{\"rootfs\":{}}".to_vec());
    let mut layer = serde_json::to_value(&payload.descriptor).unwrap();
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signer });
    let signature = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.to_string(),
        "config": config.descriptor,
        "layers": [layer],
    });
    let empty = Content::new(MediaType::EmptyJSON, b"{}".to_vec());
    let sbom = Content::new(
        "application/spdx+json".into(),
        b"{\"spdxVersion\":\"SPDX-2.3\"}".to_vec(),
    );
    let referrer = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.to_string(),
        "artifactType": "application/spdx+json",
        "config": empty.descriptor,
        "layers": [sbom.descriptor],
        "subject": {"mediaType": index.media_type(), "digest": index.digest(), "size": index.size()},
        "annotations": {"by": signer},
    });
    let manifest = |value: Value| Content::new(MediaType::ImageManifest, value.to_string().into_bytes());
    vec![
        Artifact {
            manifest: manifest(signature),
            blobs: vec![payload, config],
            place: Place::Tag(format!("{}.sig", fallback_tag(index.digest()))),
        },
        Artifact {
            manifest: manifest(referrer),
            blobs: vec![sbom, empty],
            place: Place::Referrer,
        },
    ]
}

async fn publish_with_artifacts(tool: &Tool, tag: &str, to: &[&str], signer: &str) {
    let (image, index) = tool.project.verified(tag);
    let to: Vec<Destination> = to
        .iter()
        .map(|text| Destination::new(&text.parse().unwrap(), None).unwrap())
        .collect();
    let cancel = CancellationToken::new();
    let made = artifacts(&image.descriptor, signer);
    publish(image.layout(), &index, &to, &made, &tool.registries(), &Silent, &cancel)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn promote_copies_artifacts_and_mounts_blobs_within_a_registry() {
    let tool = Tool::new("");
    let index = tool.project.make("t", 7, 2 * MIB);
    let registry = Distribution::start();
    let proxy = FaultyProxy::start(registry.address()).await;
    let source = format!("{}/gate/agent:change_1_t", proxy.host());
    publish_with_artifacts(&tool, "t", &[&source], "alice").await;
    proxy.take_requests();
    let to = format!("{}/team/agent:7.0.0", proxy.host());
    let retag = format!("{}/gate/agent:7.0.0", proxy.host());
    let promoted = tool.json(&["promote", &source, &to, &retag]).await;
    assert_eq!(promoted["digest"], index.digest().to_string());
    assert_eq!(promoted["bytes_sent"], 0);
    assert_eq!(promoted["destinations"][0]["blobs"]["mounted"], 6);
    assert_eq!(promoted["destinations"][0]["artifacts"], 2);
    let requests = proxy.take_requests();
    assert_eq!(uploaded_bytes(&requests), 0);
    let position = |part: &str| requests.iter().rposition(|request| request.is("PUT", part)).unwrap();
    assert!(position(".sig") < position("/team/agent/manifests/7.0.0"));
    // To another registry, by digest.
    let elsewhere = Distribution::start();
    let by_digest = format!("{}/gate/agent@{}", proxy.host(), index.digest());
    let far = format!("{}/x/y:z", elsewhere.host());
    let promoted = tool.json(&["promote", &by_digest, &far]).await;
    assert_eq!(promoted["destinations"][0]["blobs"]["uploaded"], 6);
    assert_eq!(tool.json(&["verify", &far]).await["passed"], true);
    for reference in [&to, &retag, &far] {
        let shown = tool.json(&["inspect", reference]).await;
        assert_eq!(shown["digest"], index.digest().to_string());
        assert_eq!(shown["platforms"].as_array().unwrap().len(), 2);
        assert_eq!(
            shown["platforms"][0]["labels"]["org.opencontainers.image.version"],
            "7.0.0"
        );
        let kinds: Vec<&str> = shown["artifacts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["signatures", "referrer"], "{reference}");
    }
    // A second signature is added to the first.
    publish_with_artifacts(&tool, "t", &[&source], "bob").await;
    let shown = tool.json(&["inspect", &source]).await;
    assert_eq!(shown["artifacts"][0]["what"], "2");
    tool.json(&["promote", &source, &far]).await;
    assert_eq!(tool.json(&["inspect", &far]).await["artifacts"][0]["what"], "2");
    assert_eq!(
        tool.json(&["inspect", &far]).await["artifacts"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_lists_platforms_and_artifacts() {
    let tool = Tool::new("");
    tool.project.make("t", 11, MIB);
    let registry = Distribution::start();
    let reference = format!("{}/gate/agent:7.0.0", registry.host());
    publish_with_artifacts(&tool, "t", &[&reference], "alice").await;
    let output = tool.output(&["inspect", &reference]).await;
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).replace(&registry.host(), "REGISTRY");
    insta::with_settings!({filters => vec![("sha256[:-][0-9a-f]{12,64}", "DIGEST")]}, {
        insta::assert_snapshot!(text);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_detects_a_changed_byte_in_a_registry() {
    let tool = Tool::new("");
    tool.project.make("t", 8, MIB);
    let registry = Distribution::start();
    let reference = format!("{}/a/b:t", registry.host());
    tool.json(&["push", &tool.image("t"), &reference]).await;
    let verified = tool.json(&["verify", &reference]).await;
    assert_eq!(verified["passed"], true);
    assert_eq!(verified["platforms"].as_array().unwrap().len(), 2);
    let (image, _) = tool.project.verified("t");
    let manifest: oci_spec::image::ImageManifest = image.layout().read_json(&image.platforms[1].1).unwrap();
    let blob = registry.blob_file(manifest.layers()[1].digest().as_ref());
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let error = tool.failure(1, &["verify", &reference]).await;
    assert!(error.contains("digest"), "{error}");
    let one = tool.json(&["verify", &reference, "--platform", "linux/amd64"]).await;
    assert_eq!(one["platforms"].as_array().unwrap().len(), 1);
    let missing = format!("{}/a/b:nothing", registry.host());
    assert!(
        tool.failure(1, &["verify", &missing])
            .await
            .contains("has no tag nothing")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_removes_only_old_temporary_tags() {
    let tool = Tool::new("[[registries]]\nhost = \"127.0.0.1:*\"\ntemporary = [\"*:change_*\"]");
    tool.project.make("one", 9, MIB);
    tool.project.make("two", 10, MIB);
    let registry = Distribution::start();
    let repository = format!("{}/team/agent", registry.host());
    let tag = |tag: &str| format!("{repository}:{tag}");
    publish_with_artifacts(&tool, "one", &[&tag("change_1_x")], "alice").await;
    publish_with_artifacts(&tool, "two", &[&tag("change_2_x")], "alice").await;
    tool.json(&["promote", &tag("change_1_x"), &tag("7.0.0")]).await;
    // Recent tags and tags of unknown age are kept.
    tool.project.make("three", 11, MIB);
    tool.json(&["push", &tool.image("three"), &tag("other_3")]).await;
    let kept = tool
        .json(&["prune", &repository, "--prefix", "change_", "--older-than", "1h"])
        .await;
    for tag in kept["tags"].as_array().unwrap() {
        assert_eq!(tag["removed"], false);
        assert_eq!(tag["kept"], "it is not old enough");
        assert!(tag["pushed"].is_string());
    }
    let unknown = tool
        .json(&["prune", &repository, "--prefix", "other_", "--older-than", "0s"])
        .await;
    assert_eq!(unknown["tags"][0]["kept"], "its age is unknown");
    let arguments = ["prune", &repository, "--prefix", "change_", "--older-than", "0s"];
    let dry = tool.json(&[&arguments[..], &["--dry-run"]].concat()).await;
    assert!(
        dry["tags"]
            .as_array()
            .unwrap()
            .iter()
            .all(|t| t["removed"] == false && t["kept"].is_null())
    );
    let removed = tool.json(&arguments).await;
    assert!(
        removed["tags"].as_array().unwrap().iter().all(|t| t["removed"] == true),
        "{removed}"
    );
    let name = tag("7.0.0")
        .parse::<obgp_build::oci::ImageReference>()
        .unwrap()
        .repository;
    let mut tags = tool
        .registries()
        .repository(&name, Access::Pull)
        .unwrap()
        .tags()
        .await
        .unwrap();
    tags.sort();
    let one = tool.project.verified("one").0.descriptor;
    let base = fallback_tag(one.digest());
    // The promoted image keeps its signature; the signature of the other image is removed with its tag.
    let mut expected = vec![
        "7.0.0".to_string(),
        "other_3".into(),
        base.clone(),
        format!("{base}.sig"),
    ];
    expected.sort();
    assert_eq!(tags, expected);
    assert_eq!(tool.json(&["verify", &tag("7.0.0")]).await["passed"], true);
    tool.failure(2, &["prune", &tag("7.0.0"), "--prefix", "x"]).await;
}
