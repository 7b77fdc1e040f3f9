//! Changes single bytes of artifacts, with and without adjusted digests. A change is rejected, or it is in one of the
//! few places that no signature covers, and then the verified claim stays the same.

use std::ops::Range;

use obgp_build::oci::{Artifact, Content, Place};
use obgp_build::sign::{
    Key, PublicKey, VerifyError, attest_bundle, attest_tag, attestation_tag, bundle, signature_tag, simple_signing,
    verify_attestation_bundle, verify_attestation_tag, verify_bundle, verify_simple_signing,
};
use oci_spec::image::Descriptor;

use super::registry::{Distribution, content};
use super::support::cosign::both;
use super::{SLSA, cosign_key, new_key, provenance, public_key, some_subject, statement};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Signature,
    SignatureBundle,
    Attestation,
    AttestationBundle,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::Signature,
        Self::SignatureBundle,
        Self::Attestation,
        Self::AttestationBundle,
    ];

    fn make(self, key: &Key, repository: &str, subject: &Descriptor) -> Artifact {
        let digest = subject.digest();
        match self {
            Self::Signature => simple_signing(key, repository, digest, None),
            Self::SignatureBundle => bundle(key, subject),
            Self::Attestation => attest_tag(key, &statement(digest), SLSA, digest, None),
            Self::AttestationBundle => attest_bundle(key, &statement(digest), SLSA, subject),
        }
        .unwrap()
    }

    /// Returns the verified claim as text.
    fn verify(self, artifact: &Artifact, key: &PublicKey, subject: &Descriptor) -> Result<String, VerifyError> {
        let digest = subject.digest();
        Ok(match self {
            Self::Signature => format!("{:?}", verify_simple_signing(artifact, key, digest, None)?),
            Self::SignatureBundle => format!("{:?}", verify_bundle(artifact, key, subject)?),
            Self::Attestation => format!("{:?}", verify_attestation_tag(artifact, key, digest)?),
            Self::AttestationBundle => format!("{:?}", verify_attestation_bundle(artifact, key, subject)?),
        })
    }

    /// Ranges of the manifest that no signature covers and no reader uses.
    fn unsigned(self, manifest: &str) -> Vec<Range<usize>> {
        let found = |start: &str, end: &str| {
            let at = manifest.find(start)?;
            Some(at..at + start.len() + manifest[at + start.len()..].find(end)? + end.len())
        };
        match self {
            Self::Signature | Self::Attestation => vec![found("\"config\":{", "}").unwrap()],
            // cosign adds a field to the config descriptor and a creation time; obgp-build adds neither.
            Self::SignatureBundle | Self::AttestationBundle => {
                let config = found("\"config\":{", "}").unwrap();
                let addition = found("\"artifactType\":\"", "\"").filter(|range| config.contains(&range.start));
                let time = found("\"org.opencontainers.image.created\":\"", "\"");
                [addition, time].into_iter().flatten().collect()
            }
        }
    }
}

fn with_blob(artifact: &Artifact, at: usize, blob: Content) -> Artifact {
    let mut changed = artifact.clone();
    changed.blobs[at] = blob;
    changed
}

/// Replaces a blob, and its digest in the manifest.
fn with_bytes(artifact: &Artifact, at: usize, bytes: Vec<u8>) -> Artifact {
    let old = &artifact.blobs[at].descriptor;
    let blob = content(old.media_type().as_ref(), bytes);
    let manifest = String::from_utf8(artifact.manifest.bytes.to_vec()).unwrap();
    let manifest = manifest.replace(old.digest().as_ref(), blob.descriptor.digest().as_ref());
    let mut changed = with_blob(artifact, at, blob);
    changed.manifest = content(artifact.manifest.descriptor.media_type().as_ref(), manifest);
    changed
}

fn flipped(bytes: &[u8], at: usize, mask: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= mask;
    bytes
}

fn change_every_byte(kind: Kind, artifact: &Artifact, key: &PublicKey, subject: &Descriptor) {
    let claim = kind.verify(artifact, key, subject).unwrap();
    let check = |changed: &Artifact, unsigned: bool, place: String| match kind.verify(changed, key, subject) {
        Err(_) => {}
        Ok(found) => assert!(unsigned && found == claim, "{kind:?}: a change of {place} is accepted"),
    };
    // A registry changes the content that it serves.
    for at in 0..artifact.manifest.bytes.len() {
        let mut changed = artifact.clone();
        changed.manifest.bytes = flipped(&artifact.manifest.bytes, at, 1).into();
        let error = kind.verify(&changed, key, subject).unwrap_err();
        assert!(matches!(error, VerifyError::Damaged { .. }), "{error}");
    }
    for (number, blob) in artifact.blobs.iter().enumerate() {
        for at in 0..blob.bytes.len() {
            let mut damaged = blob.clone();
            damaged.bytes = flipped(&blob.bytes, at, 1).into();
            let error = kind
                .verify(&with_blob(artifact, number, damaged), key, subject)
                .unwrap_err();
            assert!(matches!(error, VerifyError::Damaged { .. }), "{error}");
        }
    }
    // An attacker with write access adjusts the digests.
    let manifest = std::str::from_utf8(&artifact.manifest.bytes).unwrap();
    let unsigned = kind.unsigned(manifest);
    let config_named = |blob: &Content| {
        let parsed: oci_spec::image::ImageManifest = serde_json::from_str(manifest).unwrap();
        parsed.config().digest() == blob.descriptor.digest()
    };
    for mask in [0x01, 0x20] {
        for at in 0..manifest.len() {
            let mut changed = artifact.clone();
            let media_type = artifact.manifest.descriptor.media_type().as_ref();
            changed.manifest = content(media_type, flipped(manifest.as_bytes(), at, mask));
            let unsigned = unsigned.iter().any(|range| range.contains(&at));
            check(&changed, unsigned, format!("byte {at} of {manifest}"));
        }
        for (number, blob) in artifact.blobs.iter().enumerate() {
            // The configuration of cosign 2's signature manifests is unused.
            let unsigned = config_named(blob) && matches!(artifact.place, Place::Tag(_));
            for at in 0..blob.bytes.len() {
                let changed = with_bytes(artifact, number, flipped(&blob.bytes, at, mask));
                check(&changed, unsigned, format!("byte {at} of {:?}", blob.bytes));
            }
        }
    }
}

