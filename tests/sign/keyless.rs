//! Tests the errors of keyless signing, which need neither Fulcio nor Rekor.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::registry::Distribution;

/// A token without a valid signature.
fn token(expires: u64) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "iss": "https://issuer.example", "sub": "builder", "aud": "sigstore", "iat": 1_700_000_000, "exp": expires,
    });
    format!("{}.{}.c2VjcmV0", part(json!({"alg": "ES256"})), part(claims))
}

#[tokio::test(flavor = "multi_thread")]
async fn keyless_errors_name_the_cause_and_hide_the_token() {
    let Some(registry) = Distribution::start() else { return };
    let image = registry.put_image("keyless").await;
    let reference = image.reference(&image.index);
    let (expired, good) = (token(1_700_000_600), token(4_000_000_000));
    for (token, expected) in [
        (None, "set SIGSTORE_ID_TOKEN"),
        (Some("no.token"), "it is not a JWT"),
        (Some(&expired), "for builder has expired"),
        (Some(&good), "Fulcio at http://127.0.0.1:1/"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-build"));
        command
            .args([
                "sign",
                &reference,
                "--keyless",
                "--fulcio-url",
                "http://127.0.0.1:1",
                "--progress",
                "quiet",
            ])
            .env("NO_PROXY", "127.0.0.1")
            .env("RUST_LOG", "trace")
            .env_remove("SIGSTORE_ID_TOKEN");
        if let Some(token) = token {
            command.env("SIGSTORE_ID_TOKEN", token);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected), "{expected}: {text}");
        assert!(token.is_none_or(|token| !text.contains(token)), "{text}");
    }
    assert!(registry.referrers(&image.repository, &image.index).await.is_empty());
}
