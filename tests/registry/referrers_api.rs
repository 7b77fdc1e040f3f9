//! Signatures and attestations in a registry that has the referrers API: they are found by it alone.

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
        // This registry has the API but does not say so when it takes a referrer (`OCI-Subject`), so that the specification
        // wants the stand-in tags as well. Without them, what is found is found by the API.
        for tag in tags(&registry, path).await.iter().filter(|tag| is_stand_in(tag)) {
            let gone = reqwest::Client::new()
                .delete(url(&registry, &format!("{path}/manifests/{tag}")))
                .send()
                .await;
            assert!(gone.unwrap().status().is_success(), "{tag}");
        }
        let left = tags(&registry, path).await;
        assert!(!left.iter().any(|tag| is_stand_in(tag)), "{left:?}");

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

/// `sha256-<hex>`; cosign's own tags have an ending.
fn is_stand_in(tag: &str) -> bool {
    tag.starts_with("sha256-") && !tag.contains('.')
}

async fn tags(registry: &ReferrersRegistry, path: &str) -> Vec<String> {
    let answer = reqwest::get(url(registry, &format!("{path}/tags/list"))).await.unwrap();
    let listed: Value = answer.json().await.unwrap();
    serde_json::from_value(listed["tags"].clone()).unwrap()
}

fn url(registry: &ReferrersRegistry, path: &str) -> String {
    format!("http://{}/v2/{path}", registry.host)
}