#[test]
fn a_change_of_any_byte_of_our_artifacts_is_rejected() {
    let (key, subject) = (new_key(), some_subject());
    for kind in Kind::ALL {
        change_every_byte(
            kind,
            &kind.make(&key, "example.org/image", &subject),
            key.public(),
            &subject,
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_any_byte_of_cosigns_artifacts_is_rejected() {
    let (Some([two, three]), Some(registry)) = (both(), Distribution::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (key, public) = two.key_pair(dir.path(), "a");
    let public = public_key(&public);
    let image = registry.put_image("theirs/changed").await;
    let (repository, subject) = (image.repository.as_str(), &image.platforms[0]);
    let reference = image.reference(subject);
    for cosign in [&two, &three] {
        cosign.sign(&key, &reference);
        cosign.attest(&key, "slsaprovenance1", &provenance().to_string(), &reference, &[]);
    }
    let digest = subject.digest();
    let signature = registry.tagged(repository, &signature_tag(digest).unwrap()).await;
    change_every_byte(Kind::Signature, &signature, &public, subject);
    let attestation = registry.tagged(repository, &attestation_tag(digest).unwrap()).await;
    change_every_byte(Kind::Attestation, &attestation, &public, subject);
    let referrers = registry.referrers(repository, subject).await;
    assert_eq!(referrers.len(), 2);
    for (_, referrer) in referrers {
        let kind = match verify_bundle(&referrer, &public, subject) {
            Ok(_) => Kind::SignatureBundle,
            Err(_) => Kind::AttestationBundle,
        };
        change_every_byte(kind, &referrer, &public, subject);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cosign_and_verify_reject_the_same_changes() {
    let (Some(cosigns), Some(registry)) = (both(), Distribution::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (key, public) = cosigns[0].key_pair(dir.path(), "a");
    let key = cosign_key(&key);
    for kind in Kind::ALL {
        let readers = match kind {
            Kind::Signature | Kind::Attestation => &cosigns[..],
            Kind::SignatureBundle | Kind::AttestationBundle => &cosigns[1..],
        };
        let subject = registry.put_image("changed/good").await.index;
        let good = kind.make(&key, "example.org/image", &subject);
        let text = String::from_utf8(good.blobs[0].bytes.to_vec()).unwrap();
        // A flipped bit in base64 text changes a byte of the decoded data.
        let mut changes = match kind {
            Kind::Signature => vec![("digest", flipped_at(&good, &text, "sha256:", 10, 1))],
            _ => vec![
                ("payload", flipped_at(&good, &text, "\"payload\":\"", 40, 1)),
                ("envelope's signature", flipped_at(&good, &text, "\"sig\":\"", 30, 1)),
                ("payload type", flipped_at(&good, &text, "in-toto", 1, 1)),
            ],
        };
        if kind == Kind::Signature {
            let manifest = String::from_utf8(good.manifest.bytes.to_vec()).unwrap();
            let at = manifest.find("cosign/signature\":\"").unwrap() + 50;
            let mut changed = good.clone();
            let media_type = good.manifest.descriptor.media_type().as_ref();
            changed.manifest = content(media_type, flipped(manifest.as_bytes(), at, 1));
            changes.push(("signature", changed));
        }
        changes.push(("nothing", good));
        for (number, (what, artifact)) in changes.into_iter().enumerate() {
            let name = format!("changed/{}-{number}", format!("{kind:?}").to_lowercase());
            let image = registry.put_image(&name).await;
            registry.put_artifact(&image.repository, &subject, &artifact).await;
            let ours = kind.verify(&artifact, key.public(), &subject);
            assert_eq!(
                ours.is_ok(),
                what == "nothing",
                "{kind:?} with {what} changed: {ours:?}"
            );
            for cosign in readers {
                let reference = image.reference(&subject);
                let theirs = match kind {
                    Kind::Signature | Kind::SignatureBundle => cosign.verify(&public, &reference),
                    _ => cosign.verify_attestation(&public, "slsaprovenance1", &reference),
                };
                assert_eq!(
                    theirs.is_ok(),
                    what == "nothing",
                    "{kind:?} with {what} changed: {theirs:?}"
                );
            }
        }
    }
}

/// Flips bits of the first blob at an offset after a marker, and adjusts the digests.
fn flipped_at(good: &Artifact, text: &str, marker: &str, offset: usize, mask: u8) -> Artifact {
    let at = text.find(marker).unwrap() + marker.len() + offset;
    with_bytes(good, 0, flipped(text.as_bytes(), at, mask))
}
