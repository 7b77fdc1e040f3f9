//! Creates and verifies cosign 3's signature: a Sigstore bundle v0.3 with a DSSE envelope, in a manifest whose
//! `subject` is the signed image (<https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md>).

use oci_spec::image::{Descriptor, Digest, MediaType};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::dsse::{Envelope, Statement};
use super::error::{SignError, VerifyError};
use super::key::{Key, PublicKey};
use super::manifest::{Checked, json_content, parse, sha256_hex};
use super::{BUNDLE_TYPE, ENVELOPE_LIMIT, SIGNATURE_PREDICATE};
use crate::oci::{Artifact, Content, Place};

const CONTENT: &str = "dev.sigstore.bundle.content";
const CONTENT_DSSE: &str = "dsse-envelope";
const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";

const MANIFEST: &str = "the bundle's manifest";
const BUNDLE: &str = "the Sigstore bundle";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bundle {
    media_type: String,
    verification_material: Material,
    #[serde(skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<Envelope>,
    #[serde(skip_serializing)]
    message_signature: Option<IgnoredAny>,
}

/// The signer's identity, and the transparency log entries.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Material {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<Hint>,
    #[serde(skip_serializing)]
    certificate: Option<IgnoredAny>,
    #[serde(rename = "x509CertificateChain", skip_serializing)]
    chain: Option<IgnoredAny>,
    #[serde(skip_serializing)]
    tlog_entries: Option<IgnoredAny>,
    #[serde(skip_serializing)]
    timestamp_verification_data: Option<IgnoredAny>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    hint: String,
}

/// Signs the manifest or index of `subject`.
pub fn bundle(key: &Key, subject: &Descriptor) -> Result<Artifact, SignError> {
    let statement = signature_statement(subject.digest())?;
    referrer(key, statement.as_bytes(), SIGNATURE_PREDICATE, subject)
}

/// The same bytes as cosign's statement.
pub(super) fn signature_statement(digest: &Digest) -> Result<String, SignError> {
    Ok(format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}},"annotations":{{}}}}],"predicateType":"{SIGNATURE_PREDICATE}","predicate":{{}}}}"#,
        sha256_hex(digest)?
    ))
}

/// Verifies the signature by `key` of `subject` in a fetched referrer.
pub fn verify_bundle(artifact: &Artifact, key: &PublicKey, subject: &Descriptor) -> Result<Statement, VerifyError> {
    let statement = verify_referrer(artifact, key, subject)?;
    if statement.predicate_type != SIGNATURE_PREDICATE {
        return Err(VerifyError::OtherType {
            what: "the statement's predicate",
            found: statement.predicate_type,
            expected: SIGNATURE_PREDICATE.to_string(),
        });
    }
    Ok(statement)
}

/// Whether an entry in a list of referrers may be a bundle. In the fallback tag's index, cosign writes the type of the
/// empty config in place of the artifact's type.
pub fn may_be_bundle(referrer: &Descriptor) -> bool {
    let known = [BUNDLE_TYPE, MediaType::EmptyJSON.as_ref()].map(MediaType::from);
    *referrer.media_type() == MediaType::ImageManifest
        && referrer
            .artifact_type()
            .as_ref()
            .is_none_or(|found| known.contains(found))
}

pub(super) fn referrer(
    key: &Key,
    statement: &[u8],
    predicate_type: &str,
    subject: &Descriptor,
) -> Result<Artifact, SignError> {
    let bundle = Bundle {
        media_type: BUNDLE_TYPE.to_string(),
        verification_material: Material {
            public_key: Some(Hint {
                hint: key.public().hint(),
            }),
            ..Material::default()
        },
        dsse_envelope: Some(Envelope::sign(key, statement, predicate_type, subject.digest())?),
        message_signature: None,
    };
    let bundle = json_content(MediaType::from(BUNDLE_TYPE), BUNDLE, &bundle)?;
    attached(bundle, predicate_type, subject)
}

