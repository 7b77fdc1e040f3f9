//! Signs in-toto statements in DSSE envelopes (<https://github.com/secure-systems-lab/dsse>), and verifies envelopes
//! into [`Statement`]s.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::Digest;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::error::{SignError, VerifyError};
use super::key::{Key, PublicKey};
use super::manifest::{parse, sha256_hex};

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// cosign still uses the first one in its attestations.
const STATEMENT_TYPES: [&str; 2] = ["https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"];

const ENVELOPE: &str = "the DSSE envelope";
const STATEMENT: &str = "the in-toto statement";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
    sig: String,
}

/// A verified statement by the key's owner about the expected subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub predicate_type: String,
    /// The signed statement.
    pub bytes: Vec<u8>,
}

impl Statement {
    /// Parses the predicate as the type for `predicate_type`.
    pub fn predicate<T: DeserializeOwned>(&self) -> Result<T, VerifyError> {
        #[derive(Deserialize)]
        struct Whole<T> {
            predicate: T,
        }
        parse(STATEMENT, &self.bytes).map(|Whole { predicate }| predicate)
    }
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[serde(rename = "predicate")]
    _predicate: IgnoredAny,
}

#[derive(Deserialize)]
struct Subject {
    digest: HashMap<String, String>,
}

impl Head {
    fn read(statement: &[u8]) -> Result<Self, VerifyError> {
        let head: Self = parse(STATEMENT, statement)?;
        if !STATEMENT_TYPES.contains(&head.kind.as_str()) {
            return Err(VerifyError::OtherType {
                what: STATEMENT,
                found: head.kind,
                expected: STATEMENT_TYPES.join(" or "),
            });
        }
        Ok(head)
    }

    fn is_about(&self, hex: &str) -> bool {
        self.subject
            .iter()
            .any(|s| s.digest.get("sha256").is_some_and(|found| found == hex))
    }

    fn subjects(&self) -> String {
        let named = self.subject.iter().map(|s| match s.digest.get("sha256") {
            Some(hex) => format!("sha256:{hex}"),
            None => "a subject without SHA-256".into(),
        });
        match self.subject.len() {
            0 => "nothing".into(),
            // A few names identify it.
            _ => named.take(4).collect::<Vec<_>>().join(", "),
        }
    }
}

impl Envelope {
    /// Signs `statement`, which must have this subject and predicate type.
    pub fn sign(key: &Key, statement: &[u8], predicate_type: &str, subject: &Digest) -> Result<Self, SignError> {
        must_be_about(statement, predicate_type, subject)?;
        let signature = key.sign(&signed_bytes(PAYLOAD_TYPE, statement));
        let signature = signature.map_err(|problem| SignError::Key {
            digest: subject.clone(),
            problem,
        })?;
        Ok(Self {
            payload: STANDARD.encode(statement),
            payload_type: PAYLOAD_TYPE.to_string(),
            signatures: vec![Signature {
                keyid: String::new(),
                sig: STANDARD.encode(signature),
            }],
        })
    }

    pub fn verify(&self, key: &PublicKey, subject: &Digest) -> Result<Statement, VerifyError> {
        let malformed = |reason: String| VerifyError::Malformed { what: ENVELOPE, reason };
        let [signature] = self.signatures.as_slice() else {
            return Err(malformed(format!(
                "it has {} signatures, not one",
                self.signatures.len()
            )));
        };
        let sig = STANDARD
            .decode(&signature.sig)
            .map_err(|_| malformed("its signature is not base64".into()))?;
        let bytes = STANDARD
            .decode(&self.payload)
            .map_err(|_| malformed("its payload is not base64".into()))?;
        if !key.accepts(&signed_bytes(&self.payload_type, &bytes), &sig) {
            return Err(VerifyError::BadSignature {
                what: ENVELOPE,
                given: key.to_string(),
            });
        }
        if self.payload_type != PAYLOAD_TYPE {
            return Err(VerifyError::OtherType {
                what: ENVELOPE,
                found: self.payload_type.clone(),
                expected: PAYLOAD_TYPE.to_string(),
            });
        }
        let head = Head::read(&bytes)?;
        let is_about = sha256_hex(subject).is_ok_and(|hex| head.is_about(hex));
        if !is_about {
            return Err(VerifyError::OtherDigest {
                what: STATEMENT,
                signed: head.subjects(),
                expected: subject.clone(),
            });
        }
        Ok(Statement {
            predicate_type: head.predicate_type,
            bytes,
        })
    }
}

/// Rejects a statement with another subject or predicate type.
pub(super) fn must_be_about(statement: &[u8], predicate_type: &str, subject: &Digest) -> Result<(), SignError> {
    let refused = |reason: String| SignError::Statement {
        subject: subject.clone(),
        reason,
    };
    let head = Head::read(statement).map_err(|e| refused(e.to_string()))?;
    if !head.is_about(sha256_hex(subject)?) {
        return Err(refused(format!("it is about {}", head.subjects())));
    }
    if head.predicate_type != predicate_type {
        return Err(refused(format!(
            "its predicate is {}, not {predicate_type}",
            head.predicate_type
        )));
    }
    Ok(())
}

/// DSSE's pre-authentication encoding: type and payload, each with its length.
fn signed_bytes(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of DSSE's protocol.md.
    #[test]
    fn the_signed_bytes_are_dsse_s() {
        let encoded = signed_bytes("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }
}
