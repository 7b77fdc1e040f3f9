//! Signatures and attestations in a registry that has the referrers API: nothing stands in for it, and cosign finds them.

#[allow(dead_code)]
#[path = "support/cosign.rs"]
mod cosign;
#[allow(dead_code)]
#[path = "support/debian.rs"]
mod debian;
#[allow(dead_code)]
#[path = "support/distribution.rs"]
mod distribution;
#[allow(dead_code)]
#[path = "support/image.rs"]
mod image;
#[allow(dead_code)]
#[path = "support/published.rs"]
mod published;
#[path = "support/referrers/mod.rs"]
mod referrers;
#[allow(dead_code)]
#[path = "support/tool.rs"]
mod tool;

use referrers::ReferrersRegistry;
use serde_json::{Value, json};
use tool::Tool;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn signed_attested_verified_and_promoted_without_stand_in_tags() {
    let Some(registry) = ReferrersRegistry::start() else {
        return;
    };
    let Some(both) = cosign::both() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = both[0].key_pair(dir.path(), "ours");
    let (key, trusted) = (private.to_str().unwrap(), public.to_str().unwrap());
    let mut tool = Tool::new("");
    tool.environment = vec![("COSIGN_PASSWORD".into(), cosign::PASSWORD.into())];
    let index = tool.project.make("t", 17, MIB).digest().to_string();
    let pushed = format!("{}/team/agent:t", registry.host);
    tool.json(&["push", &tool.image("t"), &pushed, "--sign", key]).await;
    let promoted = format!("{}/public/agent:stable", registry.host);
    tool.json(&["promote", &pushed, &promoted, "--key", trusted]).await;

    for reference in [&pushed, &promoted] {
        let verified = tool.json(&["verify", reference, "--key", trusted]).await;
        assert_eq!(verified["authentic"][0]["digest"], index.as_str());
        for subject in verified["authentic"].as_array().unwrap() {
            assert_eq!(subject["signatures"], json!(["simple-signing", "bundle"]));
        }
        let repository = reference.rsplit_once(':').unwrap().0;
        for platform in &verified["authentic"].as_array().unwrap()[1..] {
            let platform = format!("{repository}@{}", platform["digest"].as_str().unwrap());
            for cosign in &both {
                cosign.verify(&public, &platform).unwrap();
                cosign.verify_attestation(&public, "spdxjson", &platform).unwrap();
            }
        }
        let path = repository.split_once('/').unwrap().1;
        let tags = get(&registry, &format!("{path}/tags/list")).await;
        let tags: Vec<&str> = tags["tags"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(Value::as_str)
            .collect();
        let stand_ins = tags
            .iter()
            .filter(|tag| tag.starts_with("sha256-") && !tag.ends_with(".sig"));
        assert_eq!(stand_ins.count(), 0, "{tags:?}");
        // The bundle, and whatever else refers to the index, is listed by the registry itself.
        let listed = get(&registry, &format!("{path}/referrers/{index}")).await;
        let types = listed["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["artifactType"]);
        let bundles = types.filter(|kind| kind.as_str().is_some_and(|kind| kind.contains("sigstore.bundle")));
        assert_eq!(bundles.count(), 1, "{listed:#}");
    }
}

/// A registry need not say `OCI-Subject` to have the API; what counts is that it answers when asked.
async fn get(registry: &ReferrersRegistry, path: &str) -> Value {
    let url = format!("http://{}/v2/{path}", registry.host);
    reqwest::get(url).await.unwrap().json().await.unwrap()
}
