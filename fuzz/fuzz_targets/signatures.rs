//! Verifies an arbitrary manifest and blob, separated by a NUL, with the blob's digest filled in: they are rejected, or
//! the key signed the statement about the subject. Adding a signature to them never panics.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use obgp_build::oci::{Artifact, Content, Place};
use obgp_build::sign::{
    Key, PublicKey, simple_signing, verify_attestation_bundle, verify_attestation_tag, verify_bundle,
    verify_simple_signing,
};
use oci_spec::image::{Descriptor, MediaType};
use sha2::{Digest, Sha256};

/// The prefix that makes a PKCS#8 document of a P-256 secret.
const PKCS8: &str = "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420";

/// A public test key, which signed the seeds.
static KEY: LazyLock<Key> = LazyLock::new(|| {
    let mut der = hex::decode(PKCS8).expect("hexadecimal digits");
    der.extend([7; 32]);
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        wrapped(&STANDARD.encode(der))
    );
    Key::from_pem(pem.as_bytes(), None).expect("a key")
});

fn wrapped(text: &str) -> String {
    let (first, rest) = text.split_at(64);
    format!("{first}\n{rest}")
}

fn content(media_type: MediaType, bytes: &[u8]) -> Content {
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    Content {
        descriptor: Descriptor::new(
            media_type,
            bytes.len() as u64,
            digest.parse::<oci_spec::image::Digest>().expect("a digest"),
        ),
        bytes: bytes.to_vec().into(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = (Key::from_pem(bytes, None), PublicKey::from_pem(bytes));
    let Some(at) = bytes.iter().position(|b| *b == 0) else {
        return;
    };
    let Ok(manifest) = std::str::from_utf8(&bytes[..at]) else {
        return;
    };
    let blob = content(MediaType::Other("a/b".into()), &bytes[at + 1..]);
    let subject = content(MediaType::ImageIndex, b"an index").descriptor;
    let manifest = manifest
        .replace("@BLOB", blob.descriptor.digest().as_ref())
        .replace("\"@SIZE\"", &blob.bytes.len().to_string());
    let artifact = Artifact {
        manifest: content(MediaType::ImageManifest, manifest.as_bytes()),
        blobs: vec![blob],
        place: Place::Referrer,
    };
    let (key, digest) = (KEY.public(), subject.digest());
    for signature in verify_simple_signing(&artifact, key, digest, None).unwrap_or_default() {
        assert_eq!(signature.repository, "example.org/image");
    }
    let bundles = [verify_bundle, verify_attestation_bundle].map(|verify| verify(&artifact, key, &subject).ok());
    let tagged = verify_attestation_tag(&artifact, key, digest).unwrap_or_default();
    for statement in bundles.into_iter().flatten().chain(tagged) {
        let text = std::str::from_utf8(&statement.bytes).expect("JSON");
        assert!(text.contains(digest.digest()) && text.contains(&statement.predicate_type));
    }
    if let Ok(added) = simple_signing(&KEY, "example.org/image", digest, Some(manifest.as_bytes())) {
        let again = simple_signing(&KEY, "example.org/image", digest, Some(&added.manifest.bytes));
        assert_eq!(again.expect("the manifest accepts a signature").manifest.bytes, added.manifest.bytes);
    }
});
