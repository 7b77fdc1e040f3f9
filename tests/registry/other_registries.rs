//! Pushes, signs, verifies and promotes with registries that have no referrers API, or do not see a tag by HEAD.

use std::time::Duration;

use obgp_build::oci::sha256_digest;
use obgp_build::registry::{Access, Patience};
use serde_json::{Value, json};

use crate::MIB;
use crate::support::habits::{Habit, HabitRegistry, Referrers};
use crate::support::tool::Tool;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const ORAS: &str = "application/vnd.cncf.oras.artifact.manifest.v1+json";
const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

/// A new key pair in the project: the paths of its private and its public key.
fn keys(tool: &Tool) -> (String, String) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let write = |name: &str, text: String| {
        let path = tool.project.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    (
        write("sign.pem", pair.serialize_pem()),
        write("verify.pem", pair.public_key_pem()),
    )
}

/// Signs on a push, signs and attests again, verifies, inspects and promotes. Returns the kinds of signature of the
/// image's index, and the number of its artifacts.
async fn signed_and_promoted(habits: Vec<Habit>) -> (Value, usize) {
    let registry = HabitRegistry::start(habits).await;
    let tool = Tool::new("");
    let (private, public) = keys(&tool);
    tool.project.make("t", 1, MIB);
    let pushed = format!("{}/team/agent:t", registry.host());
    let promoted = format!("{}/public/agent:stable", registry.host());
    tool.json(&["push", &tool.image("t"), &pushed, "--sign", &private])
        .await;
    tool.json(&["sign", &pushed, "--key", &private]).await;
    tool.json(&["attest", &pushed, "--key", &private]).await;
    tool.json(&["promote", &pushed, &promoted, "--key", &public]).await;
    let before = tool.json(&["verify", &pushed, "--key", &public]).await;
    let after = tool.json(&["verify", &promoted, "--key", &public]).await;
    assert_eq!(before["authentic"], after["authentic"]);
    let inspected = tool.json(&["inspect", &promoted]).await;
    (
        after["authentic"][0]["signatures"].clone(),
        inspected["artifacts"].as_array().unwrap().len(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_image_index_there_is_no_referrers_api() {
    let both = signed_and_promoted(vec![]).await;
    assert_eq!(both.0, json!(["simple-signing", "bundle"]));
    assert_eq!(signed_and_promoted(vec![Habit::NoSubjectHeader]).await, both);
    let others = [400, 403, 404, 405, 406, 501].map(Referrers::Status);
    for other in others
        .into_iter()
        .chain([Referrers::WebPage, Referrers::Html, Referrers::OtherJson])
    {
        let habits = vec![Habit::Referrers(other)];
        assert_eq!(signed_and_promoted(habits).await, both, "{other:?}");
    }
}

/// `OCI-Subject` comes from the registry, and the list from nowhere: the fallback tag has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_blocks_the_referrers_api_hides_no_signature() {
    let both = signed_and_promoted(vec![]).await;
    for status in [403, 404, 405] {
        let habits = vec![Habit::BlockedReferrers(status)];
        assert_eq!(signed_and_promoted(habits).await, both, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_are_unknown_until_a_tag_names_them_are_pushed_and_signed() {
    let both = signed_and_promoted(vec![]).await;
    let habits = vec![Habit::OnlyTaggedManifests, Habit::Referrers(Referrers::Status(404))];
    assert_eq!(signed_and_promoted(habits).await, both);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_denies_missing_tags_has_none_that_it_does_not_list() {
    let both = signed_and_promoted(vec![]).await;
    let habits = vec![Habit::MissingTag(403), Habit::Referrers(Referrers::Status(403))];
    assert_eq!(signed_and_promoted(habits).await, both);
}

/// Only the tags of cosign 2 are left. The manifests in the subject are not its referrers.
#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_tag_that_serves_the_subject_is_not_a_list_of_referrers() {
    let habits = vec![Habit::Referrers(Referrers::Status(404)), Habit::TagIsDigest];
    let (signatures, artifacts) = signed_and_promoted(habits).await;
    assert_eq!(signatures, json!(["simple-signing"]));
    // A signature each of the index and two platforms, and the SBOMs of two platforms.
    assert_eq!(artifacts, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_tag_that_is_not_an_index_is_not_a_list_of_referrers() {
    let registry = HabitRegistry::start([Habit::Referrers(Referrers::Status(404))]).await;
    let tool = Tool::new("");
    let subject = sha256_digest(&[7; 32]);
    let tag = subject.to_string().replace(':', "-");
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "manifests": [{"mediaType": MANIFEST, "digest": subject, "size": 2}]});
    registry.put("a/b", Some(&tag), MANIFEST, &manifest);
    let name = format!("{}/a/b:t", registry.host())
        .parse::<obgp_build::oci::ImageReference>()
        .unwrap();
    let repository = tool.registries().repository(&name.repository, Access::Pull).unwrap();
    assert!(repository.referrers(&subject).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_referrers_api_that_is_busy_beyond_patience_is_none_and_one_that_fails_is_an_error() {
    let tool = Tool::new("");
    let patience = Patience {
        tries: 3,
        first: Duration::from_millis(10),
        longest: Duration::from_millis(20),
    };
    let registries = tool.registries().with_patience(patience);
    let subject = sha256_digest(&[7; 32]);
    for (status, works) in [(429, true), (501, true), (500, false), (503, false)] {
        let registry = HabitRegistry::start([Habit::Referrers(Referrers::Status(status))]).await;
        let name = format!("{}/a/b:t", registry.host())
            .parse::<obgp_build::oci::ImageReference>()
            .unwrap();
        let repository = registries.repository(&name.repository, Access::Pull).unwrap();
        assert_eq!(repository.referrers(&subject).await.is_ok(), works, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_read_from_every_page() {
    for habits in [vec![], vec![Habit::NoSubjectHeader]] {
        let registry = HabitRegistry::start(habits).await;
        registry.switch_on(Habit::PageSize(1));
        registry.switch_on(Habit::Link(crate::support::habits::Link::SecondHeader));
        let tool = Tool::new("");
        let subject = sha256_digest(&[7; 32]);
        for name in ["one", "two", "three"] {
            let entry = json!({"mediaType": INDEX, "digest": subject, "size": 2});
            let referrer = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": name, "subject": entry});
            registry.put("a/b", None, MANIFEST, &referrer);
        }
        let name = format!("{}/a/b:t", registry.host())
            .parse::<obgp_build::oci::ImageReference>()
            .unwrap();
        let repository = tool.registries().repository(&name.repository, Access::Pull).unwrap();
        assert_eq!(repository.referrers(&subject).await.unwrap().len(), 3);
    }
}

/// A registry that shows the earlier list for a moment must not lose referrers.
#[tokio::test(flavor = "multi_thread")]
async fn referrers_added_one_after_another_stay_although_the_list_is_late() {
    let late = Habit::LateTags(Duration::from_millis(700));
    let both = signed_and_promoted(vec![Habit::Referrers(Referrers::Status(404))]).await;
    assert_eq!(
        signed_and_promoted_with_late_tags(vec![Habit::Referrers(Referrers::Status(404)), late]).await,
        both.1
    );
}

/// Attaches artifacts to an image in a registry whose tags are late. Returns the number of artifacts.
async fn signed_and_promoted_with_late_tags(habits: Vec<Habit>) -> usize {
    let registry = HabitRegistry::start([habits[0].clone()]).await;
    let tool = Tool::new("");
    let (private, _) = keys(&tool);
    tool.project.make("t", 1, MIB);
    let pushed = format!("{}/team/agent:t", registry.host());
    tool.json(&["push", &tool.image("t"), &pushed]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    registry.switch_on(habits[1].clone());
    tool.json(&["sign", &pushed, "--key", &private]).await;
    tool.json(&["attest", &pushed, "--key", &private]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let inspected = tool.json(&["inspect", &pushed]).await;
    inspected["artifacts"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_that_head_does_not_see_is_not_overwritten() {
    for habit in [
        Habit::HeadManifest(404),
        Habit::HeadManifest(405),
        Habit::HeadManifest(400),
        Habit::HeadManifest(403),
        Habit::NoDigestHeader,
        Habit::MissingTag(403),
    ] {
        let registry = HabitRegistry::start([]).await;
        let tool = Tool::new("[[registries]]\nhost = \"127.0.0.1:*\"\nimmutable = [\"*:7.*\"]");
        tool.project.make("old", 1, MIB);
        tool.project.make("new", 2, MIB);
        let to = |tag: &str| format!("{}/team/agent:{tag}", registry.host());
        tool.json(&["push", &tool.image("old"), &to("7.0.0")]).await;
        tool.json(&["push", &tool.image("new"), &to("new")]).await;
        let before = registry.tags("team/agent");
        registry.switch_on(habit.clone());
        for arguments in [
            ["push", &tool.image("new"), &to("7.0.0")],
            ["promote", &to("new"), &to("7.0.0")],
        ] {
            let error = tool.failure(1, &arguments).await;
            assert!(error.contains("immutable"), "{habit:?}: {error}");
        }
        assert_eq!(registry.tags("team/agent"), before, "{habit:?}");
        // The same image again is not a change.
        tool.json(&["push", &tool.image("old"), &to("7.0.0")]).await;
    }
}

/// The signatures of others are what an immutable image has as well.
#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_others_stay_where_head_does_not_see_them() {
    let registry = HabitRegistry::start([Habit::Referrers(Referrers::Status(404)), Habit::HeadManifest(404)]).await;
    let tool = Tool::new("");
    tool.project.make("t", 1, MIB);
    let pushed = format!("{}/team/agent:t", registry.host());
    tool.json(&["push", &tool.image("t"), &pushed]).await;
    let mut trusted = Vec::new();
    for _ in 0..2 {
        let (private, public) = keys(&tool);
        tool.json(&["sign", &pushed, "--key", &private]).await;
        let kept = format!("{public}.{}", trusted.len());
        std::fs::copy(public, &kept).unwrap();
        trusted.push(kept);
    }
    for key in &trusted {
        let verified = tool.json(&["verify", &pushed, "--key", key]).await;
        assert_eq!(
            verified["authentic"][0]["signatures"],
            json!(["simple-signing", "bundle"])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promote_copies_indexes_and_artifact_manifests_and_names_what_it_leaves() {
    for habits in [vec![], vec![Habit::Referrers(Referrers::Status(404))]] {
        let (source, target) = (HabitRegistry::start([]).await, HabitRegistry::start(habits).await);
        let tool = Tool::new("");
        let subject = tool.project.make("t", 1, MIB);
        let pushed = format!("{}/team/agent:t", source.host());
        tool.json(&["push", &tool.image("t"), &pushed]).await;
        let subject = json!({"mediaType": INDEX, "digest": subject.digest(), "size": subject.size()});
        let part = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "a/part", "layers": []});
        let put = |media_type: &str, document: &Value| {
            let digest = source.put("team/agent", None, media_type, document);
            (digest, document.to_string().len())
        };
        let (part, size) = put(MANIFEST, &part);
        let parts = [json!({"mediaType": MANIFEST, "digest": part, "size": size})];
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "artifactType": "an/index", "manifests": parts, "subject": subject});
        let artifact = json!({"mediaType": ARTIFACT, "artifactType": "an/artifact", "blobs": [], "subject": subject});
        let unknown = json!({"mediaType": "an/unknown", "artifactType": "x/y", "subject": subject});
        let (index, _) = put(INDEX, &index);
        let (artifact, _) = put(ARTIFACT, &artifact);
        let (unknown, _) = put("an/unknown", &unknown);
        let to = format!("{}/public/agent:t", target.host());
        let promoted = tool.json(&["promote", &pushed, &to]).await;
        for digest in [&part, &index, &artifact] {
            assert!(target.manifest("public/agent", digest).is_some(), "{digest}");
        }
        let left = promoted["destinations"][0]["left"].as_array().unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].as_str().unwrap().contains(&unknown), "{left:?}");
        let text = tool.output(&["promote", &pushed, &to]).await.stdout;
        assert!(String::from_utf8_lossy(&text).contains(&format!("not copied: {unknown}")));
        let inspected = tool.json(&["inspect", &to]).await;
        let listed: Vec<&Value> = inspected["artifacts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|artifact| &artifact["digest"])
            .collect();
        assert!(
            listed.contains(&&json!(index)) && listed.contains(&&json!(artifact)),
            "{listed:?}"
        );
    }
}

/// Older registries take only image manifests and their indexes.
#[tokio::test(flavor = "multi_thread")]
async fn promote_names_artifacts_that_the_destination_refuses() {
    let source = HabitRegistry::start([]).await;
    let target = HabitRegistry::start([Habit::ManifestType(ARTIFACT, 415)]).await;
    let tool = Tool::new("");
    let subject = tool.project.make("t", 1, MIB);
    let pushed = format!("{}/team/agent:t", source.host());
    tool.json(&["push", &tool.image("t"), &pushed]).await;
    let subject = json!({"mediaType": INDEX, "digest": subject.digest(), "size": subject.size()});
    let artifact = json!({"mediaType": ARTIFACT, "artifactType": "an/artifact", "blobs": [], "subject": subject});
    let artifact = source.put("team/agent", None, ARTIFACT, &artifact);
    let to = format!("{}/public/agent:t", target.host());
    let promoted = tool.json(&["promote", &pushed, &to]).await;
    let left = promoted["destinations"][0]["left"][0].as_str().unwrap();
    assert!(left.contains(&artifact) && left.contains("415"), "{left}");
}

/// An ORAS artifact with a blob, an index as a signature, and a referrer of a referrer of a referrer.
#[tokio::test(flavor = "multi_thread")]
async fn promote_copies_artifacts_of_every_form_with_their_blobs() {
    let (source, target) = (HabitRegistry::start([]).await, HabitRegistry::start([]).await);
    let tool = Tool::new("");
    let image = tool.project.make("t", 1, MIB);
    let pushed = format!("{}/team/agent:t", source.host());
    tool.json(&["push", &tool.image("t"), &pushed]).await;
    let entry = |media_type: &str, digest: &str, document: &Value| json!({"mediaType": media_type, "digest": digest, "size": document.to_string().len()});
    let put = |tag: Option<&str>, media_type: &str, document: Value| {
        let digest = source.put("team/agent", tag, media_type, &document);
        (entry(media_type, &digest, &document), digest)
    };
    let subject = json!({"mediaType": INDEX, "digest": image.digest(), "size": image.size()});
    let blob = source.put_blob("team/agent", b"an SBOM");
    let blobs = [json!({"mediaType": "text/spdx", "digest": blob, "size": 7})];
    let (_, oras) = put(
        None,
        ORAS,
        json!({"mediaType": ORAS, "artifactType": "an/sbom", "blobs": blobs, "subject": subject}),
    );
    let (part, part_digest) = put(
        None,
        MANIFEST,
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}),
    );
    let (inner, inner_digest) = put(
        None,
        INDEX,
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [part]}),
    );
    let tag = format!("{}.sig", image.digest().to_string().replace(':', "-"));
    let (_, signature) = put(
        Some(&tag),
        INDEX,
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]}),
    );
    let (mut above, mut chain) = (subject, Vec::new());
    for level in 0..4 {
        let document =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": format!("a/{level}"), "subject": above});
        let (next, digest) = put(None, MANIFEST, document);
        above = next;
        chain.push(digest);
    }
    let to = format!("{}/public/agent:t", target.host());
    let promoted = tool.json(&["promote", &pushed, &to]).await;
    for digest in [&oras, &part_digest, &inner_digest, &signature]
        .into_iter()
        .chain(&chain[..3])
    {
        assert!(target.manifest("public/agent", digest).is_some(), "{digest}");
    }
    assert_eq!(target.tags("public/agent")[&tag], signature);
    assert_eq!(target.blob("public/agent", &blob).as_deref(), Some(&b"an SBOM"[..]));
    let left = promoted["destinations"][0]["left"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    let left = left[0].as_str().unwrap();
    assert!(left.contains(&chain[3]) && left.contains("nested too deeply"), "{left}");

    // Another signature stays there, and the error names its tag.
    let other = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    let other = target.put("public/agent", Some(&tag), INDEX, &other);
    let again = tool.output(&["promote", &pushed, &to, "--json"]).await;
    assert_eq!(target.tags("public/agent")[&tag], other);
    assert!(String::from_utf8_lossy(&again.stdout).contains(&tag), "{again:?}");
}
