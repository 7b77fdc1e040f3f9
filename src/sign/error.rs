//! Why a key is not usable, nothing can be signed, or a signature is not accepted.

use oci_spec::image::Digest;

use super::pkcs11::TokenProblem;

/// A key that cannot be used, with where it was to come from. No message holds any of its content.
#[derive(Debug, thiserror::Error)]
#[error("the key {from}: {problem}")]
pub struct KeyError {
    pub from: String,
    #[source]
    pub problem: KeyProblem,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    #[error("cannot read it: {0}")]
    Read(String),
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    #[error("it is longer than {0} bytes: this is no key")]
    TooLarge(u64),
    #[error("it is not a PEM document ({0}): a file that starts with \"-----BEGIN\" is wanted")]
    NotPem(String),
    #[error("it is a {found}, a {wanted} is wanted")]
    WrongKind { found: String, wanted: &'static str },
    #[error("{what} not supported: {instead}")]
    Unsupported { what: String, instead: &'static str },
    #[error("it is encrypted: set COSIGN_PASSWORD to its password")]
    NoPassword,
    #[error("it cannot be decrypted with the password in COSIGN_PASSWORD: another password, or a damaged file")]
    WrongPassword,
    #[error("it is damaged: {0}")]
    Malformed(String),
    #[error(transparent)]
    Token(#[from] TokenProblem),
}

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("cannot sign {digest} with the key: {problem}")]
    Key {
        digest: Digest,
        #[source]
        problem: KeyProblem,
    },
    #[error("cannot sign {0}: only SHA-256 digests can be signed")]
    NotSha256(Digest),
    #[error(
        "cannot add to {tag}, which is in the registry: {reason}. \
         Remove that tag if nobody needs the signatures it holds"
    )]
    Existing { tag: String, reason: String },
    #[error("the statement is not to be signed as an attestation of {subject}: {reason}")]
    Statement { subject: Digest, reason: String },
    #[error("cannot write {what}: {reason}")]
    Write { what: &'static str, reason: String },
}

/// Why something is not accepted. `what` names the document, as `the signature's payload`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("{what} was changed: it should be {expected}, its content is {found}")]
    Damaged {
        what: &'static str,
        expected: Digest,
        found: Digest,
    },
    #[error("{what} has {found} bytes where {expected} were announced")]
    Size {
        what: &'static str,
        expected: u64,
        found: u64,
    },
    #[error("{what} has {size} bytes, over the limit of {limit}")]
    TooLarge { what: &'static str, size: u64, limit: u64 },
    #[error("{what} ({digest}) is missing")]
    Missing { what: &'static str, digest: Digest },
    #[error("{what} is not what it should be: {reason}")]
    Malformed { what: &'static str, reason: String },
    #[error("{what} was made with another key: it names the key {signed_by}, given was {given}")]
    WrongKey {
        what: &'static str,
        signed_by: String,
        given: String,
    },
    #[error("{what} does not fit the key {given}: it was made with another key, or what is signed was changed")]
    BadSignature { what: &'static str, given: String },
    #[error("{what} is good, but for {signed}, not for {expected}")]
    OtherDigest {
        what: &'static str,
        signed: String,
        expected: Digest,
    },
    #[error("{what} is good, but for the repository {signed}, not for {expected}")]
    OtherRepository {
        what: &'static str,
        signed: String,
        expected: String,
    },
    #[error("{what} says {found} where {expected} is wanted")]
    OtherType {
        what: &'static str,
        found: String,
        expected: String,
    },
    #[error(
        "{what} was made without a key (Fulcio certificate), which cannot be checked here: \
         use `cosign verify --certificate-identity … --certificate-oidc-issuer …`"
    )]
    Keyless { what: &'static str },
    #[error("{what} holds no {wanted}")]
    Nothing { what: &'static str, wanted: &'static str },
    #[error("none of {} in {what} is accepted: {}", .reasons.len(), list(.reasons))]
    AllRefused {
        what: &'static str,
        reasons: Vec<VerifyError>,
    },
}

/// As many reasons as a person reads.
fn list(reasons: &[VerifyError]) -> String {
    const SHOWN: usize = 4;
    let numbered = reasons.iter().take(SHOWN).enumerate();
    let mut text: Vec<String> = numbered.map(|(i, r)| format!("({}) {r}", i + 1)).collect();
    if reasons.len() > SHOWN {
        text.push(format!("and {} more", reasons.len() - SHOWN));
    }
    text.join("; ")
}
