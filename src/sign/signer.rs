//! What signs an image that a registry has: a key, or with the feature `keyless` an identity.

use oci_spec::image::Descriptor;

#[cfg(feature = "keyless")]
use super::Keyless;
use super::{Attestation, KeyError, KeySource, PendingKey, artifacts};
use crate::oci::{Artifact, RepositoryName};

pub enum Signer {
    Key(PendingKey),
    #[cfg(feature = "keyless")]
    Keyless(Box<Keyless>),
}

impl Signer {
    /// Starts reading the key at once.
    pub fn key(source: Option<&KeySource>) -> Result<Self, KeyError> {
        Ok(Self::Key(PendingKey::load(source)?))
    }

    /// Signatures of all `subjects`, and the attestations, for a repository.
    pub async fn artifacts(
        self,
        repository: &RepositoryName,
        subjects: Vec<Descriptor>,
        attestations: Vec<Attestation>,
    ) -> anyhow::Result<Vec<Artifact>> {
        match self {
            Self::Key(key) => artifacts(key.ready().await?, repository, subjects, attestations).await,
            #[cfg(feature = "keyless")]
            Self::Keyless(keyless) => {
                let mut artifacts = Vec::new();
                for attestation in &attestations {
                    artifacts.push(keyless.attest(attestation).await?);
                }
                for subject in &subjects {
                    artifacts.push(keyless.sign(subject).await?);
                }
                Ok(artifacts)
            }
        }
    }
}
