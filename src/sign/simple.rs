//! Creates and verifies cosign 2's signature: a JSON payload with repository and digest, and the signature of its bytes
//! in an annotation (<https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>).

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::{Descriptor, Digest, MediaType};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::PAYLOAD_LIMIT;
use super::error::{SignError, VerifyError};
use super::key::{Key, PublicKey};
use super::manifest::{Checked, parse, sha256_hex};
use super::tag::{Existing, SIGNATURE, append, signature_tag};
use crate::oci::{Artifact, Content};

const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const KIND: &str = "cosign container image signature";

const MANIFEST: &str = "the signature's manifest";
const PAYLOAD: &str = "the signature's payload";

#[derive(Serialize, Deserialize)]
struct Payload {
    critical: Critical,
    optional: Option<Map<String, Value>>,
}

#[derive(Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    repository: String,
}

#[derive(Serialize, Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// The verified content of a signature, besides the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimpleSignature {
    /// The repository at signing time; a promotion does not change it.
    pub repository: String,
    /// `cosign sign --annotations`.
    pub annotations: Map<String, Value>,
}

/// Signs `digest` in `repository` (`host/path`, no tag). `existing` is the manifest under [`signature_tag`], if any;
/// the signature is added unless the same claim by this key is already there.
pub fn simple_signing(
    key: &Key,
    repository: &str,
    digest: &Digest,
    existing: Option<&[u8]>,
) -> Result<Artifact, SignError> {
    let tag = signature_tag(digest)?;
    let payload = Payload {
        critical: Critical {
            identity: Identity {
                repository: docker_reference(repository).into_owned(),
            },
            image: Image {
                digest: format!("sha256:{}", sha256_hex(digest)?),
            },
            kind: KIND.to_string(),
        },
        optional: None,
    };
    // The same bytes as cosign's, so that its signatures count as the same.
    let payload = serde_json::to_vec(&payload).map_err(|e| SignError::Write {
        what: PAYLOAD,
        reason: e.to_string(),
    })?;
    let mut blob = Content::new(MediaType::from(MEDIA_TYPE), payload);
    let existing = existing.map(|bytes| Existing::read(&tag, bytes)).transpose()?;
    if let Some(existing) = &existing {
        let is_there = |layer: &Descriptor| {
            let same = layer.digest() == blob.descriptor.digest() && layer.media_type().as_ref() == MEDIA_TYPE;
            same && signature(layer).is_ok_and(|s| key.public().accepts(&blob.bytes, &s))
        };
        if existing.layers().iter().any(is_there) {
            return Ok(existing.unchanged(blob));
        }
    }
    let signature = key.sign(&blob.bytes).map_err(|problem| SignError::Key {
        digest: digest.clone(),
        problem,
    })?;
    let annotations = HashMap::from([(SIGNATURE.to_string(), STANDARD.encode(signature))]);
    blob.descriptor.set_annotations(Some(annotations));
    append(&tag, existing, blob)
}

/// Verifies the signatures by `key` for `digest` (and `repository`, if given) in the manifest of [`signature_tag`]: at
/// least one, else the reason. Skips signatures by other keys.
pub fn verify_simple_signing(
    artifact: &Artifact,
    key: &PublicKey,
    digest: &Digest,
    repository: Option<&str>,
) -> Result<Vec<SimpleSignature>, VerifyError> {
    let checked = Checked::new(MANIFEST, artifact)?;
    checked.accepted(MEDIA_TYPE, "cosign signature", |layer| {
        let payload = checked.blob(PAYLOAD, layer, PAYLOAD_LIMIT)?;
        if !key.accepts(payload, &signature(layer)?) {
            return Err(VerifyError::BadSignature {
                what: "the signature",
                given: key.to_string(),
            });
        }
        // Parse the payload only after its signature is verified.
        let Payload { critical, optional } = parse(PAYLOAD, payload)?;
        if critical.kind != KIND {
            return Err(VerifyError::OtherType {
                what: PAYLOAD,
                found: critical.kind,
                expected: KIND.to_string(),
            });
        }
        if critical.image.digest != digest.as_ref() {
            return Err(VerifyError::OtherDigest {
                what: "the signature",
                signed: critical.image.digest,
                expected: digest.clone(),
            });
        }
        let signed_for = critical.identity.repository;
        if let Some(expected) = repository.map(docker_reference)
            && expected != docker_reference(&signed_for)
        {
            return Err(VerifyError::OtherRepository {
                what: "the signature",
                signed: signed_for,
                expected: expected.into_owned(),
            });
        }
        Ok(SimpleSignature {
            repository: signed_for,
            annotations: optional.unwrap_or_default(),
        })
    })
}

fn signature(layer: &Descriptor) -> Result<Vec<u8>, VerifyError> {
    let malformed = |reason: &str| VerifyError::Malformed {
        what: MANIFEST,
        reason: reason.to_string(),
    };
    let annotation = layer.annotations().as_ref().and_then(|a| a.get(SIGNATURE));
    let annotation = annotation.ok_or_else(|| malformed("a layer has no signature annotation"))?;
    STANDARD
        .decode(annotation)
        .map_err(|_| malformed("the signature is not base64"))
}

/// cosign uses the name of Docker Hub's API.
fn docker_reference(repository: &str) -> Cow<'_, str> {
    match repository.strip_prefix("docker.io/") {
        Some(path) => Cow::Owned(format!("index.docker.io/{path}")),
        None => Cow::Borrowed(repository),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::manifest::digest_of;

    fn key() -> Key {
        Key::from_pem(rcgen::KeyPair::generate().unwrap().serialize_pem().as_bytes(), None).unwrap()
    }

    #[test]
    fn docker_hub_has_two_names() {
        let (key, digest) = (key(), digest_of(b"an image"));
        let signed = simple_signing(&key, "docker.io/a/b", &digest, None).unwrap();
        let verify = |repository| verify_simple_signing(&signed, key.public(), &digest, Some(repository));
        assert_eq!(verify("docker.io/a/b").unwrap()[0].repository, "index.docker.io/a/b");
        assert!(verify("index.docker.io/a/b").is_ok());
        assert!(matches!(
            verify("docker.io/a/c"),
            Err(VerifyError::OtherRepository { .. })
        ));
    }

    #[test]
    fn a_manifest_that_is_no_signature_s_is_not_added_to() {
        let (key, digest) = (key(), digest_of(b"an image"));
        let add = |existing: Value| {
            let existing = existing.to_string();
            simple_signing(&key, "example.org/a", &digest, Some(existing.as_bytes())).unwrap_err()
        };
        let descriptor = |media_type: &str| serde_json::json!({"mediaType": media_type, "digest": digest, "size": 2});
        let manifest = |config: &str, layers: usize| {
            serde_json::json!({
                "schemaVersion": 2,
                "mediaType": MediaType::ImageManifest.as_ref(),
                "config": descriptor(config),
                "layers": vec![descriptor(MEDIA_TYPE); layers],
            })
        };
        let refused = add(manifest("application/vnd.docker.container.image.v1+json", 1));
        assert!(refused.to_string().contains("in cosign's format"), "{refused}");
        let refused = add(manifest(MediaType::ImageConfig.as_ref(), crate::sign::LAYERS_LIMIT));
        assert!(refused.to_string().contains("already has 1000 layers"), "{refused}");
        assert!(matches!(add(serde_json::json!({})), SignError::Existing { .. }));
    }
}
