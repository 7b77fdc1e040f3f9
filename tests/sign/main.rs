//! Tests signing: cosign 2 and 3 accept our signatures, we accept theirs, and nobody accepts a changed artifact.

mod arbitrary;
mod interop;
#[cfg(feature = "keyless")]
mod keyless;
mod keys;
mod pkcs11;
mod registry;
#[path = "../support/mod.rs"]
mod support;
mod tamper;

use std::path::Path;

use obgp_build::sign::{Key, KeySource, Password, PublicKey};
use oci_spec::image::{Descriptor, Digest};
use serde_json::json;

const SLSA: &str = "https://slsa.dev/provenance/v1";

fn new_key() -> Key {
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    Key::from_pem(pem.as_bytes(), None).unwrap()
}

fn cosign_key(path: &Path) -> Key {
    let password = Password::new(support::cosign::PASSWORD.into());
    Key::load(&KeySource::File(path.into()), Some(&password)).unwrap()
}

fn public_key(path: &Path) -> PublicKey {
    PublicKey::load(&KeySource::File(path.into())).unwrap()
}

/// A predicate that cosign accepts as SLSA provenance.
fn provenance() -> serde_json::Value {
    json!({
        "buildDefinition": {
            "buildType": "https://example.org/build",
            "externalParameters": {"distro": "debian_bookworm"},
            "internalParameters": {},
            "resolvedDependencies": [],
        },
        "runDetails": {"builder": {"id": "https://example.org/builder"}, "metadata": {"invocationId": "1"}},
    })
}

fn statement(subject: &Digest) -> Vec<u8> {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "image", "digest": {"sha256": subject.digest()}}],
        "predicateType": SLSA,
        "predicate": provenance(),
    })
    .to_string()
    .into_bytes()
}

/// A descriptor to sign without a registry.
fn some_subject() -> Descriptor {
    registry::content("application/vnd.oci.image.index.v1+json", "an index").descriptor
}
