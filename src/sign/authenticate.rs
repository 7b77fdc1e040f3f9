//! Verifies a published image with a public key: returns the signed manifests and their attestations, or why the image
//! is not trusted.

use futures_util::future::try_join_all;
use oci_spec::image::{Descriptor, ImageManifest};
use serde::Serialize;

use crate::oci::{Artifact, Content, Place};
use crate::registry::{RegistryError, RemoteRoot, Repository};
use crate::sign::{self, PublicKey, VerifyError};

/// Upper limit of referrers that are read per manifest.
const REFERRERS: usize = 200;

/// The verified artifacts of one manifest. Its JSON is part of the user interface.
#[derive(Clone, Debug, Serialize)]
pub struct Authentic {
    pub digest: String,
    /// `simple-signing` (cosign 2) and `bundle` (cosign 3).
    pub signatures: Vec<&'static str>,
    /// Predicate types of valid attestations.
    pub attestations: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthenticityError {
    #[error("{digest} in {repository} has no signature\nhelp: obgp-build sign {repository}@{digest} --key KEY")]
    NotSigned { repository: String, digest: String },
    #[error("{digest} in {repository} has no valid signature by this key: {}", reasons.join("; "))]
    NotByThisKey {
        repository: String,
        digest: String,
        reasons: Vec<String>,
    },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// The scope of the verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    Signatures,
    Attestations,
}

/// Requires signatures by `key` of the index and each platform's manifest; ignores attestations by other keys.
pub async fn authenticate(
    image: &RemoteRoot,
    key: &PublicKey,
    depth: Depth,
) -> Result<Vec<Authentic>, AuthenticityError> {
    let subjects = image.subjects();
    let looked = subjects.iter().map(|s| look_at(&image.repository, s, key, depth));
    try_join_all(looked).await
}

async fn look_at(
    repository: &Repository,
    subject: &Descriptor,
    key: &PublicKey,
    depth: Depth,
) -> Result<Authentic, AuthenticityError> {
    let mut found = Authentic {
        digest: subject.digest().to_string(),
        signatures: Vec::new(),
        attestations: Vec::new(),
    };
    let mut reasons: Vec<VerifyError> = Vec::new();
    if let Ok(tag) = sign::signature_tag(subject.digest())
        && let Some(artifact) = tagged(repository, &tag).await?
    {
        // The repository is not compared: a promotion copies signatures to another one.
        match sign::verify_simple_signing(&artifact, key, subject.digest(), None) {
            Ok(_) => found.signatures.push("simple-signing"),
            Err(reason) => reasons.push(reason),
        }
    }
    if depth == Depth::Attestations || found.signatures.is_empty() {
        bundles(repository, subject, key, &mut found, &mut reasons).await?;
    }
    if depth == Depth::Attestations
        && let Ok(tag) = sign::attestation_tag(subject.digest())
        && let Some(artifact) = tagged(repository, &tag).await?
    {
        match sign::verify_attestation_tag(&artifact, key, subject.digest()) {
            Ok(statements) => found
                .attestations
                .extend(statements.into_iter().map(|s| s.predicate_type)),
            Err(reason) => reasons.push(reason),
        }
    }
    found.attestations.sort();
    found.attestations.dedup();
    if !found.signatures.is_empty() {
        return Ok(found);
    }
    let (repository, digest) = (repository.name(), found.digest);
    Err(match reasons.is_empty() {
        true => AuthenticityError::NotSigned { repository, digest },
        false => AuthenticityError::NotByThisKey {
            repository,
            digest,
            reasons: reasons.iter().map(VerifyError::to_string).collect(),
        },
    })
}

/// Signatures and attestations among the referrers.
async fn bundles(
    repository: &Repository,
    subject: &Descriptor,
    key: &PublicKey,
    found: &mut Authentic,
    reasons: &mut Vec<VerifyError>,
) -> Result<(), AuthenticityError> {
    let referrers = repository.referrers(subject.digest()).await?;
    let wanted = referrers.iter().filter(|r| sign::may_be_bundle(r)).take(REFERRERS);
    let fetched = try_join_all(wanted.map(|referrer| async move {
        let manifest = repository.manifest(referrer.digest().as_ref()).await?;
        with_blobs(repository, manifest, Place::Referrer).await
    }));
    for artifact in fetched.await? {
        match sign::verify_bundle(&artifact, key, subject) {
            Ok(_) => found.signatures.push("bundle"),
            Err(reason) => match sign::verify_attestation_bundle(&artifact, key, subject) {
                Ok(statement) => found.attestations.push(statement.predicate_type),
                Err(_) => reasons.push(reason),
            },
        }
    }
    found.signatures.dedup();
    Ok(())
}

async fn tagged(repository: &Repository, tag: &str) -> Result<Option<Artifact>, RegistryError> {
    match repository.find_tag(tag).await? {
        Some(manifest) => Ok(Some(
            with_blobs(repository, manifest, Place::Tag(tag.to_string())).await?,
        )),
        None => Ok(None),
    }
}

/// The artifact with its layers. Skips layers over the size limit; the verification then rejects the artifact.
async fn with_blobs(repository: &Repository, manifest: Content, place: Place) -> Result<Artifact, RegistryError> {
    let parsed: Option<ImageManifest> = serde_json::from_slice(&manifest.bytes).ok();
    let layers: Vec<Descriptor> = parsed.map(|m| m.layers().clone()).unwrap_or_default();
    let wanted = layers
        .into_iter()
        .take(sign::LAYERS_LIMIT)
        .filter(|layer| layer.size() <= sign::ENVELOPE_LIMIT);
    let blobs = try_join_all(wanted.map(|descriptor| async move {
        let bytes = repository.blob(&descriptor).await?;
        Ok::<_, RegistryError>(Content { descriptor, bytes })
    }))
    .await?;
    Ok(Artifact { manifest, blobs, place })
}
