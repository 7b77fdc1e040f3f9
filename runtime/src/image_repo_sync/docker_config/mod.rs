//! The text of Docker's `config.json` -> the credentials for a repository. Podman's `auth.json` and Kubernetes'
//! `.dockerconfigjson` have the same format. obgp-build compiles this module too.
//!
//! Reads what Docker 28 reads (`cli/config/configfile`, `cli/config/credentials`), and podman's keys of namespaces
//! (<https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>). An entry that cannot be decoded is an
//! error only for its own registry.

mod helper;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

/// The key of Docker Hub's credentials, whatever its host.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB: &str = "docker.io";

/// Accepts missing padding, and unused bits as Go does.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        username: String,
        password: String,
    },
    /// A refresh token for the registry's token service.
    IdentityToken(String),
    /// A bearer token for the registry itself.
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
            Self::RegistryToken(_) => f.write_str("RegistryToken"),
        }
    }
}

/// The logins of a configuration file.
#[derive(Default)]
pub struct Config {
    auths: BTreeMap<String, Entry>,
    helpers: BTreeMap<String, String>,
    store: String,
}

/// An entry of `auths`; missing fields are empty.
#[derive(Default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identity_token: String,
    registry_token: String,
}

impl Config {
    /// Parses a file. Like Docker, it ignores the case of field names and anything after the JSON document; an empty file
    /// has no logins.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let document = serde_json::Deserializer::from_slice(text).into_iter::<Value>().next();
        let object = match document.transpose().map_err(|e| e.to_string())? {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Object(object)) => object,
            Some(_) => return Err("it is not a JSON object".into()),
        };
        let map_of = |name: &str| match field(&object, name) {
            None => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(_) => Err(format!("{name:?} is not a JSON object")),
        };
        let entries = map_of("auths")?.into_iter();
        let helpers = map_of("credHelpers")?.into_iter();
        Ok(Self {
            auths: entries.map(|(key, value)| (key, Entry::of(&value))).collect(),
            helpers: helpers.map(|(key, value)| (key, text_of(Some(&value)))).collect(),
            store: text_of(field(&object, "credsStore")),
        })
    }

    /// The credentials for a repository of a registry host such as `quay.io` or `registry:5000`; an empty `path` stands for any
    /// repository. Runs the registry's credential helper, and waits for it. The error describes the failure; it contains no
    /// secret.
    pub fn login(&self, host: &str, path: &str) -> Result<Option<Credentials>, String> {
        // Docker keeps a registry token beside the login of a helper, and registries prefer it.
        if let Some((_, entry)) = self
            .entry(host, path)
            .filter(|(_, entry)| !entry.registry_token.is_empty())
        {
            return entry.credentials();
        }
        let failed = match self.helper(host).map(|program| helper::get(program, server(host))) {
            Some(Ok(Some(found))) => return Ok(Some(found)),
            // As in Docker, the entry of a registry whose helper fails is used, and that of one whose helper works is
            // not.
            Some(Err(reason)) => Some(reason),
            Some(Ok(None)) => return self.unused_entry(host, path),
            None => None,
        };
        match (self.entry(host, path), failed) {
            (Some((key, entry)), _) => entry
                .credentials()
                .map_err(|reason| format!("the login {key:?}: {reason}")),
            (None, Some(reason)) => Err(reason),
            (None, None) => Ok(None),
        }
    }

    /// The result if the registry's helper has no login.
    fn unused_entry(&self, host: &str, path: &str) -> Result<Option<Credentials>, String> {
        match (self.entry(host, path), self.helper(host)) {
            (Some((key, _)), Some(program)) => Err(format!(
                "the login {key:?} in `auths` is not used, because the credential helper {program:?} is asked for it and has none"
            )),
            _ => Ok(None),
        }
    }

    /// The helper of a registry. An empty name means that its login is in `auths`.
    fn helper(&self, host: &str) -> Option<&str> {
        let exact = self.helpers.get(server(host));
        let named = exact.or_else(|| {
            let mut helpers = self.helpers.iter();
            helpers.find_map(|(key, program)| (host_and_path(key).0 == canonical(host)).then_some(program))
        });
        let program = named.unwrap_or(&self.store).as_str();
        (!program.is_empty()).then_some(program)
    }

    /// The entry with the longest path that contains the repository; else, as in Docker, one with the registry's host.
    fn entry(&self, host: &str, path: &str) -> Option<(&str, &Entry)> {
        let rank = |key: &str| {
            let (of, scope) = host_and_path(key);
            let contains = path
                .strip_prefix(scope)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            match of == canonical(host) {
                true if scope.is_empty() || contains => Some((1 + scope.len(), key == server(host))),
                true => Some((0, false)),
                false => None,
            }
        };
        let filled = self.auths.iter().filter(|(_, entry)| !entry.is_empty());
        let ranked = filled.filter_map(|(key, entry)| Some((rank(key)?, key.as_str(), entry)));
        let best = ranked.max_by_key(|(rank, ..)| *rank)?;
        Some((best.1, best.2))
    }
}

impl Entry {
    fn of(value: &Value) -> Self {
        let text = |name: &str| text_of(value.as_object().and_then(|object| field(object, name)));
        Self {
            auth: text("auth"),
            username: text("username"),
            password: text("password"),
            identity_token: text("identitytoken"),
            registry_token: text("registrytoken"),
        }
    }

    fn is_empty(&self) -> bool {
        [&self.auth, &self.username, &self.identity_token, &self.registry_token]
            .iter()
            .all(|text| text.is_empty())
    }

    fn credentials(&self) -> Result<Option<Credentials>, String> {
        let (username, password) = if !self.registry_token.is_empty() {
            return Ok(Some(Credentials::RegistryToken(self.registry_token.clone())));
        } else if !self.identity_token.is_empty() {
            return Ok(Some(Credentials::IdentityToken(self.identity_token.clone())));
        } else if !self.auth.is_empty() {
            decode(&self.auth)?
        } else {
            (self.username.clone(), self.password.clone())
        };
        Ok((!username.is_empty()).then_some(Credentials::Password { username, password }))
    }
}

/// `USER:PASSWORD` in base64, perhaps on several lines. Some programs pad the password with NULs.
fn decode(auth: &str) -> Result<(String, String), String> {
    let compact: Vec<u8> = auth.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let decoded = BASE64.decode(compact).map_err(|_| "`auth` is not base64")?;
    let text = String::from_utf8(decoded).map_err(|_| "`auth` is not UTF-8")?;
    let parts = text.split_once(':').filter(|(username, _)| !username.is_empty());
    let (username, password) = parts.ok_or("`auth` is not USER:PASSWORD in base64")?;
    Ok((username.to_string(), password.trim_matches('\0').to_string()))
}

/// The name of a registry for credential helpers.
fn server(host: &str) -> &str {
    match canonical(host) {
        HUB => HUB_KEY,
        other => other,
    }
}

fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => HUB,
        other => other,
    }
}

/// Splits a key: `quay.io/team` has a path; `HOST/`, `HOST/v2/` and `https://HOST/v1/` have none.
fn host_and_path(key: &str) -> (&str, &str) {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = match path.trim_matches('/') {
        "v1" | "v2" => "",
        other => other,
    };
    (canonical(host), path)
}

/// A field that is not null, by its name in any case, as Go decodes JSON.
fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut any_case = object.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    let found = object.get(name).or_else(|| any_case.next().map(|(_, value)| value));
    found.filter(|value| !value.is_null())
}

fn text_of(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests;
