//! Tests signatures and attestations in a registry with the referrers API.

use super::MIB;
use super::support::cosign;
use super::support::referrers::ReferrersRegistry;
use super::support::tool::Tool;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_found_and_promoted_by_the_referrers_api_alone() {
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
        let repository = reference.rsplit_once(':').unwrap().0;
        let path = repository.split_once('/').unwrap().1;
        // This registry does not return `OCI-Subject`, so the specification requires fallback tags as well. Without
        // them, only the API lists the referrers.
        for tag in tags(&registry, path).await.iter().filter(|tag| is_fallback(tag)) {
            let deleted = reqwest::Client::new()
                .delete(url(&registry, &format!("{path}/manifests/{tag}")))
                .send()
                .await;
            assert!(deleted.unwrap().status().is_success(), "{tag}");
        }
        let left = tags(&registry, path).await;
        assert!(!left.iter().any(|tag| is_fallback(tag)), "{left:?}");

        let verified = tool.json(&["verify", reference, "--key", trusted]).await;
        assert_eq!(verified["authentic"][0]["digest"], index.as_str());
        for subject in verified["authentic"].as_array().unwrap() {
            assert_eq!(subject["signatures"], json!(["simple-signing", "bundle"]));
        }
        for platform in &verified["authentic"].as_array().unwrap()[1..] {
            let platform = format!("{repository}@{}", platform["digest"].as_str().unwrap());
            for cosign in &both {
                cosign.verify(&public, &platform).unwrap();
                cosign.verify_attestation(&public, "spdxjson", &platform).unwrap();
            }
        }
    }
}

/// Whether a tag is `sha256-HEX`. The tags of cosign also have a suffix.
fn is_fallback(tag: &str) -> bool {
    tag.starts_with("sha256-") && !tag.contains('.')
}

async fn tags(registry: &ReferrersRegistry, path: &str) -> Vec<String> {
    let response = reqwest::get(url(registry, &format!("{path}/tags/list"))).await.unwrap();
    let listed: Value = response.json().await.unwrap();
    serde_json::from_value(listed["tags"].clone()).unwrap()
}

fn url(registry: &ReferrersRegistry, path: &str) -> String {
    format!("http://{}/v2/{path}", registry.host)
}
