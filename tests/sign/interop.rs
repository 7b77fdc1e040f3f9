//! Tests interoperability with cosign 2 and 3 through a real registry, in both directions.

use obgp_build::sign::{
    SIGNATURE_PREDICATE, VerifyError, attest_bundle, attest_tag, attestation_tag, bundle, may_be_bundle, signature_tag,
    simple_signing, verify_attestation_bundle, verify_attestation_tag, verify_bundle, verify_simple_signing,
};

use super::registry::{Distribution, TestImage};
use super::support::cosign::{Cosign, Series, both};
use super::{SLSA, cosign_key, new_key, provenance, public_key, statement};

#[tokio::test(flavor = "multi_thread")]
async fn both_cosigns_accept_our_signature_tag() {
    let (Some(cosigns), Some(registry)) = (both(), Distribution::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let image = registry.put_image("ours/tag").await;
    let (key, public) = cosigns[0].key_pair(dir.path(), "a");
    let (_, other) = cosigns[1].key_pair(dir.path(), "b");
    let key = cosign_key(&key);
    for subject in image.all() {
        let artifact = simple_signing(&key, &image.repository, subject.digest(), None).unwrap();
        let again = simple_signing(&key, &image.repository, subject.digest(), None).unwrap();
        assert_eq!(
            artifact.manifest.bytes, again.manifest.bytes,
            "the same key gives the same bytes"
        );
        registry.put_artifact(&image.repository, subject, &artifact).await;
        for cosign in &cosigns {
            let accepted = cosign.verify(&public, &image.reference(subject)).unwrap();
            assert!(accepted.contains(subject.digest().as_ref()), "{accepted}");
            cosign.verify(&other, &image.reference(subject)).unwrap_err();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cosign_3_accepts_our_bundle() {
    let (Some(cosign), Some(registry)) = (Cosign::get(Series::Three), Distribution::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let image = registry.put_image("ours/bundle").await;
    let (key, public) = cosign.key_pair(dir.path(), "a");
    let (_, other) = cosign.key_pair(dir.path(), "b");
    let key = cosign_key(&key);
    for subject in image.all() {
        let artifact = bundle(&key, subject).unwrap();
        assert_eq!(artifact.manifest.bytes, bundle(&key, subject).unwrap().manifest.bytes);
        registry.put_artifact(&image.repository, subject, &artifact).await;
        let accepted = cosign.verify(&public, &image.reference(subject)).unwrap();
        assert!(accepted.contains(SIGNATURE_PREDICATE), "{accepted}");
        cosign.verify(&other, &image.reference(subject)).unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_cosigns_accept_our_attestations() {
    let (Some(cosigns), Some(registry)) = (both(), Distribution::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (key, public) = cosigns[1].key_pair(dir.path(), "a");
    let (_, other) = cosigns[0].key_pair(dir.path(), "b");
    let key = cosign_key(&key);
    let check = |cosign: &Cosign, image: &TestImage, subject| {
        let reference = image.reference(subject);
        let envelope = cosign
            .verify_attestation(&public, "slsaprovenance1", &reference)
            .unwrap();
        assert!(envelope.contains("application/vnd.in-toto+json"), "{envelope}");
        cosign.verify_attestation(&public, "cyclonedx", &reference).unwrap_err();
        cosign
            .verify_attestation(&other, "slsaprovenance1", &reference)
            .unwrap_err();
    };
    let tagged = registry.put_image("ours/att").await;
    for subject in tagged.all() {
        let statement = statement(subject.digest());
        let artifact = attest_tag(&key, &statement, SLSA, subject.digest(), None).unwrap();
        registry.put_artifact(&tagged.repository, subject, &artifact).await;
        for cosign in &cosigns {
            check(cosign, &tagged, subject);
        }
    }
    let referring = registry.put_image("ours/attestation-bundle").await;
    for subject in referring.all() {
        let artifact = attest_bundle(&key, &statement(subject.digest()), SLSA, subject).unwrap();
        registry.put_artifact(&referring.repository, subject, &artifact).await;
        check(&cosigns[1], &referring, subject);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we_accept_signatures_of_both_cosigns() {
    let (Some([two, three]), Some(registry)) = (both(), Distribution::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let image = registry.put_image("theirs/signed").await;
    let repository = image.repository.as_str();
    let (key, public) = two.key_pair(dir.path(), "a");
    let public = public_key(&public);
    two.sign(&key, &image.reference(&image.index));
    three.sign(&key, &image.reference(&image.index));
    for subject in image.all() {
        let digest = subject.digest();
        let tag = registry.tagged(repository, &signature_tag(digest).unwrap()).await;
        let signatures = verify_simple_signing(&tag, &public, digest, Some(repository)).unwrap();
        assert_eq!(signatures.len(), 1);
        assert_eq!(signatures[0].repository, repository);
        let referrers = registry.referrers(repository, subject).await;
        let [(entry, referrer)] = referrers.as_slice() else {
            panic!("one bundle, not {referrers:?}");
        };
        assert!(may_be_bundle(entry), "{entry:?}");
        let statement = verify_bundle(referrer, &public, subject).unwrap();
        assert_eq!(statement.predicate_type, SIGNATURE_PREDICATE);

        // Other keys, repositories, types and subjects are rejected.
        let stranger = new_key();
        let error = verify_simple_signing(&tag, stranger.public(), digest, None).unwrap_err();
        assert!(matches!(error, VerifyError::BadSignature { .. }), "{error}");
        let error = verify_simple_signing(&tag, &public, digest, Some("127.0.0.1:1/other")).unwrap_err();
        assert!(matches!(error, VerifyError::OtherRepository { .. }), "{error}");
        let error = verify_bundle(referrer, stranger.public(), subject).unwrap_err();
        assert!(matches!(error, VerifyError::WrongKey { .. }), "{error}");
        let error = verify_attestation_bundle(referrer, &public, subject).unwrap_err();
        assert!(matches!(error, VerifyError::OtherType { .. }), "{error}");
        for other in image.all().filter(|other| *other != subject) {
            let error = verify_simple_signing(&tag, &public, other.digest(), None).unwrap_err();
            assert!(matches!(error, VerifyError::OtherDigest { .. }), "{error}");
            let error = verify_bundle(referrer, &public, other).unwrap_err();
            assert!(matches!(error, VerifyError::OtherDigest { .. }), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we_accept_attestations_of_both_cosigns() {
    let (Some([two, three]), Some(registry)) = (both(), Distribution::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let image = registry.put_image("theirs/attested").await;
    let (repository, subject) = (image.repository.as_str(), &image.platforms[0]);
    let reference = image.reference(subject);
    let (key, public) = three.key_pair(dir.path(), "a");
    let public = public_key(&public);
    let predicate = provenance().to_string();
    two.attest(&key, "slsaprovenance1", &predicate, &reference, &[]);
    two.attest(&key, "https://example.org/other", "{}", &reference, &[]);
    two.attest(
        &key,
        "slsaprovenance1",
        &predicate,
        &reference,
        &["--new-bundle-format"],
    );
    three.attest(&key, "slsaprovenance1", &predicate, &reference, &[]);

    let tag = registry
        .tagged(repository, &attestation_tag(subject.digest()).unwrap())
        .await;
    let statements = verify_attestation_tag(&tag, &public, subject.digest()).unwrap();
    let types: Vec<_> = statements.iter().map(|s| s.predicate_type.as_str()).collect();
    assert_eq!(types, [SLSA, "https://example.org/other"]);
    let read: serde_json::Value = statements[0].predicate().unwrap();
    assert_eq!(read["runDetails"]["builder"]["id"], "https://example.org/builder");

    let referrers = registry.referrers(repository, subject).await;
    assert_eq!(referrers.len(), 2);
    let stranger = new_key();
    for (_, referrer) in &referrers {
        let statement = verify_attestation_bundle(referrer, &public, subject).unwrap();
        assert_eq!(statement.predicate_type, SLSA);
        let error = verify_attestation_bundle(referrer, stranger.public(), subject).unwrap_err();
        assert!(matches!(error, VerifyError::WrongKey { .. }), "{error}");
        // cosign 3 accepts any bundle of the key as a signature; obgp-build does not.
        let error = verify_bundle(referrer, &public, subject).unwrap_err();
        assert!(matches!(error, VerifyError::OtherType { .. }), "{error}");
    }
    let error = verify_attestation_tag(&tag, stranger.public(), subject.digest()).unwrap_err();
    assert!(
        matches!(&error, VerifyError::AllRefused { reasons, .. } if reasons.len() == 2),
        "{error}"
    );
    let other = image.index.digest();
    let error = verify_attestation_tag(&tag, &public, other).unwrap_err();
    assert!(error.to_string().contains("not for"), "{error}");
}

/// Signatures of cosign and of obgp-build share a tag.
#[tokio::test(flavor = "multi_thread")]
async fn signing_again_adds_no_duplicate() {
    let (Some([two, three]), Some(registry)) = (both(), Distribution::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let image = registry.put_image("ours/added").await;
    let (repository, subject) = (image.repository.as_str(), &image.index);
    let tag = signature_tag(subject.digest()).unwrap();
    let (first, first_public) = two.key_pair(dir.path(), "first");
    let (second, second_public) = two.key_pair(dir.path(), "second");
    let (third, third_public) = two.key_pair(dir.path(), "third");
    two.sign(&first, &image.reference(subject));

    // The key has already signed with cosign, so the manifest does not change.
    let theirs = registry.manifest(repository, &tag).await.unwrap();
    let sign = |key, existing: &bytes::Bytes| {
        simple_signing(&cosign_key(key), repository, subject.digest(), Some(existing)).unwrap()
    };
    assert_eq!(sign(&first, &theirs.bytes).manifest.bytes, theirs.bytes);

    let added = sign(&second, &theirs.bytes);
    assert_ne!(added.manifest.bytes, theirs.bytes);
    registry.put_artifact(repository, subject, &added).await;
    two.sign(&third, &image.reference(subject));
    let all = registry.manifest(repository, &tag).await.unwrap();
    for key in [&first, &second, &third] {
        assert_eq!(
            sign(key, &all.bytes).manifest.bytes,
            all.bytes,
            "the tag has all three signatures"
        );
    }
    let fetched = registry.tagged(repository, &tag).await;
    for public in [&first_public, &second_public, &third_public] {
        for cosign in [&two, &three] {
            cosign.verify(public, &image.reference(subject)).unwrap();
        }
        let signatures = verify_simple_signing(&fetched, &public_key(public), subject.digest(), None).unwrap();
        assert_eq!(signatures.len(), 1);
    }

    // Attestations behave the same.
    let tag = attestation_tag(subject.digest()).unwrap();
    two.attest(
        &first,
        "https://example.org/other",
        "{}",
        &image.reference(subject),
        &[],
    );
    let theirs = registry.manifest(repository, &tag).await.unwrap();
    let statement = statement(subject.digest());
    let attest = |existing: &bytes::Bytes| {
        attest_tag(&cosign_key(&first), &statement, SLSA, subject.digest(), Some(existing)).unwrap()
    };
    let added = attest(&theirs.bytes);
    assert_eq!(attest(&added.manifest.bytes).manifest.bytes, added.manifest.bytes);
    registry.put_artifact(repository, subject, &added).await;
    for cosign in [&two, &three] {
        for kind in ["slsaprovenance1", "https://example.org/other"] {
            cosign
                .verify_attestation(&first_public, kind, &image.reference(subject))
                .unwrap();
        }
    }
}
