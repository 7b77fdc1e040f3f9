//! Signatures and attestations as cosign makes and checks them: a key and the digest of a manifest become the artifacts
//! that lie beside the image in a registry, and fetched artifacts become verified claims. Only [`authenticate`] reaches a registry.
//!
//! | made by | found as | holds | seen by `cosign verify` |
//! |---|---|---|---|
//! | [`simple_signing`] | tag `sha256-<hex>.sig` | simple-signing payloads | 2 and 3 |
//! | [`bundle()`] | referrer | Sigstore bundle v0.3 around a DSSE envelope | 3 |
//! | [`attest_tag`] | tag `sha256-<hex>.att` | DSSE envelopes around in-toto statements | 2 and 3 (`verify-attestation`) |
//! | [`attest_bundle`] | referrer | Sigstore bundle v0.3 around a DSSE envelope | 3 (`verify-attestation`) |
//!
//! The same key and the same content always give the same bytes (RFC 6979 nonces, no times), so what is pushed again is
//! already there. A token (PKCS#11) chooses its own nonces: what it signs again is added, as with cosign.
//!
//! Formats: cosign `specs/SIGNATURE_SPEC.md` and `specs/BUNDLE_SPEC.md`, <https://github.com/secure-systems-lab/dsse>,
//! <https://github.com/sigstore/protobuf-specs> (`sigstore_bundle.proto`), <https://github.com/in-toto/attestation>.
//!
//! # What it is built on, and what it cannot do
//!
//! RustCrypto's `p256`, `pkcs8` and `scrypt`. The crates that know Sigstore are left out of default builds: `sigstore` 0.15
//! takes its cryptography from aws-lc or OpenSSL (here it is rustls with ring), and the `sigstore-*` family 0.15 brings second
//! versions of crates that are already here; the feature `keyless` has `sigstore-sign` all the same. NaCl's secretbox is put
//! together from `salsa20` and `poly1305` (see `secretbox`): its own crate has no release on the current traits. Tokens are
//! reached with `cryptoki`, which loads their module when one is used.
//!
//! - Keys are ECDSA P-256, what `cosign generate-key-pair` makes. cosign 3.1 cannot verify its own bundles when they are
//!   made with Ed25519 or P-384 keys, so such keys are refused with that reason.
//! - Keyless signing (Fulcio, Rekor) is behind the feature `keyless`; its verification is cosign's. What was signed that way is
//!   recognised and refused with that reason. Transparency log entries in a bundle are allowed and not checked.
//! - A token that wants its PIN for every signature (`CKA_ALWAYS_AUTHENTICATE`) is refused: `cryptoki` signs in one step,
//!   with no room for it.
//! - No KMS: such key names are refused with what to do instead.
//! - What a signature does not cover (a manifest's annotations, a `.sig` manifest's configuration) is held together by
//!   digests alone: give [`Artifact`]s whose descriptors say what was asked for, every byte is compared with them.
//!
//! [`Artifact`]: crate::oci::Artifact

mod artifacts;
mod attest;
pub(crate) mod authenticate;
mod bundle;
mod cosign_key;
mod dsse;
mod error;
mod key;
#[cfg(feature = "keyless")]
mod keyless;
mod manifest;
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

/// A manifest that is longer is not read; nor are more layers.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
pub const LAYERS_LIMIT: usize = 1000;
/// A simple-signing payload.
pub const PAYLOAD_LIMIT: u64 = 64 << 10;
/// An envelope or bundle: the statement in it may hold an SBOM of a whole image.
pub const ENVELOPE_LIMIT: u64 = 64 << 20;

/// What a Sigstore bundle is called, as layer and as artifact.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The predicate of the statement that is a signature and no attestation.
pub const SIGNATURE_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
