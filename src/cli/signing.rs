//! Arguments of `sign` and `attest`.

use std::path::PathBuf;

use clap::Args;

#[cfg(feature = "keyless")]
use super::keyless::KeylessArgs;
use super::values;
use crate::sign::KeySource;

/// The key, or the identity, that signs an image in a registry.
#[derive(Debug, Args)]
pub struct SigningArgs {
    /// Sign with this key
    ///
    /// KEY is a cosign or PKCS#8 private key in PEM, as FILE or env://VAR (passphrase in COSIGN_PASSWORD), or a pkcs11:
    /// URI of a key in a token (PIN in COSIGN_PKCS11_PIN).
    #[arg(long, value_name = "KEY", alias = "sign")]
    #[cfg_attr(not(feature = "keyless"), arg(required = true))]
    #[cfg_attr(
        feature = "keyless",
        arg(required_unless_present = "keyless", conflicts_with = "keyless")
    )]
    pub key: Option<KeySource>,
    #[cfg(feature = "keyless")]
    #[command(flatten)]
    pub keyless: KeylessArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  COSIGN_PASSWORD=… obgp-build sign quay.io/team/agent@sha256:… --key cosign.key
  obgp-build sign quay.io/team/agent:7.0.0-ubuntu_noble --key env://SIGNING_KEY
  COSIGN_PKCS11_PIN=… obgp-build sign quay.io/team/agent:7.0.0-ubuntu_noble \\
      --key 'pkcs11:token=release;object=agent?module-path=/usr/lib/softhsm/libsofthsm2.so'

obgp-build signs the index and each of its manifests, for cosign 2 (tag sha256-….sig) and cosign 3
(bundle, a referrer). It does not check the contents; push and promote do. Signing again with a
key file changes nothing; signing again with a token adds a signature.

A PKCS#11 URI (RFC 7512) names a key in a token. If there are several tokens, select one with
token=, serial=, manufacturer=, model= or slot-id=; if there are several keys, with object= or
id=. Set the module (the driver) with module-path= or COSIGN_PKCS11_MODULE_PATH, the PIN with
COSIGN_PKCS11_PIN or pin-source=file:/PATH. A PIN in pin-value= is visible in the process list.")]
pub struct SignArgs {
    /// `HOST/PATH@DIGEST` or `HOST/PATH:TAG`
    #[arg(value_name = "REF")]
    pub reference: String,
    #[command(flatten)]
    pub signing: SigningArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build attest quay.io/team/agent:7.0.0-ubuntu_noble --key cosign.key
  obgp-build attest quay.io/team/agent@sha256:… --key cosign.key --predicate scan.json --type https://example.org/scan/v1

Without --predicate, obgp-build attests the SBOM of each platform, as SPDX and CycloneDX, created
from its layers. `cosign verify-attestation` verifies the attestations.")]
pub struct AttestArgs {
    /// `HOST/PATH@DIGEST` or `HOST/PATH:TAG`
    #[arg(value_name = "REF")]
    pub reference: String,
    #[command(flatten)]
    pub signing: SigningArgs,
    /// Attest the index with this predicate (JSON) instead of the SBOMs
    #[arg(long, value_name = "FILE", requires = "predicate_type", value_parser = values::existing_file)]
    pub predicate: Option<PathBuf>,
    /// Type of the predicate, a URI
    #[arg(long = "type", value_name = "URI", requires = "predicate", value_parser = values::uri)]
    pub predicate_type: Option<String>,
}
