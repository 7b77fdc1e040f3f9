//! Feeds arbitrary input to the parsers of signatures and keys: they never panic, and accept only signed content.

use std::sync::LazyLock;

use obgp_build::oci::{Artifact, Content, Place};
use obgp_build::sign::{
    Key, KeySource, Password, PublicKey, attest_bundle, attest_tag, bundle, simple_signing, verify_attestation_bundle,
    verify_attestation_tag, verify_bundle, verify_simple_signing,
};
use oci_spec::image::Descriptor;
use proptest::prelude::*;

use super::registry::content;
use super::{SLSA, new_key, some_subject, statement};

struct Good {
    key: Key,
    subject: Descriptor,
    samples: [Artifact; 4],
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let (key, subject) = (new_key(), some_subject());
    let samples = samples(&key, &subject);
    Good { key, subject, samples }
});

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn accepted_by_any(artifact: &Artifact, key: &PublicKey, subject: &Descriptor) -> bool {
    let digest = subject.digest();
    let results = [
        verify_simple_signing(artifact, key, digest, None).is_ok(),
        verify_bundle(artifact, key, subject).is_ok(),
        verify_attestation_bundle(artifact, key, subject).is_ok(),
        verify_attestation_tag(artifact, key, digest).is_ok(),
    ];
    results.contains(&true)
}

fn artifact(manifest: Vec<u8>, blobs: Vec<Content>) -> Artifact {
    Artifact {
        manifest: content(MANIFEST, manifest),
        blobs,
        place: Place::Referrer,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_bytes_are_rejected(manifest in prop::collection::vec(any::<u8>(), 0..300), blob in prop::collection::vec(any::<u8>(), 0..300)) {
        let Good { key, subject, samples } = &*GOOD;
        let bytes = artifact(manifest, vec![content("a/b", blob.clone())]);
        prop_assert!(!accepted_by_any(&bytes, key.public(), subject));
        // The same bytes as the blob of a good manifest.
        for good in samples {
            let old = &good.blobs[0].descriptor;
            let new = content(old.media_type().as_ref(), blob.clone());
            let manifest = String::from_utf8(good.manifest.bytes.to_vec()).unwrap();
            let manifest = manifest
                .replace(old.digest().as_ref(), new.descriptor.digest().as_ref())
                .replace(&format!("\"size\":{}", old.size()), &format!("\"size\":{}", blob.len()));
            let changed = artifact(manifest.into_bytes(), vec![new, good.blobs[1].clone()]);
            prop_assert!(!accepted_by_any(&changed, key.public(), subject));
        }
    }

    #[test]
    fn spliced_documents_do_not_panic(at in 0_usize..2000, length in 0_usize..40, insert in ".{0,20}") {
        let Good { key, subject, samples } = &*GOOD;
        for good in samples {
            let text = String::from_utf8(good.manifest.bytes.to_vec()).unwrap();
            let from = at % text.len();
            let to = (from + length).min(text.len());
            let changed = format!("{}{insert}{}", &text[..from], &text[to..]);
            let _ = accepted_by_any(&artifact(changed.into_bytes(), good.blobs.clone()), key.public(), subject);
            let signed = String::from_utf8(good.blobs[0].bytes.to_vec()).unwrap();
            let from = at % signed.len();
            let to = (from + length).min(signed.len());
            let changed = format!("{}{insert}{}", &signed[..from], &signed[to..]);
            let old = &good.blobs[0].descriptor;
            let new = content(old.media_type().as_ref(), changed);
            let manifest = text
                .replace(old.digest().as_ref(), new.descriptor.digest().as_ref())
                .replace(&format!("\"size\":{}", old.size()), &format!("\"size\":{}", new.bytes.len()));
            let _ = accepted_by_any(&artifact(manifest.into_bytes(), vec![new, good.blobs[1].clone()]), key.public(), subject);
        }
    }

    #[test]
    fn an_arbitrary_existing_manifest_is_rejected(existing in prop::collection::vec(any::<u8>(), 0..300)) {
        let Good { key, subject, .. } = &*GOOD;
        prop_assert!(simple_signing(key, "a/b", subject.digest(), Some(&existing)).is_err());
    }

    #[test]
    fn arbitrary_key_files_are_rejected(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let password = Password::new(b"secret".to_vec());
        let _ = (Key::from_pem(&bytes, None).is_err(), PublicKey::from_pem(&bytes).is_err());
        for label in [
            "PRIVATE KEY",
            "EC PRIVATE KEY",
            "ENCRYPTED PRIVATE KEY",
            "ENCRYPTED SIGSTORE PRIVATE KEY",
            "PUBLIC KEY",
        ] {
            let pem = pkcs8::der::pem::encode_string(label, pkcs8::LineEnding::LF, &bytes).unwrap();
            prop_assert!(Key::from_pem(pem.as_bytes(), Some(&password)).is_err());
            prop_assert!(PublicKey::from_pem(pem.as_bytes()).is_err());
        }
    }

    /// The URIs lack a module path, because the alphabet lacks `/`.
    #[test]
    fn an_incomplete_token_uri_is_rejected(text in "(token=|pin-value=|id=%|[;?&=%0-9a-z]){0,12}") {
        let source: KeySource = format!("pkcs11:{text}").parse().unwrap();
        let (key, public) = (Key::load(&source, None).err().unwrap(), PublicKey::load(&source).err().unwrap());
        prop_assert_eq!(key.to_string(), public.to_string());
    }
}

fn samples(key: &Key, subject: &Descriptor) -> [Artifact; 4] {
    let digest = subject.digest();
    let statement = statement(digest);
    [
        simple_signing(key, "example.org/image", digest, None).unwrap(),
        bundle(key, subject).unwrap(),
        attest_tag(key, &statement, SLSA, digest, None).unwrap(),
        attest_bundle(key, &statement, SLSA, subject).unwrap(),
    ]
}

#[test]
fn an_oversized_manifest_is_rejected() {
    use obgp_build::sign::{MANIFEST_LIMIT, VerifyError};
    let (key, subject) = (new_key(), some_subject());
    let large = vec![b' '; usize::try_from(MANIFEST_LIMIT).unwrap() + 1];
    let refused = verify_bundle(&artifact(large.clone(), Vec::new()), key.public(), &subject).unwrap_err();
    assert!(matches!(refused, VerifyError::TooLarge { .. }), "{refused}");
    let refused = simple_signing(&key, "a/b", subject.digest(), Some(&large)).unwrap_err();
    assert!(refused.to_string().contains("exceed the limit"), "{refused}");
}

#[test]
fn a_statement_about_another_subject_is_not_signed() {
    let (key, subject) = (new_key(), some_subject());
    let other = content(MANIFEST, "another").descriptor;
    for error in [
        attest_bundle(&key, &statement(other.digest()), SLSA, &subject).unwrap_err(),
        attest_bundle(
            &key,
            &statement(subject.digest()),
            "https://example.org/other",
            &subject,
        )
        .unwrap_err(),
        attest_tag(&key, b"{}", SLSA, subject.digest(), None).unwrap_err(),
    ] {
        assert!(
            error.to_string().contains("signing the statement as an attestation"),
            "{error}"
        );
    }
}
