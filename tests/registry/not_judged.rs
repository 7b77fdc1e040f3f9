//! What verify says about the manifests of an image that it cannot judge, in a layout and in a registry.

use std::collections::BTreeMap;

use obgp_build::layout::{Layout, write_index};
use oci_spec::image::{Arch, Descriptor, ImageIndex, MediaType, Os, Platform, PlatformBuilder};
use serde_json::{Value, json};

use crate::support::distribution::Distribution;
use crate::support::tool::{Tool, stderr};

/// The tool, with an image that keeps its contract under the tag `t`, and the manifests of its index.
fn good() -> (Tool, Vec<Descriptor>) {
    let tool = Tool::new("");
    let index = tool.project.make("t", 31, 10);
    let manifests = manifests(&tool, &index);
    (tool, manifests)
}

/// The layout, which only one process can write at a time.
fn layout(tool: &Tool) -> Layout {
    Layout::open_or_create(tool.project.image("t").dir).unwrap()
}

fn manifests(tool: &Tool, index: &Descriptor) -> Vec<Descriptor> {
    let index: ImageIndex = layout(tool).read_json(index).unwrap();
    index.manifests().clone()
}

fn tag(tool: &Tool, name: &str, manifests: &[Descriptor]) {
    let layout = layout(tool);
    let index = write_index(&layout, manifests, &BTreeMap::new()).unwrap();
    layout.set_tag(name, &index).unwrap();
}

fn platform(os: Os, architecture: Arch) -> Platform {
    PlatformBuilder::default()
        .os(os)
        .architecture(architecture)
        .build()
        .unwrap()
}

fn labelled(manifest: &Descriptor, platform: Option<Platform>) -> Descriptor {
    let mut manifest = manifest.clone();
    manifest.set_platform(platform);
    manifest
}

/// Writes a manifest with this configuration and layer types.
fn manifest(tool: &Tool, config: MediaType, layer: &str) -> Descriptor {
    let layout = layout(tool);
    let config = layout
        .write_json(
            config,
            &json!({"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": []}}),
        )
        .unwrap();
    let layer = layout.write_blob(MediaType::Other(layer.to_string()), b"{}").unwrap();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.to_string(),
        "config": config,
        "layers": [layer],
    });
    layout.write_json(MediaType::ImageManifest, &manifest).unwrap()
}

