//! Signs and verifies attestations (in-toto statements about an image), in the layouts of cosign 2 and cosign 3.

use std::collections::HashMap;

use oci_spec::image::{Descriptor, Digest, MediaType};

use super::dsse::{Envelope, Statement};
use super::error::{SignError, VerifyError};
use super::key::{Key, PublicKey};
use super::manifest::{Checked, json_content, parse};
use super::tag::{Existing, SIGNATURE, append, attestation_tag};
use super::{ENVELOPE_LIMIT, SIGNATURE_PREDICATE, bundle};
use crate::oci::Artifact;

const MEDIA_TYPE: &str = "application/vnd.dsse.envelope.v1+json";
const PREDICATE_TYPE: &str = "predicateType";

const MANIFEST: &str = "the attestations' manifest";
const ENVELOPE: &str = "the attestation";

/// Signs `statement`, which must have this subject and predicate type, as a referrer of the subject.
pub fn attest_bundle(
    key: &Key,
    statement: &[u8],
    predicate_type: &str,
    subject: &Descriptor,
) -> Result<Artifact, SignError> {
    bundle::referrer(key, statement, predicate_type, subject)
}

/// Signs `statement`, which must have this subject and predicate type. `existing` is the manifest under
/// [`attestation_tag`], if any; the attestation is added unless it is already there.
pub fn attest_tag(
    key: &Key,
    statement: &[u8],
    predicate_type: &str,
    subject: &Digest,
    existing: Option<&[u8]>,
) -> Result<Artifact, SignError> {
    let tag = attestation_tag(subject)?;
    let envelope = Envelope::sign(key, statement, predicate_type, subject)?;
    let mut blob = json_content(MediaType::from(MEDIA_TYPE), ENVELOPE, &envelope)?;
    let existing = existing.map(|bytes| Existing::read(&tag, bytes)).transpose()?;
    if let Some(existing) = &existing {
        // Signatures are deterministic: the same attestation is the same blob.
        let is_there = |layer: &Descriptor| {
            layer.digest() == blob.descriptor.digest()
                && layer.media_type().as_ref() == MEDIA_TYPE
                && declared(layer) == Some(predicate_type)
        };
        if existing.layers().iter().any(is_there) {
            return Ok(existing.unchanged(blob));
        }
    }
    blob.descriptor.set_annotations(Some(HashMap::from([
        (SIGNATURE.to_string(), String::new()),
        (PREDICATE_TYPE.to_string(), predicate_type.to_string()),
    ])));
    append(&tag, existing, blob)
}

/// Verifies the attestation by `key` about `subject` in a fetched referrer.
pub fn verify_attestation_bundle(
    artifact: &Artifact,
    key: &PublicKey,
    subject: &Descriptor,
) -> Result<Statement, VerifyError> {
    let statement = bundle::verify_referrer(artifact, key, subject)?;
    if statement.predicate_type == SIGNATURE_PREDICATE {
        return Err(VerifyError::OtherType {
            what: "the statement's predicate",
            found: statement.predicate_type,
            expected: "an attestation's".to_string(),
        });
    }
    Ok(statement)
}

/// Verifies the attestations by `key` about `subject` in the manifest of [`attestation_tag`]: at least one, else the
/// reason. Skips attestations by other keys.
pub fn verify_attestation_tag(
    artifact: &Artifact,
    key: &PublicKey,
    subject: &Digest,
) -> Result<Vec<Statement>, VerifyError> {
    let checked = Checked::new(MANIFEST, artifact)?;
    checked.accepted(MEDIA_TYPE, "attestation", |layer| {
        let bytes = checked.blob(ENVELOPE, layer, ENVELOPE_LIMIT)?;
        let envelope: Envelope = parse(ENVELOPE, bytes)?;
        let statement = envelope.verify(key, subject)?;
        if declared(layer) != Some(&statement.predicate_type) || annotation(layer, SIGNATURE) != Some("") {
            return Err(VerifyError::Malformed {
                what: MANIFEST,
                reason: "a layer has no predicate type in its annotations".into(),
            });
        }
        Ok(statement)
    })
}

fn declared(layer: &Descriptor) -> Option<&str> {
    annotation(layer, PREDICATE_TYPE)
}

fn annotation<'a>(layer: &'a Descriptor, name: &str) -> Option<&'a str> {
    layer.annotations().as_ref()?.get(name).map(String::as_str)
}
