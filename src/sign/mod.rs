//! Signs and verifies images in cosign's formats. A key and a manifest's digest become artifacts that accompany the
//! image in a registry; fetched artifacts become verified claims. Only [`authenticate`] contacts a registry.
//!
//! | module | found as | contains | verified by `cosign verify` |
//! |---|---|---|---|
//! | [`simple_signing`] | tag `sha256-<hex>.sig` | simple-signing payloads | 2 and 3 |
//! | [`bundle()`] | referrer | Sigstore bundle v0.3 around a DSSE envelope | 3 |
//! | [`attest_tag`] | tag `sha256-<hex>.att` | DSSE envelopes around in-toto statements | 2 and 3 (`verify-attestation`) |
//! | [`attest_bundle`] | referrer | Sigstore bundle v0.3 around a DSSE envelope | 3 (`verify-attestation`) |
//!
//! The same key and content always give the same bytes (RFC 6979 nonces, no times), so a second push finds its
//! artifacts present. A token (PKCS#11) chooses its own nonces, so signing again adds a signature, as with cosign.
//!
//! Formats: cosign `specs/SIGNATURE_SPEC.md` and `specs/BUNDLE_SPEC.md`, <https://github.com/secure-systems-lab/dsse>,
//! <https://github.com/sigstore/protobuf-specs> (`sigstore_bundle.proto`), <https://github.com/in-toto/attestation>.
//!
//! # Dependencies and limits
//!
//! RustCrypto's `p256`, `pkcs8` and `scrypt`. Default builds exclude the Sigstore crates: `sigstore` 0.15 takes its
//! cryptography from aws-lc or OpenSSL (this program uses rustls with ring), and the `sigstore-*` family 0.15 adds
//! second versions of crates; only the feature `keyless` uses `sigstore-sign`. NaCl's secretbox is implemented on
//! `salsa20` and `poly1305` (see `secretbox`), because its own crate has no release for the current traits. `cryptoki`
//! loads the modules of tokens.
//!
//! - Keys are ECDSA P-256, as from `cosign generate-key-pair`. cosign 3.1 cannot verify its own bundles with Ed25519 or
//!   P-384 keys, so such keys are rejected with that reason.
//! - Keyless signing (Fulcio, Rekor) needs the feature `keyless`; cosign verifies it. Keyless signatures are recognised
//!   and rejected with that reason. Transparency log entries in a bundle are accepted and not checked.
//! - A token that requires its PIN for every signature (`CKA_ALWAYS_AUTHENTICATE`) is rejected: `cryptoki` signs in one
//!   step and has no place for the PIN.
//! - No KMS: such key names are rejected with an alternative.
//! - A signature does not cover a manifest's annotations or a `.sig` manifest's config. Only digests protect them: pass
//!   [`Artifact`]s with the requested descriptors; every byte is compared with them.
//!
//! [`Artifact`]: crate::oci::Artifact

mod artifacts;
mod attest;
pub(crate) mod authenticate;
mod bundle;
mod cosign_commands;
mod cosign_key;
mod dsse;
mod error;
mod key;
#[cfg(feature = "keyless")]
mod keyless;
mod manifest;
mod pem;
mod pending;
mod pkcs11;
mod secretbox;
mod signer;
mod simple;
mod source;
mod tag;

pub use artifacts::{Attestation, artifacts, attestations, signatures};
pub use attest::{attest_bundle, attest_tag, verify_attestation_bundle, verify_attestation_tag};
pub use bundle::{bundle, may_be_bundle, verify_bundle};
pub use cosign_commands::CosignCommands;
pub use dsse::Statement;
pub use error::{KeyError, KeyProblem, SignError, VerifyError};
pub use key::{Key, PublicKey};
#[cfg(feature = "keyless")]
pub use keyless::{Keyless, KeylessError};
pub use pending::PendingKey;
pub use pkcs11::{TokenProblem, TokenUri};
pub use signer::Signer;
pub use simple::{SimpleSignature, simple_signing, verify_simple_signing};
pub use source::{KeySource, Password};
pub use tag::{attestation_tag, signature_tag};

/// Upper limits. Longer manifests, and further layers, are not read.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
pub const LAYERS_LIMIT: usize = 1000;
/// A simple-signing payload.
pub const PAYLOAD_LIMIT: u64 = 64 << 10;
/// An envelope or bundle: its statement may contain the SBOM of a whole image.
pub const ENVELOPE_LIMIT: u64 = 64 << 20;

/// The type of a Sigstore bundle, as layer and as artifact.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The predicate type of a signature, as opposed to an attestation.
pub const SIGNATURE_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
