//! Looks up the credentials for a registry in Docker's `config.json`: `auths`, credential helpers and stores.

use std::fmt;

use docker_credential::{CredentialRetrievalError, DockerCredential};

/// The key of Docker Hub's credentials, whatever its host.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        username: String,
        password: String,
    },
    /// A refresh token for the registry's token service.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

/// The credentials for a registry host such as `quay.io` or `registry:5000`; `None` if Docker has none. A failing
/// helper is logged and treated as none, because most pulls need no login.
pub async fn for_registry(host: &str) -> Option<Credentials> {
    let key = match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_string(),
        other => other.to_string(),
    };
    let asked = key.clone();
    // It may run a helper program and wait for it.
    let got = tokio::task::spawn_blocking(move || docker_credential::get_credential(&asked)).await;
    match got {
        Ok(Ok(DockerCredential::UsernamePassword(username, password))) if !username.is_empty() => {
            Some(Credentials::Password { username, password })
        }
        Ok(Ok(DockerCredential::UsernamePassword(..))) => None,
        Ok(Ok(DockerCredential::IdentityToken(token))) => Some(Credentials::IdentityToken(token)),
        Ok(Err(
            CredentialRetrievalError::NoCredentialConfigured
            | CredentialRetrievalError::ConfigNotFound
            | CredentialRetrievalError::ConfigReadError,
        )) => None,
        // A helper's output may contain the secret: log only the helper's name.
        Ok(Err(CredentialRetrievalError::HelperFailure { helper, .. })) => {
            tracing::warn!(registry = %key, %helper, "the credential helper failed; continuing without a login");
            None
        }
        Ok(Err(error)) => {
            tracing::warn!(registry = %key, %error, "cannot read docker's credentials; continuing without a login");
            None
        }
        Err(_) => None,
    }
}

/// The registry host of an image reference: `docker.io` for `debian:12` and `library/debian`.
pub fn registry_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_of_a_reference() {
        for (reference, host) in [
            ("debian:12", "docker.io"),
            ("library/debian", "docker.io"),
            ("localhost/x", "localhost"),
            ("reg:5000/a/b:c", "reg:5000"),
            ("quay.io/a/b@sha256:0", "quay.io"),
        ] {
            assert_eq!(registry_of(reference), host);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!(
            "{:?} {:?}",
            Credentials::Password {
                username: "me".into(),
                password: "hunter2".into()
            },
            Credentials::IdentityToken("hunter2".into())
        );
        assert!(!shown.contains("hunter2"));
    }
}
