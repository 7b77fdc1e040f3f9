//! Signatures without a key of one's own (the feature `keyless`): an identity token and the digest of a manifest → a Sigstore
//! bundle of cosign 3's layout, attached as those of keys are. Fulcio certifies a key that lives for this one signature, Rekor
//! records it; both are asked for each of them. Bundles are all there is: cosign 2's `.sig` layout is not made without a key.
//!
//! The requests are `sigstore-sign`'s, API v2 of Fulcio and v1 of Rekor.

mod provider;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use oci_spec::image::{Descriptor, Digest, MediaType};
use sigstore_sign::oidc::IdentityToken;
use sigstore_sign::{Error, Signer, SigningContext, SigningServices};
use url::Url;

use super::bundle::{attached, signature_statement};
use super::dsse::must_be_about;
use super::{Attestation, BUNDLE_TYPE, SIGNATURE_PREDICATE, SignError};
use crate::oci::{Artifact, Content};

/// For one request, of which Rekor's wait until the entry is in the log.
const ANSWER: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum KeylessError {
    #[error("the identity token is not one (a JWT is wanted): {0}")]
    Token(String),
    #[error("the identity token for {identity} has expired: it lives for minutes, fetch another one")]
    Expired { identity: String },
    #[error("cannot make an HTTP client: {0}")]
    Client(String),
    #[error("cannot sign {digest} without a key: {service}: {reason}")]
    Service {
        digest: Digest,
        service: String,
        reason: String,
    },
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Somebody whom Fulcio knows.
pub struct Keyless {
    signer: Signer,
    fulcio: Url,
    rekor: Url,
}

impl Keyless {
    /// The token is a file's content or the variable `SIGSTORE_ID_TOKEN`. It is not an argument: a list of processes would
    /// show it.
    pub fn with_token_of(file: Option<&Path>, fulcio: &Url, rekor: &Url) -> anyhow::Result<Self> {
        let token = match file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("reading the identity token {}", path.display()))?,
            None => match std::env::var("SIGSTORE_ID_TOKEN") {
                Ok(token) if !token.is_empty() => token,
                _ => bail!(
                    "--keyless signs for whom an identity token names: set SIGSTORE_ID_TOKEN, or give --identity-token FILE"
                ),
            },
        };
        Ok(Self::new(&token, fulcio, rekor)?)
    }

    pub fn new(token: &str, fulcio: &Url, rekor: &Url) -> Result<Self, KeylessError> {
        provider::install();
        // The library's error may hold a part of the token.
        let token = IdentityToken::from_jwt(token.trim())
            .map_err(|_| KeylessError::Token("three parts between dots, with claims in the second".into()))?;
        if token.is_expired() {
            return Err(KeylessError::Expired {
                identity: token.identity().to_string(),
            });
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("obgp-build/", env!("CARGO_PKG_VERSION")))
            .timeout(ANSWER)
            .build()
            .map_err(|e| KeylessError::Client(e.to_string()))?;
        let services = SigningServices::new(base(fulcio), base(rekor));
        Ok(Self {
            signer: SigningContext::new(services).with_http_client(client).signer(token),
            fulcio: fulcio.clone(),
            rekor: rekor.clone(),
        })
    }

    /// Signs the manifest or index that `subject` describes.
    pub async fn sign(&self, subject: &Descriptor) -> Result<Artifact, KeylessError> {
        let statement = signature_statement(subject.digest())?;
        self.bundle(statement.as_bytes(), SIGNATURE_PREDICATE, subject).await
    }

    pub async fn attest(&self, attestation: &Attestation) -> Result<Artifact, KeylessError> {
        let Attestation {
            subject,
            predicate_type,
            statement,
        } = attestation;
        must_be_about(statement, predicate_type, subject.digest())?;
        self.bundle(statement, predicate_type, subject).await
    }

    async fn bundle(
        &self,
        statement: &[u8],
        predicate_type: &str,
        subject: &Descriptor,
    ) -> Result<Artifact, KeylessError> {
        let failed = |error: Error| self.told(subject.digest(), &error);
        let bundle = self.signer.sign_raw_statement(statement).await.map_err(failed)?;
        let json = bundle.to_json().map_err(|e| failed(e.into()))?;
        let bundle = Content::new(MediaType::from(BUNDLE_TYPE), json);
        Ok(attached(bundle, predicate_type, subject)?)
    }

    /// With the address of whoever failed.
    fn told(&self, digest: &Digest, error: &Error) -> KeylessError {
        let (service, reason) = match error {
            Error::Fulcio(error) => (format!("Fulcio at {}", self.fulcio), error.to_string()),
            Error::Rekor(error) => (format!("Rekor at {}", self.rekor), error.to_string()),
            other => ("the sigstore library".to_string(), other.to_string()),
        };
        KeylessError::Service {
            digest: digest.clone(),
            service,
            reason,
        }
    }
}

/// The library appends `/api/…`.
fn base(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}
