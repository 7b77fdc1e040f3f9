//! Tests signed pushes: cosign 2, cosign 3 and the program itself accept the signatures and attestations.

use std::time::Duration;

use super::support::cosign::{self, Cosign, PASSWORD};
use super::support::distribution::Distribution;
use super::support::tool::{Tool, stderr};
use serde_json::Value;

const KIB: usize = 1 << 10;
const SPDX: &str = "https://spdx.dev/Document";
const CYCLONEDX: &str = "https://cyclonedx.org/bom";

/// The program, with the password of cosign's keys in its environment.
fn tool() -> Tool {
    let mut tool = Tool::new("");
    tool.environment = vec![("COSIGN_PASSWORD".into(), PASSWORD.into())];
    tool
}

/// Makes a cosign key pair, and returns the paths of the private and the public key.
fn keys(cosign: &Cosign, dir: &tempfile::TempDir, name: &str) -> (String, String) {
    let (private, public) = cosign.key_pair(dir.path(), name);
    (private.display().to_string(), public.display().to_string())
}

/// Both cosigns run without a network besides the registry.
#[tokio::test(flavor = "multi_thread")]
async fn the_cosign_commands_that_a_signed_push_prints_work_without_a_transparency_log() {
    let Some(both) = cosign::both() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (private, _) = keys(&both[0], &dir, "printed");
    let tool = tool();
    let registry = Distribution::start();
    tool.project.make("t", 8, KIB);
    let to = format!("{}/team/agent", registry.host());
    let pushed = tool.json(&["push", &tool.image("t"), &to, "--key", &private]).await;
    let signed = tool.json(&["sign", &format!("{to}:t"), "--key", &private]).await;
    assert_eq!(pushed["verify"], signed["verify"]);
    let commands: Vec<&str> = pushed["verify"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let [command] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[..2], ["cosign", "verify"]);
    for cosign in &both {
        cosign.run(&words[1..]).unwrap();
    }
    // For people: the same command, whole.
    let text = tool.output(&["push", &tool.image("t"), &to, "--key", &private]).await;
    assert!(
        String::from_utf8_lossy(&text.stdout)
            .lines()
            .any(|line| line == *command)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_push_is_accepted_by_cosign_and_survives_promotion() {
    let Some(both) = cosign::both() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = keys(&both[0], &dir, "ours");
    let (_, other) = keys(&both[0], &dir, "other");
    let tool = tool();
    let registry = Distribution::start();
    let index = tool.project.make("7.0.0", 1, 64 * KIB);
    let image = tool.image("7.0.0");
    let artifacts = dir.path().join("artifacts.json");
    let to = format!("{}/team/agent", registry.host());
    let zuul = artifacts.display().to_string();
    tool.json(&["push", &image, &to, "--sign", &private, "--zuul-artifacts", &zuul])
        .await;

    let written: Value = serde_json::from_slice(&std::fs::read(&artifacts).unwrap()).unwrap();
    assert_eq!(written[0]["url"], format!("docker://{to}:7.0.0"));
    assert_eq!(written[0]["metadata"]["digest"], index.digest().to_string());

    let reference = format!("{to}:7.0.0");
    let verified = tool.json(&["verify", &reference, "--key", &public]).await;
    let authentic = verified["authentic"].as_array().unwrap();
    assert_eq!(authentic.len(), 3, "the index and two platforms: {verified:#}");
    assert!(
        authentic
            .iter()
            .all(|a| a["signatures"] == serde_json::json!(["simple-signing", "bundle"]))
    );
    for platform in &authentic[1..] {
        assert_eq!(platform["attestations"], serde_json::json!([CYCLONEDX, SPDX]));
    }
    let error = tool.failure(1, &["verify", &reference, "--key", &other]).await;
    assert!(error.contains("no valid signature by this key"), "{error}");

    // Promotion requires the right key, and copies signatures and attestations.
    let promoted = format!("{}/public/agent:stable", registry.host());
    let error = tool
        .failure(1, &["promote", &reference, &promoted, "--key", &other])
        .await;
    assert!(error.contains("no valid signature by this key"), "{error}");
    tool.json(&["promote", &reference, &promoted, "--key", &public]).await;
    for name in [&reference, &promoted] {
        for cosign in &both {
            cosign.verify(public.as_ref(), name).unwrap();
            assert!(cosign.verify(other.as_ref(), name).is_err());
            let platform = authentic[1]["digest"].as_str().unwrap();
            let platform = format!("{}@{platform}", name.rsplit_once(':').unwrap().0);
            cosign.verify(public.as_ref(), &platform).unwrap();
            cosign
                .verify_attestation(public.as_ref(), "spdxjson", &platform)
                .unwrap();
            cosign
                .verify_attestation(public.as_ref(), "cyclonedx", &platform)
                .unwrap();
        }
        tool.json(&["verify", name, "--key", &public, "--signatures-only"])
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_and_attesting_again_adds_nothing() {
    let Some(both) = cosign::both() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = keys(&both[1], &dir, "ours");
    let tool = tool();
    let registry = Distribution::start();
    tool.project.make("7.0.0", 1, 64 * KIB);
    let reference = format!("{}/team/agent:7.0.0", registry.host());
    tool.json(&["push", &tool.image("7.0.0"), &reference]).await;
    let error = tool.failure(1, &["verify", &reference, "--key", &public]).await;
    assert!(error.contains("has no signature\n"), "{error}");
    for _ in 0..2 {
        let signed = tool.json(&["sign", &reference, "--key", &private]).await;
        assert_eq!(signed["signed"].as_array().unwrap().len(), 3);
        assert_eq!(
            tool.json(&["attest", &reference, "--key", &private]).await["attested"]
                .as_array()
                .unwrap()
                .len(),
            4
        );
    }
    let predicate = dir.path().join("scan.json");
    std::fs::write(&predicate, r#"{"findings": 0}"#).unwrap();
    let own = "https://example.org/scan/v1";
    let file = predicate.display().to_string();
    tool.json(&[
        "attest",
        &reference,
        "--key",
        &private,
        "--predicate",
        &file,
        "--type",
        own,
    ])
    .await;
    let verified = tool.json(&["verify", &reference, "--key", &public]).await;
    assert_eq!(verified["authentic"][0]["attestations"], serde_json::json!([own]));
    // Signing twice gives one signature per manifest, and one attestation per platform and predicate.
    let inspected = tool.json(&["inspect", &reference]).await;
    let referrers = inspected["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|a| a["kind"] == "referrer");
    assert_eq!(referrers.count(), 3 + 4 + 1, "{inspected:#}");
    for cosign in &both {
        cosign.verify(public.as_ref(), &reference).unwrap();
        cosign.verify_attestation(public.as_ref(), own, &reference).unwrap();
    }
    // A wrong password is reported before the upload.
    let output = tool
        .command(&["sign", &reference, "--key", &private])
        .env("COSIGN_PASSWORD", "wrong")
        .output()
        .unwrap();
    assert!(stderr(&output).contains("does not decrypt it"));
}

/// Kills a push with SIGKILL at twenty times. The tag always names the old or the new image, signed.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_push_killed_at_any_time_leaves_a_signed_image() {
    let Some(cosign) = Cosign::get(cosign::Series::Two) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = keys(&cosign, &dir, "ours");
    let tool = tool();
    let registry = Distribution::start();
    let to = format!("{}/team/agent:t", registry.host());
    let mut old = tool.project.make("old", 1, 64 * KIB).digest().to_string();
    let push = |tag: &str| tool.command(&["push", &tool.image(tag), &to, "--sign", &private]);
    let began = std::time::Instant::now();
    assert!(push("old").output().unwrap().status.success());
    let whole = began.elapsed();
    let mut killed = 0;
    for round in 0..20u32 {
        let new = tool
            .project
            .make("new", 2 + u64::from(round), 64 * KIB)
            .digest()
            .to_string();
        let mut child = push("new").stdout(std::process::Stdio::null()).spawn().unwrap();
        // Up to four fifths of the duration of the first push, because later pushes may be faster.
        std::thread::sleep(whole * round / 25 + Duration::from_millis(u64::from(round % 3)));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let verified = tool.json(&["verify", &to, "--key", &public, "--signatures-only"]).await;
        let found = verified["authentic"][0]["digest"].as_str().unwrap().to_string();
        assert!(found == old || found == new, "round {round}: {found}");
        assert!(push("new").output().unwrap().status.success(), "round {round}");
        let verified = tool.json(&["verify", &to, "--key", &public]).await;
        assert_eq!(verified["authentic"][0]["digest"], new.as_str());
        old = new;
    }
    assert!(killed >= 5, "only {killed} of 20 were killed before their end");
}
