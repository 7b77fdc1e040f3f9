//! Collects everything that one key signs about an image, in the layouts of both cosign 2 and cosign 3: neither reads
//! all of the other's.

use std::sync::Arc;

use oci_spec::image::Descriptor;
use tokio::task::spawn_blocking;

use super::{Key, SignError, attest_bundle, attest_tag, bundle, simple_signing};
use crate::oci::{Artifact, RepositoryName};

/// An unsigned statement about a manifest.
#[derive(Clone, Debug)]
pub struct Attestation {
    pub subject: Descriptor,
    pub predicate_type: String,
    /// The in-toto statement's bytes.
    pub statement: Vec<u8>,
}

/// Signs `subjects` (an index and its manifests) for `repository` (`host/path`).
pub fn signatures(key: &Key, repository: &str, subjects: &[Descriptor]) -> Result<Vec<Artifact>, SignError> {
    let mut artifacts = Vec::new();
    for subject in subjects {
        artifacts.push(simple_signing(key, repository, subject.digest(), None)?);
        artifacts.push(bundle(key, subject)?);
    }
    Ok(artifacts)
}

pub fn attestations(key: &Key, attestations: &[Attestation]) -> Result<Vec<Artifact>, SignError> {
    let mut artifacts = Vec::new();
    for Attestation {
        subject,
        predicate_type,
        statement,
    } in attestations
    {
        artifacts.push(attest_tag(key, statement, predicate_type, subject.digest(), None)?);
        artifacts.push(attest_bundle(key, statement, predicate_type, subject)?);
    }
    Ok(artifacts)
}

/// Signatures of all `subjects` and the attestations, for a repository; empty without a key.
pub async fn artifacts(
    key: Option<Arc<Key>>,
    repository: &RepositoryName,
    subjects: Vec<Descriptor>,
    attestations: Vec<Attestation>,
) -> anyhow::Result<Vec<Artifact>> {
    let Some(key) = key else { return Ok(Vec::new()) };
    let repository = repository.to_string();
    let signed = spawn_blocking(move || {
        let mut artifacts = self::attestations(&key, &attestations)?;
        // Last, so that a signed image is complete.
        artifacts.extend(self::signatures(&key, &repository, &subjects)?);
        Ok::<_, SignError>(artifacts)
    });
    Ok(signed.await??)
}
