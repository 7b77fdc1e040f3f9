//! Errors of keys, signing and verification.

use oci_spec::image::Digest;

use super::pkcs11::TokenProblem;

/// A key that cannot be used, and its source. No message contains key material.
#[derive(Debug, thiserror::Error)]
#[error("loading the key {from}: {problem}")]
pub struct KeyError {
    pub from: String,
    #[source]
    pub problem: KeyProblem,
}

impl KeyError {
    /// Whether the caller named something that does not exist, or is not a key.
    pub fn is_wrong_name(&self) -> bool {
        match &self.problem {
            KeyProblem::Missing(_)
            | KeyProblem::NoVariable(_)
            | KeyProblem::TooLarge(_)
            | KeyProblem::NotPem(_)
            | KeyProblem::OtherFormat { .. }
            | KeyProblem::WrongKind { .. }
            | KeyProblem::Unsupported { .. } => true,
            KeyProblem::Read(_)
            | KeyProblem::NoPassword
            | KeyProblem::WrongPassword
            | KeyProblem::Malformed(_)
            | KeyProblem::Token(_) => false,
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// The error of the system.
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Read(String),
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    #[error("it is longer than {0} bytes, so it is not a key")]
    TooLarge(u64),
    #[error("it is not a PEM document, which starts with \"-----BEGIN\": {0}")]
    NotPem(String),
    #[error("it is an unsupported {found}: {help}")]
    OtherFormat { found: String, help: String },
    #[error("it is a {found}, not a {wanted}")]
    WrongKind { found: String, wanted: &'static str },
    #[error("{what} not supported: {instead}")]
    Unsupported { what: String, instead: &'static str },
    #[error("it is encrypted\nhelp: set COSIGN_PASSWORD to its password")]
    NoPassword,
    #[error("the password in COSIGN_PASSWORD does not decrypt it, or the file is damaged")]
    WrongPassword,
    #[error("it is damaged: {0}")]
    Malformed(String),
    #[error(transparent)]
    Token(#[from] TokenProblem),
}

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("signing {digest}: {problem}")]
    Key {
        digest: Digest,
        #[source]
        problem: KeyProblem,
    },
    #[error("signing {0}: only SHA-256 digests can be signed")]
    NotSha256(Digest),
    #[error(
        "adding to the tag {tag} in the registry: {reason}\n\
         help: remove that tag if its signatures are no longer needed"
    )]
    Existing { tag: String, reason: String },
    #[error("signing the statement as an attestation of {subject}: {reason}")]
    Statement { subject: Digest, reason: String },
    #[error("writing {what}: {reason}")]
    Write { what: &'static str, reason: String },
}

/// Why an artifact is rejected. `what` names the document, e.g. `the signature's payload`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("{what} was changed: expected {expected}, found {found}")]
    Damaged {
        what: &'static str,
        expected: Digest,
        found: Digest,
    },
    #[error("{what} has {found} bytes, but its descriptor has {expected}")]
    Size {
        what: &'static str,
        expected: u64,
        found: u64,
    },
    #[error("{what} has {size} bytes, over the limit of {limit}")]
    TooLarge { what: &'static str, size: u64, limit: u64 },
    #[error("{what} ({digest}) is missing")]
    Missing { what: &'static str, digest: Digest },
    #[error("{what} is malformed: {reason}")]
    Malformed { what: &'static str, reason: String },
    #[error("{what} was made with another key: it names {signed_by}, the given key is {given}")]
    WrongKey {
        what: &'static str,
        signed_by: String,
        given: String,
    },
    #[error("{what} does not match the key {given}: it was made with another key, or the signed content was changed")]
    BadSignature { what: &'static str, given: String },
    #[error("{what} is valid for {signed}, not for {expected}")]
    OtherDigest {
        what: &'static str,
        signed: String,
        expected: Digest,
    },
    #[error("{what} is valid for the repository {signed}, not for {expected}")]
    OtherRepository {
        what: &'static str,
        signed: String,
        expected: String,
    },
    #[error("{what} is {found}, not {expected}")]
    OtherType {
        what: &'static str,
        found: String,
        expected: String,
    },
    #[error(
        "{what} was made without a key (Fulcio certificate), which obgp-build cannot verify\n\
         help: cosign verify --certificate-identity … --certificate-oidc-issuer …"
    )]
    Keyless { what: &'static str },
    #[error("{what} contains no {wanted}")]
    Nothing { what: &'static str, wanted: &'static str },
    #[error("all {} in {what} were rejected: {}", .reasons.len(), list(.reasons))]
    AllRefused {
        what: &'static str,
        reasons: Vec<VerifyError>,
    },
}

/// The first few reasons.
fn list(reasons: &[VerifyError]) -> String {
    const SHOWN: usize = 4;
    let numbered = reasons.iter().take(SHOWN).enumerate();
    let mut text: Vec<String> = numbered.map(|(i, r)| format!("({}) {r}", i + 1)).collect();
    if reasons.len() > SHOWN {
        text.push(format!("and {} more", reasons.len() - SHOWN));
    }
    text.join("; ")
}
