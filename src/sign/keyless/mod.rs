//! Signs a manifest without a long-lived key (feature `keyless`): an identity token and a digest become a Sigstore
//! bundle in cosign 3's layout, attached like the bundles of keys. Fulcio certifies a key for this one signature and
//! Rekor records it, with requests for each signature. cosign 2's `.sig` layout is not supported without a key.
//!
//! `sigstore-sign` sends the requests, to API v2 of Fulcio and v1 of Rekor.

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

/// Timeout of a request; Rekor's includes the wait for the log entry.
const ANSWER: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum KeylessError {
    #[error("parsing the identity token: it is not a JWT: {0}")]
    Token(String),
    #[error("the identity token for {identity} has expired\nhelp: fetch a new token; tokens are valid for minutes")]
    Expired { identity: String },
    #[error("creating an HTTP client: {0}")]
    Client(String),
    #[error("signing {digest} without a key: {service}: {reason}")]
    Service {
        digest: Digest,
        service: String,
        reason: String,
    },
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// An identity that Fulcio can certify.
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
        // The library's error may contain a part of the token.
        let token = IdentityToken::from_jwt(token.trim()).map_err(|_| {
            KeylessError::Token("expected three parts separated by dots, with claims in the second".into())
        })?;
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

    /// Signs the manifest or index of `subject`.
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
        let failed = |error: Error| self.service_error(subject.digest(), &error);
        let bundle = self.signer.sign_raw_statement(statement).await.map_err(failed)?;
        let json = bundle.to_json().map_err(|e| failed(e.into()))?;
        let bundle = Content::new(MediaType::from(BUNDLE_TYPE), json);
        Ok(attached(bundle, predicate_type, subject)?)
    }

    /// Adds the address of the service that failed.
    fn service_error(&self, digest: &Digest, error: &Error) -> KeylessError {
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
