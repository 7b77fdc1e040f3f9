//! A Docker configuration and a registry's challenge -> the credentials for an Authorization header.
//! <https://distribution.github.io/distribution/spec/auth/token/>

use std::path::{Path, PathBuf};

use base64::Engine as _;
use docker_credential::{CredentialRetrievalError, DockerCredential};

use super::error::SyncError;

/// Docker's key for the credentials of Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The content of the Docker configuration. `None` if none is given and the default does not exist.
pub fn read(given: Option<&Path>) -> Result<Option<String>, SyncError> {
    let path = match given {
        Some(path) => path.to_path_buf(),
        None => match std::env::var_os("HOME") {
            Some(home) => PathBuf::from(home).join(".docker"),
            None => return Ok(None),
        },
    };
    // In a mounted image pull secret the file has another name.
    let candidates = match path.is_dir() {
        true => vec![path.join("config.json"), path.join(".dockerconfigjson")],
        false => vec![path.clone()],
    };
    match candidates.iter().find(|file| file.is_file()) {
        Some(file) => std::fs::read_to_string(file)
            .map(Some)
            .map_err(|error| SyncError::File {
                path: file.clone(),
                reason: error.to_string(),
            }),
        None if given.is_none() => Ok(None),
        None => Err(SyncError::File {
            path,
            reason: "there is no config.json".to_string(),
        }),
    }
}

pub fn get(host: &str, config: Option<&str>) -> Result<Option<DockerCredential>, SyncError> {
    let Some(config) = config else { return Ok(None) };
    let key = if host == "docker.io" { HUB_KEY } else { host };
    match docker_credential::get_credential_from_reader(config.as_bytes(), key) {
        Ok(credential) => Ok(Some(credential)),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        Err(error) => Err(SyncError::Credentials {
            host: host.to_string(),
            reason: error.to_string(),
        }),
    }
}

pub fn basic(user: &str, password: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {encoded}")
}

/// An authentication challenge (WWW-Authenticate).
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest);
        let value = |wanted: &str| {
            let found = parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.clone())
        };
        Some(Self::Bearer {
            realm: value("realm")?,
            service: value("service"),
        })
    }
}

/// `name=value` and `name="value, with commas"`, separated by commas (RFC 9110, section 11.2).
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_string();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((name, value.trim().to_string()));
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_real_registries_are_parsed() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            Challenge::parse(hub),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".to_string(),
                service: Some("registry.docker.io".to_string()),
            })
        );
        assert_eq!(Challenge::parse("basic realm=\"x, y\""), Some(Challenge::Basic));
        assert_eq!(
            Challenge::parse("Bearer error=\"a=b, c\", realm=https://x/t"),
            Some(Challenge::Bearer {
                realm: "https://x/t".to_string(),
                service: None,
            })
        );
        for wrong in ["", "Negotiate", "Bearer", "Bearer service=\"x\"", "Bearer realm"] {
            assert_eq!(Challenge::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn docker_hub_has_its_own_key() {
        let config = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"},"r:5000":{"auth":"YTpi"}}}"#;
        let login = |user: &str, password: &str| Some(DockerCredential::UsernamePassword(user.into(), password.into()));
        assert_eq!(get("docker.io", Some(config)).unwrap(), login("me", "secret"));
        assert_eq!(get("r:5000", Some(config)).unwrap(), login("a", "b"));
        assert_eq!(get("quay.io", Some(config)).unwrap(), None);
        assert!(get("quay.io", Some("{")).is_err());
    }
}
