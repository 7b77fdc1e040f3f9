//! Who signs what a registry has already: a key, or with the feature `keyless` an identity.

use oci_spec::image::Descriptor;

use super::publishing::PendingKey;
use crate::cli::SigningArgs;
use crate::oci::{Artifact, RepositoryName};
use crate::sign::{self, Attestation};
#[cfg(feature = "keyless")]
use crate::{cli::KeylessArgs, sign::Keyless};

pub enum PendingSigner {
    Key(PendingKey),
    #[cfg(feature = "keyless")]
    Keyless(Box<Keyless>),
}

impl PendingSigner {
    pub fn load(args: &SigningArgs) -> anyhow::Result<Self> {
        #[cfg(feature = "keyless")]
        if args.keyless.keyless {
            return Ok(Self::Keyless(Box::new(keyless(&args.keyless)?)));
        }
        Ok(Self::Key(PendingKey::load(args.key.as_ref())))
    }

    /// Signatures of all `subjects`, and the attestations, for a repository.
    pub async fn artifacts(
        self,
        repository: &RepositoryName,
        subjects: Vec<Descriptor>,
        attestations: Vec<Attestation>,
    ) -> anyhow::Result<Vec<Artifact>> {
        match self {
            Self::Key(key) => sign::artifacts(key.ready().await?, repository, subjects, attestations).await,
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

/// The token is no argument: whoever lists processes would see it.
#[cfg(feature = "keyless")]
fn keyless(args: &KeylessArgs) -> anyhow::Result<Keyless> {
    use anyhow::{Context as _, bail};
    let token = match &args.identity_token {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("reading the identity token {}", path.display()))?
        }
        None => match std::env::var("SIGSTORE_ID_TOKEN") {
            Ok(token) if !token.is_empty() => token,
            _ => bail!(
                "--keyless signs for whom an identity token names: set SIGSTORE_ID_TOKEN, or give --identity-token FILE"
            ),
        },
    };
    Ok(Keyless::new(&token, &args.fulcio_url, &args.rekor_url)?)
}