/// The exit code of `verify`, its text, and its JSON.
async fn verify(tool: &Tool, image: &str) -> (Option<i32>, String, Value) {
    let text = tool.output(&["verify", image]).await;
    let json = tool.output(&["verify", image, "--json"]).await;
    assert_eq!(text.status.code(), json.status.code());
    let all = String::from_utf8(text.stdout.clone()).unwrap() + &stderr(&text);
    (
        text.status.code(),
        all,
        serde_json::from_slice(&json.stdout).unwrap_or_default(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_without_platform_is_judged_by_its_configuration() {
    let (tool, manifests) = good();
    let unknown = Some(platform(
        Os::Other("unknown".to_string()),
        Arch::Other("unknown".to_string()),
    ));
    for (name, label) in [("none", None), ("unknown", unknown)] {
        let manifests: Vec<_> = manifests.iter().map(|m| labelled(m, label.clone())).collect();
        tag(&tool, name, &manifests);
        let (code, text, json) = verify(&tool, &tool.image(name)).await;
        assert_eq!(code, Some(0), "{name}: {text}");
        assert!(text.contains("linux/amd64") && text.contains("linux/arm64"), "{text}");
        assert_eq!(json["not_judged"], json!([]));
    }
    // One that breaks the contract is found, whatever the index calls it.
    let bad = tool
        .project
        .make_with("bad", 32, 10, |image| image.file("etc/.netrc", 0o600, ""));
    let bad = self::manifests(&tool, &bad);
    for label in [
        None,
        Some(platform(Os::Other("unknown".into()), Arch::Other("unknown".into()))),
    ] {
        tag(&tool, "hidden", &[manifests[0].clone(), labelled(&bad[1], label)]);
        let (code, text, _) = verify(&tool, &tool.image("hidden")).await;
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains(".netrc"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_judged_is_named_and_refused_unless_it_is_an_attestation_or_not_chosen() {
    let (tool, manifests) = good();
    let registry = Distribution::start();
    let attestation = manifest(&tool, MediaType::ImageConfig, "application/vnd.in-toto+json");
    let artifact = manifest(
        &tool,
        MediaType::Other("application/vnd.example+json".into()),
        "text/plain",
    );
    let mut document = layout(&tool)
        .write_blob(MediaType::Other("application/json".into()), b"{}")
        .unwrap();
    document.set_platform(Some(platform(Os::Linux, Arch::Amd64)));
    let nested = layout(&tool).resolve(Some("t")).unwrap();
    for (name, further, what, code) in [
        ("attested", attestation, "an attestation", 0),
        (
            "further",
            labelled(&manifests[1], Some(platform(Os::Linux, Arch::RISCV64))),
            "linux/riscv64",
            3,
        ),
        (
            "windows",
            labelled(&manifests[1], Some(platform(Os::Windows, Arch::Amd64))),
            "windows/amd64",
            3,
        ),
        (
            "artifact",
            artifact,
            "an artifact of the type application/vnd.example+json",
            3,
        ),
        ("document", document, "a document of the type application/json", 3),
        ("nested", nested, "an index within the index", 3),
    ] {
        tag(&tool, name, &[manifests[0].clone(), further.clone()]);
        let line = format!("not judged: {}: {what}", further.digest());
        let (found, text, json) = verify(&tool, &tool.image(name)).await;
        assert_eq!(found, Some(code), "{name}: {text}");
        assert!(text.contains(&line), "{name}: {text}");
        assert_eq!(json["not_judged"][0]["what"], what);
        assert_eq!(json["passed"], code == 0, "{name}");
        // The caller chose the platform: the rest is named.
        let chosen = tool
            .output(&["verify", &tool.image(name), "--platform", "linux/amd64"])
            .await;
        assert!(chosen.status.success(), "{name}: {}", stderr(&chosen));
        assert!(String::from_utf8(chosen.stdout).unwrap().contains(&line), "{name}");
        let remote = format!("{}/a/b:{name}", registry.host());
        let pushed = tool.output(&["push", &tool.image(name), &remote]).await;
        assert_eq!(pushed.status.success(), code == 0, "{name}: {}", stderr(&pushed));
    }
    // So is an image of a platform that was not chosen.
    let chosen = tool
        .output(&["verify", &tool.image("t"), "--platform", "linux/amd64"])
        .await;
    let line = format!("not judged: {}: linux/arm64", manifests[1].digest());
    assert!(chosen.status.success(), "{}", stderr(&chosen));
    assert!(String::from_utf8(chosen.stdout).unwrap().contains(&line));
    let remote = format!("{}/a/b:attested", registry.host());
    let (code, text, json) = verify(&tool, &remote).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("an attestation"), "{text}");
    assert_eq!(json["not_judged"][0]["left_out"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_other_platforms_only_is_refused_with_their_names() {
    let (tool, manifests) = good();
    tag(
        &tool,
        "s390x",
        &[labelled(&manifests[0], Some(platform(Os::Linux, Arch::s390x)))],
    );
    let (code, text, _) = verify(&tool, &tool.image("s390x")).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("it has linux/s390x (sha256:"), "{text}");
    let only = manifest(&tool, MediaType::ImageConfig, "application/vnd.oci.image.layer.v1.tar");
    layout(&tool).set_tag("unknown", &only).unwrap();
    let (code, text, _) = verify(&tool, &tool.image("unknown")).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("it has unknown/unknown (sha256:"), "{text}");
}
