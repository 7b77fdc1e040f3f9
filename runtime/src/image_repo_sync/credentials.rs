//! A Docker configuration and a registry's challenge -> the credentials for an Authorization header.
//! <https://distribution.github.io/distribution/spec/auth/token/>

use std::path::{Path, PathBuf};

use super::docker_config::{Config, Credentials};
use super::error::SyncError;
use base64::Engine as _;

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

pub fn get(host: &str, config: Option<&str>) -> Result<Option<Credentials>, SyncError> {
    let Some(config) = config else { return Ok(None) };
    let login = Config::parse(config.as_bytes()).and_then(|config| config.login(host, ""));
    login.map_err(|reason| SyncError::Credentials {
        host: host.to_string(),
        reason,
    })
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
    /// The challenge to answer, of all headers, each of which may have several: Bearer before Basic.
    pub fn best<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for header in headers {
            let mut is_quoted = false;
            let commas = header.char_indices().filter(|(_, c)| {
                is_quoted ^= *c == '"';
                *c == ',' && !is_quoted
            });
            let starts = commas.map(|(at, _)| at + 1).collect::<Vec<_>>();
            for start in [0].into_iter().chain(starts) {
                match Self::parse(&header[start..]) {
                    Some(Self::Basic) => basic = Some(Self::Basic),
                    Some(bearer) => return Some(bearer),
                    None => {}
                }
            }
        }
        basic
    }

    /// Parses the challenge at the beginning.
    fn parse(header: &str) -> Option<Self> {
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
    fn a_token_is_preferred_to_a_password_in_each_order() {
        let (basic, bearer) = (
            r#"Basic realm="x, Bearer realm=y""#,
            r#"Bearer realm="https://a/t",service="r""#,
        );
        let expected = Challenge::parse(bearer);
        assert!(expected.is_some());
        let (one, other) = (format!("{basic}, {bearer}"), format!("{bearer}, {basic}"));
        for headers in [
            [one.as_str()].as_slice(),
            &[&other],
            &[basic, bearer],
            &[bearer, basic],
            &["Negotiate", bearer],
        ] {
            assert_eq!(Challenge::best(headers.iter().copied()), expected, "{headers:?}");
        }
        assert_eq!(Challenge::best([basic, "Negotiate"]), Some(Challenge::Basic));
        assert_eq!(Challenge::best(["Negotiate"]), None);
    }

    #[test]
    fn docker_hub_has_its_own_key() {
        let config = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"},"r:5000":{"auth":"YTpi"}}}"#;
        let login = |username: &str, password: &str| {
            Some(Credentials::Password {
                username: username.into(),
                password: password.into(),
            })
        };
        assert_eq!(get("docker.io", Some(config)).unwrap(), login("me", "secret"));
        assert_eq!(get("r:5000", Some(config)).unwrap(), login("a", "b"));
        assert_eq!(get("quay.io", Some(config)).unwrap(), None);
        assert!(get("quay.io", Some("{")).is_err());
    }
}