/// A manifest that contains the bundle and refers to `subject`.
pub(super) fn attached(bundle: Content, predicate_type: &str, subject: &Descriptor) -> Result<Artifact, SignError> {
    let config = Content::new(MediaType::EmptyJSON, b"{}".to_vec());
    // Without cosign's creation time, so that signing again gives the same manifest.
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.as_ref(),
        "artifactType": BUNDLE_TYPE,
        "config": config.descriptor,
        "layers": [bundle.descriptor],
        "subject": bare(subject),
        "annotations": {CONTENT: CONTENT_DSSE, PREDICATE_TYPE: predicate_type},
    });
    Ok(Artifact {
        manifest: json_content(MediaType::ImageManifest, MANIFEST, &manifest)?,
        blobs: vec![bundle, config],
        place: Place::Referrer,
    })
}

pub(super) fn verify_referrer(
    artifact: &Artifact,
    key: &PublicKey,
    subject: &Descriptor,
) -> Result<Statement, VerifyError> {
    let checked = Checked::new(MANIFEST, artifact)?;
    let manifest = &checked.manifest;
    let malformed = |what: &'static str, reason: &str| VerifyError::Malformed {
        what,
        reason: reason.to_string(),
    };
    let is_bundle = |found: &MediaType| found.as_ref() == BUNDLE_TYPE;
    let [layer] = manifest.layers().as_slice() else {
        return Err(malformed(MANIFEST, "a bundle has one layer"));
    };
    if !manifest.artifact_type().as_ref().is_some_and(is_bundle) || !is_bundle(layer.media_type()) {
        return Err(malformed(MANIFEST, "it is not declared as a Sigstore bundle v0.3"));
    }
    let empty = Content::new(MediaType::EmptyJSON, b"{}".to_vec()).descriptor;
    if bare(manifest.config()) != empty {
        return Err(malformed(MANIFEST, "its configuration is not the empty one"));
    }
    match manifest.subject() {
        Some(found) if bare(found) == bare(subject) => {}
        Some(other) if other.digest() != subject.digest() => return Err(other_subject(other.digest(), subject)),
        Some(_) => return Err(malformed(MANIFEST, "its subject has another type or size")),
        None => return Err(malformed(MANIFEST, "it has no subject")),
    }
    let bytes = checked.blob(BUNDLE, layer, ENVELOPE_LIMIT)?;
    let bundle: Bundle = parse(BUNDLE, bytes)?;
    if bundle.media_type != BUNDLE_TYPE {
        return Err(VerifyError::OtherType {
            what: BUNDLE,
            found: bundle.media_type,
            expected: BUNDLE_TYPE.to_string(),
        });
    }
    let Material {
        public_key,
        certificate,
        chain,
        ..
    } = &bundle.verification_material;
    if certificate.is_some() || chain.is_some() {
        return Err(VerifyError::Keyless { what: BUNDLE });
    }
    let Some(Hint { hint }) = public_key else {
        return Err(malformed(BUNDLE, "it does not name its key"));
    };
    if *hint != key.hint() {
        return Err(VerifyError::WrongKey {
            what: BUNDLE,
            signed_by: hint.clone(),
            given: key.to_string(),
        });
    }
    let (Some(envelope), None) = (&bundle.dsse_envelope, &bundle.message_signature) else {
        return Err(malformed(BUNDLE, "it contains no DSSE envelope"));
    };
    let statement = envelope.verify(key, subject.digest())?;
    let annotation = |name: &str| {
        manifest
            .annotations()
            .as_ref()
            .and_then(|a| a.get(name))
            .map(String::as_str)
    };
    if annotation(CONTENT) != Some(CONTENT_DSSE) || annotation(PREDICATE_TYPE) != Some(&statement.predicate_type) {
        return Err(malformed(MANIFEST, "its annotations do not name the bundle's content"));
    }
    Ok(statement)
}

fn other_subject(signed: &Digest, expected: &Descriptor) -> VerifyError {
    VerifyError::OtherDigest {
        what: MANIFEST,
        signed: signed.to_string(),
        expected: expected.digest().clone(),
    }
}

/// A descriptor with only type, size and digest.
fn bare(descriptor: &Descriptor) -> Descriptor {
    Descriptor::new(
        descriptor.media_type().clone(),
        descriptor.size(),
        descriptor.digest().clone(),
    )
}
